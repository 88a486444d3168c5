"""Does a method's update go the way full fine-tuning's goes? Overlap of leading directions, captured energy, cosine."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltaproof.studies.kept_models import KeptModel
from deltaproof.studies.same_head import below_the_head
from deltaproof.theory.deltas import Deltas
from deltaproof.theory.in_memory import deltas_of
from deltaproof.theory.subspaces import captured_energy, cosine, leading_directions, subspace_overlap

RANKS = (1, 2, 4, 8, 16, 32)
"""Of both axes of the heat map."""


@dataclass
class Directions:
    """Full fine-tuning's update with its leading directions, each matrix taken apart once."""

    deltas: Deltas
    _known: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, kept: KeptModel) -> "Directions":
        tuned, _ = kept.load()
        return cls(deltas_of(tuned, below_the_head(kept.load_base())))

    def leading(self, name: str, change: Tensor) -> tuple[Tensor, Tensor]:
        if name not in self._known:
            u, _, v = leading_directions(change, max(RANKS))
            self._known[name] = u, v
        return self._known[name]


@dataclass(frozen=True)
class Pair:
    """One matrix in both updates. Cells of ranks that one of them lacks are nan."""

    cosine: float
    captured: np.ndarray
    """(ranks,) the share of full fine-tuning's energy in the method's first directions."""
    overlap_out: np.ndarray
    """(ranks of the method, ranks of full), left singular vectors."""
    overlap_in: np.ndarray
    by_chance: np.ndarray
    """Of random directions in the output space: max(i, j) / d_out."""


@torch.no_grad()
def against(deltas: Deltas, full: Directions, device: torch.device) -> list[Pair]:
    """Every matrix of the layers that changed in both."""
    place = torch.device("cpu") if device.type == "mps" else device
    found = []
    for name in deltas:
        if name not in full.deltas:
            continue
        delta = deltas[name]
        if not delta.is_matrix or delta.layer is None or not bool(delta.change.any()):
            continue
        other = full.deltas[name].change.to(place)
        if other.shape == delta.change.shape and bool(other.any()):
            found.append(_pair(delta.change.to(place), other, *full.leading(name, other)))
    return found


def _pair(change: Tensor, other: Tensor, other_u: Tensor, other_v: Tensor) -> Pair:
    u, _, v = leading_directions(change, max(RANKS))
    captured = [captured_energy(u[:, :r], v[:, :r], other) if r <= u.shape[1] else np.nan for r in RANKS]
    chance = np.array([[max(i, j) / len(u) for j in RANKS] for i in RANKS])
    return Pair(cosine(change, other), np.array(captured), _grid(u, other_u), _grid(v, other_v), chance)


def _grid(u: Tensor, other: Tensor) -> np.ndarray:
    def overlap(i: int, j: int) -> float:
        has_both = i <= u.shape[1] and j <= other.shape[1]
        return float(subspace_overlap(u[:, :i], other[:, :j])) if has_both else np.nan

    return np.array([[overlap(i, j) for j in RANKS] for i in RANKS])


def averaged_grid(seeds: Sequence[Sequence[Pair]]) -> dict[str, Any] | None:
    """Means over matrices and seeds, None in cells that no matrix has; medians of cosine and captured energy."""
    pairs = [pair for seed in seeds for pair in seed]
    if not pairs:
        return None
    return {
        "ranks": list(RANKS),
        "n_matrices": len(seeds[0]),
        "overlap_out": _mean([pair.overlap_out for pair in pairs]),
        "overlap_in": _mean([pair.overlap_in for pair in pairs]),
        "by_chance": np.mean([pair.by_chance for pair in pairs], axis=0).tolist(),
        "captured": _mean([pair.captured for pair in pairs]),
        "median_cosine": float(np.median([pair.cosine for pair in pairs])),
    }


def _mean(arrays: Sequence[np.ndarray]) -> Any:
    stacked = np.stack(arrays)
    known = ~np.isnan(stacked)
    counts = np.asarray(known.sum(axis=0))
    means = np.where(known, stacked, 0.0).sum(axis=0) / np.maximum(counts, 1)
    filled: Any = np.where(counts > 0, means, None)
    return filled.tolist()
