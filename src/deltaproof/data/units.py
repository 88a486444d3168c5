"""What must stay together when rows are split: rows of one group, and rows with the same texts."""

from collections.abc import Sequence

import numpy as np


def find_units(texts: Sequence[tuple[str, ...]], groups: Sequence[str] | None) -> tuple[np.ndarray, str]:
    """(n,) a number for each row, equal where rows belong together, and what such a unit is called in the plural.

    Rows with equal texts share a unit, so that no split made here leaks into another; with groups, equal texts tie
    their groups together. Where that would tie more than half of the rows into one unit, groups alone count.
    """
    same_text = _numbered(texts)
    if groups is None:
        return same_text, "distinct texts"
    same_group = _numbered(groups)
    tied = _tie(same_group, same_text)
    if np.bincount(tied).max() > max(len(texts) / 2, np.bincount(same_group).max()):
        return same_group, "groups"
    return tied, "groups"


def _numbered(values: Sequence[object]) -> np.ndarray:
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=int)


def _tie(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Numbers of the connected components of rows that agree in `first` or in `second` (union-find)."""
    parent = list(range(int(first.max()) + 1))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    seen: dict[int, int] = {}
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        parent[root(one)] = root(seen.setdefault(other, one))
    return _numbered([root(one) for one in first.tolist()])
