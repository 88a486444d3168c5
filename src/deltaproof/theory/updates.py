"""What lies in a folder, and the changes that it makes to a base."""

from pathlib import Path

from deltaproof.backbones.source import find_source
from deltaproof.saving.folder import FACTS
from deltaproof.theory.adapters import CONFIG, adapter_deltas
from deltaproof.theory.checkpoints import open_model, read_json_file
from deltaproof.theory.deltas import Deltas, between
from deltaproof.theory.in_memory import saved_deltas
from deltaproof.theory.skeleton import skeleton_of


def read_update(base: str, tuned: str) -> Deltas:
    """The changes from a base to a model, a PEFT adapter, or what `train` or `compare` saved.

    Args:
        base: a model's folder, alias or hub id.
        tuned: the same, or an adapter's folder, a tuned model's folder, or a run folder, whose `best` is taken.
    Raises:
        BackboneError: one of the two cannot be read, or they do not belong together.
        RecordError: the folder holds a tuned model of another base.
        ConfigError: the folder holds a method that changes no weights.
    """
    folder = Path(tuned).expanduser()
    if (folder / "best" / FACTS).is_file():
        folder = folder / "best"
    is_saved, is_whole = (folder / FACTS).is_file(), (folder / "config.json").is_file()
    if is_saved and not is_whole:
        return saved_deltas(base, folder)
    before = open_model(base)
    skeleton = skeleton_of(before.folder)
    if (folder / CONFIG).is_file() and not is_whole:
        deltas = adapter_deltas(before, folder, skeleton)
    else:
        deltas = between(before, open_model(str(folder) if folder.is_dir() else tuned), skeleton)
    if skeleton is None:
        kind = read_json_file(before.folder / "config.json").get("model_type", "unknown")
        deltas.notes.append(f"of a model of type `{kind}` no roles are known: tensors go by their names")
    if is_saved:
        deltas.notes.extend(_other_base(base, folder))
    return deltas


def _other_base(base: str, folder: Path) -> list[str]:
    """A word where the saved model was tuned from other weights."""
    spec = read_json_file(folder / FACTS).get("spec", {})
    recorded = spec.get("model", {}).get("fingerprint")
    if recorded is None or find_source(base).fingerprint() == recorded:
        return []
    return [f"`{folder}` was tuned from other weights than `{base}`: the update holds that difference too"]
