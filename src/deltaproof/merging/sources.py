"""What an expert's file or folder says of itself, read before any weight is: its form, its base, its task."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from deltaproof.backbones.source import find_source
from deltaproof.compression.container import read_compressed
from deltaproof.errors import BackboneError, ConfigError, RecordError
from deltaproof.records.spec import Spec
from deltaproof.saving.folder import FACTS, facts_of
from deltaproof.saving.folder import TENSORS as OWN_TENSORS
from deltaproof.tasks.text import TextTask
from deltaproof.theory.adapters import CONFIG
from deltaproof.theory.adapters import TENSORS as PEFT_TENSORS
from deltaproof.theory.checkpoints import open_model, read_json_file

Kind = Literal["file", "model", "tuned", "adapter"]


@dataclass(frozen=True)
class ExpertSource:
    """An expert as it lies on disk."""

    name: str
    """What it is called here: its run folder, its file or its folder."""
    path: Path
    kind: Kind
    """`file`: a `.dpz`; `model`: a whole model; `tuned`: an update that `train` or `compare` saved; `adapter`:
    PEFT's."""
    base: str
    """Where the model that was tuned lies."""
    revision: str | None
    fingerprint: str
    """Of that model."""
    spec: dict[str, Any] | None = None
    """By which deltaproof tuned it; None for what others made."""
    task: TextTask | None = None

    @property
    def key(self) -> str | None:
        """Of the run that tuned it."""
        return None if self.spec is None else spec_of(self.spec).key

    @property
    def contestant(self) -> str:
        return str(self.spec["contestant"]) if self.spec is not None else self.kind

    @property
    def files(self) -> list[Path]:
        """Those that hold the update."""
        if self.kind == "file":
            return [self.path]
        if self.kind == "model":
            return find_source(str(self.path)).weight_files
        return [self.path / (OWN_TENSORS if self.kind == "tuned" else PEFT_TENSORS)]

    @property
    def stored_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of SHA-256 over the update's bytes."""
        found = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                found.update(hashlib.file_digest(stream, "sha256").digest())
        return found.hexdigest()[:16]


def spec_of(spec: dict[str, Any]) -> Spec:
    """A spec as JSON holds it, as the object whose key names the run."""
    return Spec(**{**spec, "parents": tuple(spec.get("parents", ()))})


def look_at(paths: list[Path], base: str | None = None) -> list[ExpertSource]:
    """The experts that lie at these paths, which must all be of one base.

    Args:
        paths: `.dpz` files, tuned models or run folders, PEFT adapters, whole models.
        base: where the model that was tuned lies; needed for a whole model that others tuned.
    Raises:
        ConfigError: there are fewer than two, one is named twice, or they are of different bases.
        RecordError, BackboneError: one cannot be read.
    """
    if len(paths) < 2:
        raise ConfigError(f"a merge takes at least 2 experts, got {len(paths)}; name more files or folders")
    found = [look(path, base) for path in paths]
    if twice := [one for at, one in enumerate(found) if one.path in [other.path for other in found[:at]]]:
        raise ConfigError(
            f"each expert may be given once, got `{twice[0].path}` twice; give it a larger weight instead"
        )
    first = found[0]
    for other in found[1:]:
        if other.fingerprint != first.fingerprint:
            raise ConfigError(
                f"experts must be of one base, `{first.path}` was tuned from `{first.base}` with fingerprint "
                f"{first.fingerprint}, `{other.path}` from `{other.base}` with {other.fingerprint}; merge those of one "
                f"base"
            )
    return _told_apart(found)


def look(path: Path, base: str | None = None) -> ExpertSource:
    """One expert, without its weights.

    Raises:
        ConfigError: its base is not known, or is another than `base`.
        RecordError, BackboneError: it cannot be read.
    """
    if path.is_file():
        return _of_file(path, base)
    if not (path / FACTS).is_file() and (path / "best" / FACTS).is_file():
        path = path / "best"
    path = path.resolve()
    if (path / FACTS).is_file():
        task, spec = facts_of(path)
        model = spec["model"]
        kind: Kind = "model" if spec["method"]["name"] == "full" else "tuned"
        return _checked(
            path, kind, base, model["name"], model.get("revision") or None, model["fingerprint"], spec, task
        )
    if (path / CONFIG).is_file():
        return _checked(path, "adapter", base, _named_by_peft(path))
    if (path / "config.json").is_file():
        return _checked(path, "model", base, None)
    raise RecordError(
        f"an expert must be a .dpz file, a tuned model, a run folder, a PEFT adapter or a model, `{path}` has none of "
        f"{FACTS}, {CONFIG} and config.json; check the path"
    )


def _of_file(path: Path, base: str | None) -> ExpertSource:
    facts = read_compressed(path).facts
    spec = facts.get("spec")
    task = TextTask.from_json(facts["task"]) if spec is not None else None
    named = facts.get("base") or {}
    return _checked(
        path.resolve(), "file", base, named.get("name") or None, named.get("revision") or None,
        named.get("fingerprint"), spec, task,
    )  # fmt: skip


def _named_by_peft(folder: Path) -> str | None:
    named = read_json_file(folder / CONFIG).get("base_model_name_or_path")
    return str(named) if named else None


def _checked(
    path: Path, kind: Kind, given: str | None, named: str | None, revision: str | None = None,
    recorded: str | None = None, spec: dict[str, Any] | None = None, task: TextTask | None = None,
) -> ExpertSource:  # fmt: skip
    """With the base found where it lies, and held against what was recorded of it."""
    if given is None and named is None:
        raise ConfigError(
            f"an expert is a change of a base, `{path}` does not say which model it was tuned from; name it with "
            f"`--base`"
        )
    where, revision = given or named or "", None if given else revision
    try:
        open_model(where, revision)
        fingerprint = find_source(where, revision).fingerprint()
    except BackboneError as error:
        raise BackboneError(f"the base of `{path}` must be at hand: {error}; name its place with `--base`") from error
    if recorded is not None and fingerprint != recorded:
        raise ConfigError(
            f"the base must be the model that `{path}` was tuned from, `{named}` with fingerprint {recorded}, got "
            f"`{where}` with {fingerprint}; bring that model back, or name its place with `--base`"
        )
    return ExpertSource(_name_of(path), path, kind, where, revision, fingerprint, spec, task)


def _name_of(path: Path) -> str:
    """The run folder's name for what lies in one, a file's without its ending, a folder's."""
    if path.is_file():
        return path.stem
    if path.parent.name == "tuned" and (path.parent.parent / "data").is_dir():
        return path.parent.parent.name
    return path.name


def _told_apart(found: list[ExpertSource]) -> list[ExpertSource]:
    """Experts of one name get their contestant's too, and then a number."""
    names = [one.name for one in found]
    full = [f"{one.name} {one.contestant}" if names.count(one.name) > 1 else one.name for one in found]
    seen: dict[str, int] = {}
    told = []
    for one, name in zip(found, full, strict=True):
        seen[name] = seen.get(name, 0) + 1
        told.append(replace(one, name=name if seen[name] == 1 else f"{name} {seen[name]}"))
    return told
