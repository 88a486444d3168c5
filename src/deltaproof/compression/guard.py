"""The guard: no update is lost without a word."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from deltaproof.compression.entries import Entry, Ternary
from deltaproof.compression.source import Part
from deltaproof.errors import CompressionError

_PRODUCTS = ("A", "B")
"""Factors whose product is the update: where one of them is zero, so is the product."""


def check_survival(
    parts: Sequence[Part], changed: Mapping[str, bool], entries: Mapping[str, Entry], allow_erased: bool
) -> list[str]:
    """Look for modules whose update was something and would be nothing.

    A product of factors that lost one of them is refused. Of other tensors, such as the weights of a full update under
    one threshold for all, single ones may come out unchanged, which is told; all of them may not.

    Returns:
        notes for the reader.
    Raises:
        CompressionError: the update would not survive, and `allow_erased` is not set.
    """
    lost: dict[str, list[str]] = defaultdict(list)
    for part in parts:
        entry = entries[part.name]
        if changed[part.name] and isinstance(entry, Ternary) and entry.n_kept == 0:
            lost[part.factor if part.factor in _PRODUCTS else ""].append(part.module or part.name)
    modules = {part.module for part in parts if part.factor in _PRODUCTS and changed[part.name]}
    for factor in _PRODUCTS:
        if lost[factor] and not (factor == "A" and _counted_from_init(parts)):
            n_lost, example = len(lost[factor]), lost[factor][0]
            text = f"nothing of {factor} is left in {n_lost} of {len(modules)} modules, such as `{example}`"
            if not allow_erased:
                raise CompressionError(
                    f"a compressed adapter must still change its model, but {text}: its update would be zero there; "
                    f"use scope `per_tensor` or a higher density"
                )
            return [f"{text}: their update is lost"]
    whole = [name for name, here in changed.items() if here]
    if whole and all(_is_empty(entries[name]) for name in whole) and not allow_erased:
        raise CompressionError(
            f"a compressed update must still change its model, nothing is left of {len(whole)} tensors; use a higher "
            f"density"
        )
    if lost[""]:
        return [f"nothing is left of the change of {len(lost[''])} tensors, such as `{lost[''][0]}`"]
    return []


def _is_empty(entry: Entry) -> bool:
    return isinstance(entry, Ternary) and entry.n_kept == 0


def _counted_from_init(parts: Sequence[Part]) -> bool:
    """Whether A is start plus change: without its change it is the start, and the product is not zero."""
    return any(part.factor == "A" and part.start == "init" for part in parts)
