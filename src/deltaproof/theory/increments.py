"""How the entries of an update are spread: one histogram that any number of matrices add to, one after the other."""

import math
from typing import Any

import torch
from torch import Tensor

N_BINS = 64
NEGLIGIBLE = 1e-6


class Increments:
    """Counts, moments and a histogram of entries, kept in constant memory.

    The bins lie evenly around zero, and their width is a power of two: when a larger entry comes, pairs of bins are
    put together, so that counts stay exact and two histograms can always be added.
    """

    def __init__(self) -> None:
        self.n = 0
        self.n_negligible = 0
        self.largest = 0.0
        self.exponent = -40
        """The bins reach from -2^exponent to 2^exponent."""
        self.counts = torch.zeros(N_BINS, dtype=torch.float64)
        self._powers = torch.zeros(4, dtype=torch.float64)
        """Sums of x, x^2, x^3, x^4."""

    @torch.no_grad()
    def add(self, entries: Tensor) -> "Increments":
        """Take in the entries of a tensor of any shape."""
        x = entries.detach().double().flatten()
        if not x.numel():
            return self
        largest = float(x.abs().max())
        self.n += x.numel()
        self.n_negligible += int((x.abs() < NEGLIGIBLE).sum())
        self.largest = max(self.largest, largest)
        self._powers += torch.stack([x.sum(), *(x.pow(k).sum() for k in (2, 3, 4))]).cpu()
        if largest > 0:
            self._reach(math.frexp(largest)[1])
        edge = 2.0**self.exponent
        bins = ((x / edge + 1) * (N_BINS / 2)).long().clamp(0, N_BINS - 1)
        self.counts += torch.bincount(bins, minlength=N_BINS).cpu()
        return self

    def merge(self, other: "Increments") -> "Increments":
        """Take in all that another one has taken in."""
        counts = other.counts
        self._reach(other.exponent)
        for _ in range(self.exponent - other.exponent):
            counts = _halved(counts)
        self.counts += counts
        self.n += other.n
        self.n_negligible += other.n_negligible
        self.largest = max(self.largest, other.largest)
        self._powers += other._powers
        return self

    def _reach(self, exponent: int) -> None:
        for _ in range(exponent - self.exponent):
            self.counts = _halved(self.counts)
        self.exponent = max(self.exponent, exponent)

    @property
    def mean(self) -> float:
        return float(self._powers[0]) / self.n if self.n else 0.0

    @property
    def std(self) -> float:
        return math.sqrt(max(float(self._powers[1]) / self.n - self.mean**2, 0.0)) if self.n else 0.0

    @property
    def excess_kurtosis(self) -> float:
        """Fourth central moment / variance^2 - 3: 0 for a Gaussian, large where few entries carry the update."""
        variance = self.std**2
        if variance == 0:
            return 0.0
        first, second, third, fourth = (float(power) / self.n for power in self._powers)
        central = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        return central / variance**2 - 3

    @property
    def negligible_fraction(self) -> float:
        """The share of entries below 1e-6 in size."""
        return self.n_negligible / self.n if self.n else 0.0

    def histogram(self) -> tuple[list[float], list[int]]:
        """Edges (one more than counts) and counts, empty outer bins left out; draw the counts on a log scale."""
        filled = self.counts.nonzero().flatten()
        if not len(filled):
            return [], []
        first, last = int(filled[0]), int(filled[-1])
        width = 2.0 ** (self.exponent + 1) / N_BINS
        edges = [(at - N_BINS / 2) * width for at in range(first, last + 2)]
        return edges, [int(count) for count in self.counts[first : last + 1]]

    def to_dict(self) -> dict[str, Any]:
        edges, counts = self.histogram()
        return {
            "n": self.n,
            "std": self.std,
            "excess_kurtosis": self.excess_kurtosis,
            "largest": self.largest,
            "negligible_fraction": self.negligible_fraction,
            "histogram": {"edges": edges, "counts": counts},
        }


def _halved(counts: Tensor) -> Tensor:
    """The same entries in bins twice as wide: pairs put together in the middle, nothing outside."""
    pairs = counts.reshape(-1, 2).sum(1)
    empty = counts.new_zeros(len(pairs) // 2)
    return torch.cat([empty, pairs, empty])
