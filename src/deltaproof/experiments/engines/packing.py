"""What a task on a cluster is given to read, as references to bytes in the cluster's object store."""

import hashlib
import os
import platform
import threading
from pathlib import Path
from typing import Any

import numpy as np

from deltaproof.backbones.source import ALIASES, find_source
from deltaproof.data.run_folder import carried_files
from deltaproof.experiments.engines.node import Model, Parcel
from deltaproof.experiments.engines.parcel import LAST
from deltaproof.experiments.environment import versions
from deltaproof.experiments.jobs import Job, Question
from deltaproof.records.store import Store

LARGEST_CARRIED_BYTES = 20 * 10**9
"""A model folder is carried up to this size; a larger one must lie under the same path on every node."""
HEEDED = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "TOKENIZERS_PARALLELISM")
"""Environment variables of the driver that runs on nodes heed too; no secret is among them."""


class Packer:
    """Puts each file into the object store once, whoever asks for it then; may be called from several threads.

    Args:
        modules: those outside of this package that register methods.
    """

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._modules = modules
        self._references: dict[Path, tuple[Any, Any]] = {}
        self._models: dict[str, Model] = {}
        self._folders: set[Path] = set()
        self._packing = threading.Lock()

    def parcel(self, request: Job | Question) -> Parcel:
        """What goes with a request."""
        with self._packing:
            return self._packed(request)

    def experiments(self) -> list[str]:
        """What nodes call the experiments that something was packed for."""
        return [_identity(folder) for folder in self._folders]

    def _packed(self, request: Job | Question) -> Parcel:
        folder = request.folder
        self._folders.add(folder)
        is_final = isinstance(request, Job) and request.spec.stage == "final" and not request.restore
        places = [f"data/{name}" for name in carried_files(with_test=is_final)]
        files = {place: self._reference(folder / place) for place in places}
        if isinstance(request, Job):  # what an earlier attempt left here, and what a repeated training is held against
            checkpoint = folder / "checkpoints" / request.checkpoint_key
            own = sorted(checkpoint.glob("*"), key=lambda path: path.name in LAST)
            own += [Store(folder).record_path(request.spec.key)] if request.restore else []
            files |= {path.relative_to(folder).as_posix(): _put(path) for path in own}
        return Parcel(
            experiment=_identity(folder),
            files=files,
            model=self._model(request.model if isinstance(request, Question) else request.spec.model["name"]),
            versions=versions(),
            modules=self._modules,
            environment={variable: os.environ[variable] for variable in HEEDED if variable in os.environ},
        )

    def _model(self, name: str) -> Model | None:
        """A model that lies in a folder here, to be carried; None for one that every node fetches from the hub."""
        if name not in ALIASES and not Path(name).expanduser().is_dir():
            return None
        if name not in self._models:
            source = find_source(name)
            is_light = sum(path.stat().st_size for path in source.files) <= LARGEST_CARRIED_BYTES
            files = {path.name: self._reference(path) for path in source.files} if is_light else {}
            self._models[name] = Model(name, source.fingerprint(), files)
        return self._models[name]

    def _reference(self, path: Path) -> Any:
        """A reference to the file's bytes in the object store; a file that was changed since goes in anew."""
        stamp = (path.stat().st_mtime_ns, path.stat().st_size)
        if self._references.get(path, (None, None))[0] != stamp:
            self._references[path] = (stamp, _put(path))
        return self._references[path][1]


def _put(path: Path) -> Any:
    import ray

    return ray.put(np.fromfile(path, dtype=np.uint8))


def _identity(folder: Path) -> str:
    """A name for an experiment's folder on the nodes: the same again when the same command goes on."""
    facts = (folder / "data" / "dataset.json").read_bytes()
    return hashlib.sha256(f"{platform.node()}:{folder.resolve()}:".encode() + facts).hexdigest()[:16]
