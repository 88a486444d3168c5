"""A node's side of the Ray engine: one errand, in a process of its own, with files that came as bytes and go as bytes.

Ray's own worker hands the errand on and needs no torch; the process of the errand does.
"""

import getpass
import os
import platform
import queue
import shutil
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock

from deltaproof.carried import as_variables
from deltaproof.errors import ConfigError, DeltaproofError
from deltaproof.experiments.engines.local import LocalEngine
from deltaproof.experiments.engines.parcel import files_of, pieces, remove
from deltaproof.experiments.engines.worker import Surroundings
from deltaproof.experiments.environment import versions
from deltaproof.experiments.jobs import Job, Question

EVERY_SECONDS = 0.5
"""What a run says of its progress is sent this often, all of it together."""

Message = tuple[Any, ...]
"""(`progress`, list of values), (`piece`, path, bytes), last (`end`, kind, value, whether it opened the test split)."""


@dataclass(frozen=True)
class Model:
    """A model that lies in a folder of the driver's machine."""

    name: str
    fingerprint: str
    files: Mapping[str, Any]
    """File name to a reference to its bytes."""


@dataclass(frozen=True)
class Parcel:
    """What an errand on a node needs beside its request."""

    experiment: str
    """Names the node's own folder of this experiment."""
    files: Mapping[str, Any]
    """Path below that folder to a reference to the file's bytes; those that are there already stay."""
    model: Model | None
    versions: dict[str, str]
    """Of the driver's libraries: part of every spec, so the node's must be the same."""
    modules: tuple[str, ...]
    """Modules outside of this package that register methods."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the driver that its runs heed too."""


def workspace(experiment: str) -> Path:
    """The node's own folder of an experiment, on a disk of the node: what a killed run left is found again there."""
    return Path(tempfile.gettempdir()) / f"deltaproof-{getpass.getuser()}" / experiment


def clear(experiment: str) -> None:
    """Delete the node's folder of an experiment."""
    shutil.rmtree(workspace(experiment), ignore_errors=True)


def work(errand: str, request: Job | Question, parcel: Parcel) -> Iterator[Message]:
    """Do an errand (`look`, `probe` or `run`) on this node, and send what comes of it piece by piece."""
    try:
        yield from _work(errand, request, parcel)
    except DeltaproofError as error:
        yield "end", "user_error", error, False


def _work(errand: str, request: Job | Question, parcel: Parcel) -> Iterator[Message]:
    here = versions()
    if here != parcel.versions:
        differing = sorted(name for name in {*here, *parcel.versions} if here.get(name) != parcel.versions.get(name))
        listed = ", ".join(f"{name} {here.get(name)} instead of {parcel.versions.get(name)}" for name in differing)
        raise ConfigError(
            f"every node must have the libraries of the machine that asks, {platform.node()} has {listed}; "
            f"install the same versions on all"
        )
    folder = workspace(parcel.experiment)
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / "locks" / "parcel.lock"):
        _unpack(folder, parcel.files)
        models = {} if parcel.model is None else {parcel.model.name: _model_folder(folder, parcel.model)}
    told = {**as_variables(models), "DELTAPROOF_HOME": str(folder / "home"), **_accelerators()}
    engine = LocalEngine(Surroundings(parcel.modules, None, {**os.environ, **parcel.environment, **told}))
    outcome = yield from _followed(engine, errand, replace(request, folder=folder))
    if errand != "run" or not isinstance(request, Job):
        yield "end", *outcome, False
        return
    for name, content in pieces(folder, files_of(request)):
        yield "piece", name, content
    yield "end", *outcome, _was_opened(folder, request.spec.key)
    if outcome[0] in ("result", "user_error"):
        remove(folder, files_of(request))


def _followed(engine: LocalEngine, errand: str, request: Any) -> Generator[Message, None, tuple[str, Any]]:
    """Send what the errand says on its way; returns what became of it."""
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    outcome: list[tuple[str, Any]] = []
    over = threading.Event()

    def do() -> None:
        try:
            outcome.append(engine.attempt(errand, request, lambda *values: said.put(values)))
        except BaseException as error:
            outcome.append(("error", f"{type(error).__name__}: {error}"))
        finally:
            over.set()

    threading.Thread(target=do, daemon=True).start()
    try:
        while not over.wait(EVERY_SECONDS):
            yield "progress", _all_of(said)
        yield "progress", _all_of(said)
        return outcome[0]
    finally:
        if not over.is_set():
            engine.stop()


def _all_of(said: "queue.SimpleQueue[Any]") -> list[Any]:
    found = []
    while not said.empty():
        found.append(said.get())
    return found


def _accelerators() -> dict[str, str]:
    """Those that the task asked for stay visible; a task that asked for none sees none."""
    import ray

    granted = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return {} if granted else {"CUDA_VISIBLE_DEVICES": ""}


def _was_opened(folder: Path, key: str) -> bool:
    """Whether the run has looked at the sealed test split: it is entered in the ledger of this folder then."""
    ledger = folder / "home" / "openings.jsonl"
    return ledger.exists() and key in ledger.read_text(encoding="utf-8")


def _model_folder(folder: Path, model: Model) -> Path:
    """Where the model lies on this node: where it was carried to, or under its own name if it was too large."""
    if model.files:
        target = folder / "models" / model.fingerprint
        _unpack(target, model.files)
        return target
    from deltaproof.backbones.source import Source

    there = Path(model.name).expanduser()
    if not (there / "config.json").is_file() or Source(there, "").fingerprint() != model.fingerprint:
        raise ConfigError(
            f"a model that is too large to be carried must lie under the same path on every node, `{model.name}` does "
            f"not on {platform.node()}; put it there, or name it by its hub id"
        )
    return there


def _unpack(folder: Path, files: Mapping[str, Any]) -> None:
    import ray

    for name, reference in files.items():
        path = folder / name
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(memoryview(ray.get(reference)))
        partial.replace(path)
