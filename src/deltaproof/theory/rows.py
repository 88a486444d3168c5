"""All that is measured on one changed matrix."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from deltaproof.theory.deltas import Delta
from deltaproof.theory.increments import Increments
from deltaproof.theory.intruders import Intruders, intruders
from deltaproof.theory.nulls import Rounding, noise_edge, r90_noise, rounding
from deltaproof.theory.spectra import Spectrum, spectrum, spectrum_of_factors
from deltaproof.theory.subspaces import captured_energy, cosine, leading_directions, overlap_grid

RANKS = (1, 2, 4, 8, 16, 32, 64)
"""Ranks at which energy and overlap are told."""
LIKE_NOISE = 0.9
"""From this share of noise's r90 on, an update's r90 says no more than that of noise."""


@dataclass(frozen=True)
class Agreement:
    """How far another update of the same matrix goes the same way."""

    cosine: float
    captured: dict[int, float]
    """By rank: the share of the other update's energy in this one's leading directions of output and input."""
    overlap_out: list[list[float]]
    """phi(i, j) of left singular vectors: i of this update, j of the other, over `ranks`."""
    overlap_in: list[list[float]]
    """phi(i, j) of right singular vectors."""
    ranks: tuple[int, ...]
    by_chance: list[list[float]]
    """phi(i, j) of random directions in the output space: max(i, j) / d_out."""


@dataclass(frozen=True, eq=False)
class MatrixRow:
    """One changed matrix: its norms, ranks, nulls and intruders."""

    name: str
    role: str | None
    layer: int | None
    base_norm_2: float
    base_norm_f: float
    spectrum: Spectrum
    increments: Increments
    stored_as: str | None
    """The type that the tuned weight is stored in; None for a change that is kept beside the base."""
    rounding: Rounding
    """What storing the tuned weight in that type is expected to have rounded away; nothing of a change kept apart."""
    bf16_rounding: Rounding
    """The same if the tuned weight were stored in bfloat16."""
    intruders: Intruders | None
    agreement: Agreement | None

    @property
    def ratio_2(self) -> float:
        """|D|_2 / |W0|_2"""
        return self.spectrum.norm_2 / self.base_norm_2 if self.base_norm_2 > 0 else math.inf

    @property
    def ratio_f(self) -> float:
        """|D|_F / |W0|_F"""
        return self.spectrum.norm_f / self.base_norm_f if self.base_norm_f > 0 else math.inf

    @property
    def r90_noise(self) -> int:
        return r90_noise(*self.spectrum.shape)

    @property
    def is_like_noise(self) -> bool:
        return self.spectrum.r90 >= LIKE_NOISE * self.r90_noise

    @property
    def n_above_noise(self) -> int:
        """Singular values above the edge of Gaussian noise of the same Frobenius norm."""
        return self.spectrum.n_above(noise_edge(self.spectrum.shape, self.spectrum.norm_f))

    @property
    def n_above_rounding(self) -> int:
        """Singular values that stand out of the rounding: the rank as far as the stored type lets it be seen."""
        return self.spectrum.n_above(max(self.rounding.edge, self.spectrum.floor))

    @property
    def rounding_fraction(self) -> float:
        """Rounding against the update, both as Frobenius norms."""
        return self.rounding.norm_f / self.spectrum.norm_f

    @property
    def bf16_rounding_fraction(self) -> float:
        return self.bf16_rounding.norm_f / self.spectrum.norm_f

    def to_dict(self) -> dict[str, Any]:
        found, ranks = self.spectrum, [rank for rank in RANKS if rank <= min(self.spectrum.shape)]
        return {
            "name": self.name,
            "role": self.role,
            "layer": self.layer,
            "shape": list(found.shape),
            "base_norm_2": self.base_norm_2,
            "base_norm_f": self.base_norm_f,
            "norm_2": found.norm_2,
            "norm_f": found.norm_f,
            "ratio_2": self.ratio_2,
            "ratio_f": self.ratio_f,
            "r90": found.r90,
            "r90_noise": self.r90_noise,
            "r90_over_noise": found.r90 / self.r90_noise,
            "stable_rank": found.stable_rank,
            "entropy_rank": found.entropy_rank,
            "n_above_noise": self.n_above_noise,
            "n_above_rounding": self.n_above_rounding,
            "energy": {str(rank): found.energy(rank) for rank in ranks},
            "truncation_error": {str(rank): found.truncation_error(rank) for rank in ranks},
            "stored_as": self.stored_as,
            "rounding_fraction": self.rounding_fraction,
            "bf16_rounding_fraction": self.bf16_rounding_fraction,
            "increments": self.increments.to_dict(),
            "intruders": _intruders_dict(self.intruders),
            "against": _agreement_dict(self.agreement),
            "singular_values": [float(f"{value:.6g}") for value in found.values.tolist()],
        }


def measure(delta: Delta, with_intruders: bool = True, other: Delta | None = None) -> MatrixRow:
    """Take one matrix's measures.

    Args:
        delta: a matrix that changed.
        other: another update of the same matrix, to compare directions with.
    """
    base = spectrum(delta.base)
    found = spectrum(delta.change) if delta.factors is None else spectrum_of_factors(*delta.factors)
    tuned = delta.base + delta.change
    stored_as = delta.stored_as
    has_intruders = with_intruders and delta.role != "embedding" and base.norm_2 > 0
    return MatrixRow(
        delta.name,
        delta.role,
        delta.layer,
        base.norm_2,
        base.norm_f,
        found,
        Increments().add(delta.change),
        None if stored_as is None else str(stored_as).removeprefix("torch."),
        Rounding(0.0, 0.0) if stored_as is None else rounding(tuned, stored_as),
        rounding(tuned, torch.bfloat16),
        intruders(delta.base, delta.change) if has_intruders else None,
        None if other is None else _agreement(delta, other),
    )


def _agreement(delta: Delta, other: Delta) -> Agreement:
    u, _, v = leading_directions(delta.change, max(RANKS))
    other_u, _, other_v = leading_directions(other.change, max(RANKS))
    widest = min(u.shape[1], other_u.shape[1])
    ranks = tuple(rank for rank in RANKS if rank <= widest) or (widest,)
    return Agreement(
        cosine(delta.change, other.change),
        {rank: captured_energy(u[:, :rank], v[:, :rank], other.change) for rank in ranks},
        overlap_grid(u, other_u, ranks),
        overlap_grid(v, other_v, ranks),
        ranks,
        [[max(i, j) / len(u) for j in ranks] for i in ranks],
    )


def _intruders_dict(found: Intruders | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "n_official": found.n_official(),
        "n_robust": found.n_robust(),
        "n_undetermined": found.n_undetermined(),
        "cosines": list(found.cosines),
        "outside": list(found.outside),
        "radius": found.radius,
    }


def _agreement_dict(found: Agreement | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "cosine": found.cosine,
        "captured": {str(rank): share for rank, share in found.captured.items()},
        "ranks": list(found.ranks),
        "overlap_out": found.overlap_out,
        "overlap_in": found.overlap_in,
        "by_chance": found.by_chance,
    }
