"""Deterministic stratified splits in which rows that belong together stay together."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

THREE_WAYS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def row_keys(texts: Sequence[tuple[str, ...]], seed: int, purpose: str) -> list[bytes]:
    """A number for each row that orders rows as if at random: SHA-256 over seed, purpose and the row's texts.

    The order does not depend on where a row stands, so that rows added to a file hardly disturb the others.
    """
    start = hashlib.sha256(f"{seed}/{purpose}/".encode())
    keys = []
    for row in texts:
        digest = start.copy()
        digest.update("\0".join(row).encode())
        keys.append(digest.digest()[:16])
    return keys


def apportion(n: int, weights: np.ndarray, at_least: np.ndarray) -> np.ndarray:
    """Divide `n` into whole numbers in proportion to `weights` by largest remainder, granting `at_least` first.

    >>> apportion(10, np.array([0.7, 0.1, 0.2]), np.ones(3, dtype=int)).tolist()
    [7, 1, 2]
    """
    total = weights.sum()
    shares = weights / total * n if total > 0 else np.full(len(weights), n / len(weights))
    counts = np.floor(shares + 1e-9).astype(int)
    for index in np.argsort(counts - shares, kind="stable")[: n - counts.sum()]:
        counts[index] += 1
    for index in np.flatnonzero(counts < at_least):
        spare = counts - at_least
        if spare.max() > 0:
            counts[spare.argmax()] -= 1
            counts[index] += 1
    return counts


def split_rows(
    present: np.ndarray, units: np.ndarray, keys: Sequence[bytes], fractions: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Row indices of each split, ascending.

    The rarest stratum is divided first, as in iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011, ECML
    PKDD, algorithm 1), but over units instead of rows: its largest units first, each to the split where it lessens
    most the chi-squared distance to the wanted share of every stratum. Where every row is its own unit and has one
    stratum, the counts are exact to rounding and reach every split.

    Args:
        present: (n, strata) truth, which strata a row belongs to; a row of none is a stratum of its own kind.
        units: (n,) rows with one number are never parted.
        keys: one per row; decide among equals.
        fractions: split to its share; they add up to 1.
    """
    present = np.column_stack([present, ~present.any(axis=1)])
    _, units = np.unique(units, return_inverse=True)
    n_units = int(units.max()) + 1
    counts = np.zeros((n_units, present.shape[1]), dtype=np.int32)
    np.add.at(counts, units, present)
    shares = np.array(list(fractions.values()))
    order = _order(units, keys, counts.sum(axis=1))
    home = np.full(n_units, -1)
    have = np.zeros((len(shares), present.shape[1]))
    for stratum in np.argsort(counts.sum(axis=0), kind="stable"):
        waiting = [unit for unit in order[counts[order, stratum] > 0] if home[unit] < 0]
        _place(waiting, int(stratum), counts, shares, home, have)
    return {name: np.flatnonzero(home[units] == index) for index, name in enumerate(fractions)}


def _order(units: np.ndarray, keys: Sequence[bytes], sizes: np.ndarray) -> np.ndarray:
    """Units from large to small, equals by the smallest key among their rows."""
    smallest: list[bytes | None] = [None] * len(sizes)
    for unit, key in zip(units.tolist(), keys, strict=True):
        known = smallest[unit]
        if known is None or key < known:
            smallest[unit] = key
    return np.array(sorted(range(len(sizes)), key=lambda unit: (-sizes[unit], smallest[unit] or b"")), dtype=int)


def _place(
    waiting: list[int], stratum: int, counts: np.ndarray, shares: np.ndarray, home: np.ndarray, have: np.ndarray
) -> None:
    """Give the units of one stratum to splits; `home` (units,) and `have` (splits, strata) are brought up to date."""
    wanted = shares * counts[:, stratum].sum()
    totals = np.maximum(counts.sum(axis=0), 1)
    plain = [unit for unit in waiting if counts[unit].sum() == 1]
    for left, unit in zip(range(len(waiting), 0, -1), waiting, strict=True):
        if counts[unit].sum() == 1:
            break  # units come from large to small: what is left are single rows, divided exactly below
        expected = shares[:, None] * totals
        gain = ((2 * (expected - have) - counts[unit]) * counts[unit] / (totals * expected)).sum(axis=1)
        empty = have[:, stratum] == 0
        if left <= empty.sum():
            gain = np.where(empty, gain, -np.inf)
        best = int(gain.argmax())
        home[unit] = best
        have[best] += counts[unit]
    lack = np.maximum(wanted - have[:, stratum], 0)
    quota = apportion(len(plain), lack, (have[:, stratum] == 0).astype(int))
    for split, part in enumerate(np.split(np.array(plain, dtype=int), np.cumsum(quota)[:-1])):
        home[part] = split
        have[split, stratum] += len(part)


def quantile_bins(values: np.ndarray, n_bins: int = 10) -> np.ndarray:
    """(n, bins) truth: the quantile bin of each value, at least ten rows a bin where rows allow it."""
    n_bins = max(1, min(n_bins, len(values) // 10))
    edges = np.unique(np.quantile(values, np.arange(1, n_bins) / n_bins))
    return np.asarray(np.searchsorted(edges, values, side="right")[:, None] == np.arange(len(edges) + 1))


def nested_sample(present: np.ndarray, keys: Sequence[bytes], n_rows: int) -> np.ndarray:
    """Indices of a stratified sample, ascending; a smaller sample is a subset of a larger one.

    Each stratum's rows are ordered by key and spread evenly over (0, 1); the sample is what comes first, and the
    first row of every stratum comes before all else. A row counts for its rarest stratum.
    """
    present = np.column_stack([present, ~present.any(axis=1)])
    sizes = present.sum(axis=0)
    stratum = np.where(present, sizes, len(present) + 1).argmin(axis=1)
    position = np.empty(len(present))
    by_key = np.array(sorted(range(len(present)), key=lambda row: (keys[row], row)), dtype=int)
    for index in np.unique(stratum):
        rows = by_key[stratum[by_key] == index]
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
        position[rows[0]] = 0.0
    rank = np.empty(len(present), dtype=int)
    rank[by_key] = np.arange(len(present))
    return np.sort(np.lexsort((rank, position))[:n_rows])
