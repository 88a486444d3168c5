"""Which experts lie in a folder, and whether one has changed since it was read."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from deltaproof.errors import ConfigError, RecordError
from deltaproof.saving.folder import FACTS, TENSORS
from deltaproof.theory.adapters import CONFIG
from deltaproof.theory.adapters import TENSORS as ADAPTER

Kind = Literal["dpz", "tuned", "peft", "model"]
Signature = tuple[tuple[str, int, int], ...]
SUFFIX = ".dpz"
_WATCHED = (FACTS, TENSORS, CONFIG, ADAPTER, "config.json", "model.safetensors", "model.safetensors.index.json")


def experts_in(place: Path | Mapping[str, Path | str]) -> dict[str, Path]:
    """The experts by name: files `NAME.dpz`, and folders `NAME/` that hold an adapter or a tuned model.

    A run folder that `train` or `compare` made stands for its `best`.

    Args:
        place: the folder, or names with the places of the experts.
    Raises:
        RecordError: there is no such folder.
        ConfigError: two have one name.
    """
    if isinstance(place, Mapping):
        return {name: _of_run(Path(path)) for name, path in place.items()}
    if not place.is_dir():
        raise RecordError(f"experts must lie in a folder, found none at `{place}`; check the path")
    found: dict[str, Path] = {}
    for path in sorted(place.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file() and path.suffix == SUFFIX:
            name = path.stem
        elif path.is_dir() and _kind_of_folder(_of_run(path)) is not None:
            name, path = path.name, _of_run(path)
        else:
            continue
        if name in found:
            raise ConfigError(
                f"an expert must have a name of its own, `{place}` has two of the name `{name}`, {found[name].name} "
                f"and {path.name}; rename one"
            )
        found[name] = path
    return found


def kind_of(path: Path) -> Kind:
    """What lies there.

    Raises:
        RecordError: nothing that can be served.
    """
    kind = "dpz" if path.is_file() and path.suffix == SUFFIX else _kind_of_folder(path)
    if kind is None:
        raise RecordError(
            f"an expert must be a .dpz file, an adapter ({CONFIG}) or a tuned model ({FACTS} or config.json), "
            f"`{path}` is none; check the path"
        )
    return kind


def files_of(path: Path) -> tuple[str, ...]:
    """The files that make up an expert."""
    if not path.is_dir():
        return (str(path),)
    return tuple(str(path / name) for name in _WATCHED if (path / name).is_file())


def signature_of(files: Sequence[str]) -> Signature:
    """Bytes and time of writing of each file: other ones mean another expert."""
    found = []
    for file in files:
        try:
            facts = os.stat(file)
        except OSError:
            found.append((file, -1, -1))
        else:
            found.append((file, facts.st_size, facts.st_mtime_ns))
    return tuple(found)


def _of_run(path: Path) -> Path:
    is_run = (path / "experiment.json").is_file() and (path / "best" / FACTS).is_file()
    return path / "best" if is_run else path


def _kind_of_folder(path: Path) -> Kind | None:
    if (path / FACTS).is_file():
        return "tuned"
    if (path / CONFIG).is_file():
        return "peft"
    return "model" if (path / "config.json").is_file() else None
