"""Which weights an update changes, by the names that they have in what is shipped."""

from collections.abc import Callable
from pathlib import Path

from deltaproof.errors import DeltaproofError
from deltaproof.methods.tuned import Tuned
from deltaproof.shipping.folders import model_name
from deltaproof.shipping.opening import Opened
from deltaproof.theory.adapters import adapter_deltas
from deltaproof.theory.checkpoints import Checkpoint
from deltaproof.theory.deltas import Deltas, between, common_prefix
from deltaproof.theory.in_memory import deltas_of
from deltaproof.theory.skeleton import Skeleton


def changed_names(base: Checkpoint, folder: Path, attached: Opened, tuned: Checkpoint, output: Checkpoint) -> list[str]:
    """Names in the output of the tensors that tuning changed; none where that cannot be told.

    Reads one tensor at a time.
    """
    deltas = _deltas(base, folder, attached, tuned)
    if deltas is None:
        return sorted({name for stored in tuned if (name := _module_weight(stored, output)) is not None})
    # a short name is the full one without the base model's own prefix
    ends = {_tail: name for name in output for _tail in _tails(name)}
    found = {ends[_plain(name)] for name in deltas if _plain(name) in ends and bool(deltas[name].change.any())}
    return sorted(found)


def shared_names(base: Checkpoint, output: Checkpoint) -> dict[str, str]:
    """A name in the output to that in the base, of tensors that both have: one may lack the base model's prefix."""
    skeleton = Skeleton(common_prefix(base, output))
    before = {skeleton.short(name): name for name in base}
    return {name: before[skeleton.short(name)] for name in output if skeleton.short(name) in before}


def n_changed(base: Checkpoint, folder: Path, attached: Opened, tuned: Checkpoint) -> tuple[int, int]:
    """How many of an adapter's changes are not zero, and how many it has."""
    deltas = _deltas(base, folder, attached, tuned)
    if deltas is None:
        values = [bool(tuned[name].any()) for name in tuned]
        return sum(values), len(values)
    return sum(bool(deltas[name].change.any()) for name in deltas), len(deltas)


def _deltas(base: Checkpoint, folder: Path, attached: Opened, tuned: Checkpoint) -> Deltas | None:
    readers: dict[str, Callable[[], Deltas]] = {
        "model": lambda: between(base, tuned),
        "adapter": lambda: adapter_deltas(base, folder),
        "tuned": lambda: _of_own(attached, base),
    }
    try:
        return readers[attached.kind]()
    except DeltaproofError:
        return None


def _of_own(attached: Opened, base: Checkpoint) -> Deltas:
    assert isinstance(attached.model, Tuned), "what `load_tuned` gave"
    return deltas_of(attached.model, base)


def _plain(name: str) -> str:
    return name.partition("[")[0]


def _tails(name: str) -> list[str]:
    parts = name.split(".")
    return [name, ".".join(parts[1:])]


def _module_weight(stored: str, output: Checkpoint) -> str | None:
    """The weight of the module on which a tensor of an adapter lies: the longest start of its name that has one."""
    parts = model_name(stored).split(".")
    starts = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((f"{start}.weight" for start in starts if f"{start}.weight" in output), None)
