"""Which entries of an update are kept: exactly the round(density x d) largest, found without sorting or holding all "
"of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

Vectors = Callable[[], Iterable[np.ndarray]]
"""Gives the parts of one long fp32 vector, in their order, as often as it is called."""


@dataclass
class Moments:
    """Number, mean and spread of what was added, in fp64 (Chan, Golub and LeVeque, 1979)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared distances from the mean."""

    def add(self, vector: np.ndarray) -> None:
        if not len(vector):
            return
        mean = float(vector.mean(dtype=np.float64))
        squares = float(np.square(vector - np.float64(mean)).sum())
        total, apart = self.n + len(vector), mean - self.mean
        self.squares += squares + apart**2 * self.n * len(vector) / total
        self.mean += apart * len(vector) / total
        self.n = total

    @property
    def deviation(self) -> float:
        """Unbiased standard deviation; 0 of fewer than two values."""
        return (self.squares / (self.n - 1)) ** 0.5 if self.n > 1 else 0.0

    @property
    def energy(self) -> float:
        """Sum of squares."""
        return self.squares + self.n * self.mean**2


@dataclass
class Cut:
    """Where a long vector is cut: what is larger than the threshold is kept, and the first `n_ties` that equal it.

    Parts must be asked for in their order, since ties go to the lowest index of the whole.
    """

    threshold: int
    """Bits of the smallest magnitude that is kept."""
    n_ties: int

    def signs(self, vector: np.ndarray) -> np.ndarray:
        """(d,) int8: the sign where an entry is kept, 0 elsewhere."""
        sizes = _sizes(vector)
        keep = sizes > self.threshold
        if self.n_ties:
            ties = np.flatnonzero(sizes == self.threshold)[: self.n_ties]
            keep[ties] = True
            self.n_ties -= len(ties)
        signs: np.ndarray = np.sign(vector).astype(np.int8)
        signs *= keep
        return signs


def find_cut(vectors: Vectors, n_kept: int) -> Cut:
    """The cut that keeps the n largest magnitudes; fewer where fewer are not zero, since zero has no sign.

    The bits of a float order like its magnitude, so two passes of counting, by the upper and by the lower sixteen bits,
    find the threshold exactly.
    """
    upper = np.zeros(1 << 15, np.int64)
    n_zeros = 0
    for vector in vectors():
        sizes = _sizes(vector)
        upper += np.bincount(sizes >> 16, minlength=1 << 15)
        n_zeros += int(np.count_nonzero(sizes == 0))
    n_kept = min(n_kept, int(upper.sum()) - n_zeros)
    if n_kept == 0:
        return Cut(int(np.iinfo(np.uint32).max), 0)
    bucket, above = _bucket(upper, n_kept)
    lower = np.zeros(1 << 16, np.int64)
    for vector in vectors():
        sizes = _sizes(vector)
        lower += np.bincount(sizes[sizes >> 16 == bucket] & 0xFFFF, minlength=1 << 16)
    last, more = _bucket(lower, n_kept - above)
    return Cut(bucket << 16 | last, n_kept - above - more)


def _bucket(counts: np.ndarray, n: int) -> tuple[int, int]:
    """The bucket that holds the n-th largest, and how many lie above that bucket."""
    from_above = np.cumsum(counts[::-1])
    at = int(np.searchsorted(from_above, n))
    return len(counts) - 1 - at, int(from_above[at - 1]) if at else 0


def _sizes(vector: np.ndarray) -> np.ndarray:
    """Magnitudes of fp32 as integers of the same order."""
    return vector.view(np.uint32) & np.uint32(0x7FFFFFFF)
