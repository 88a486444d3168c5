"""All matrices of an update taken together, and what the numbers say in words."""

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from deltaproof.theory.increments import Increments
from deltaproof.theory.intruders import SWEPT_EPSILON, SWEPT_TOP_K, TOP_K
from deltaproof.theory.rows import LIKE_NOISE, RANKS, MatrixRow
from deltaproof.theory.spectra import low_rank_dimension

ROUNDING_WARNED = 0.1
"""Rounding of a tenth of the update's norm, 1 % of its energy, is said aloud: r90 begins to count it."""
ROUNDING_DROWNS = 0.3
"""Rounding of 10 % of the energy or more: r90 then counts little else."""


def summarise(rows: Sequence[MatrixRow]) -> dict[str, Any]:
    """Sums and medians over all matrices; energies are pooled, so that a large change counts for more."""
    if not rows:
        return {}
    increments = Increments()
    for row in rows:
        increments.merge(row.increments)
    n_entries = sum(math.prod(row.spectrum.shape) for row in rows)
    return {
        "n_matrices": len(rows),
        "base_norm_f": _norm(rows, lambda row: row.base_norm_f),
        "norm_f": _norm(rows, lambda row: row.spectrum.norm_f),
        "largest_ratio_2": max(row.ratio_2 for row in rows),
        "median_r90": median(row.spectrum.r90 for row in rows),
        "median_r90_over_noise": median(row.spectrum.r90 / row.r90_noise for row in rows),
        "n_like_noise": sum(row.is_like_noise for row in rows),
        "median_stable_rank": median(row.spectrum.stable_rank for row in rows),
        "median_entropy_rank": median(row.spectrum.entropy_rank for row in rows),
        "energy": {str(rank): pooled_energy(rows, rank) for rank in RANKS},
        "low_rank_dimension_fraction": {
            str(rank): sum(low_rank_dimension(row.spectrum.shape, rank) for row in rows) / n_entries for rank in RANKS
        },
        "rounding_fraction": _norm(rows, lambda row: row.rounding.norm_f)
        / _norm(rows, lambda row: row.spectrum.norm_f),
        "bf16_rounding_fraction": _norm(rows, lambda row: row.bf16_rounding.norm_f)
        / _norm(rows, lambda row: row.spectrum.norm_f),
        "increments": increments.to_dict(),
        "intruders": _intruders(rows),
        "against": _against(rows),
        "by_role": {role: _of_role(rows, role) for role in dict.fromkeys(row.role or "other" for row in rows)},
    }


def pooled_energy(rows: Sequence[MatrixRow], rank: int) -> float:
    """The share of the whole update's squared norm that its best rank-r parts hold, one part per matrix."""
    total = sum(row.spectrum.norm_f**2 for row in rows)
    return sum(row.spectrum.energy(rank) * row.spectrum.norm_f**2 for row in rows) / total


def findings(rows: Sequence[MatrixRow], n_vectors: int) -> list[str]:
    """What a reader should take home, in sentences."""
    if not rows:
        changed = f"{n_vectors} bias and norm vectors did" if n_vectors else "nor did anything else"
        return [f"no weight matrix changed, {changed}"]
    return [*_energy(rows), *_noise(rows), *_rounding(rows), *_intruder_words(rows), *_agreement_words(rows)]


def _energy(rows: Sequence[MatrixRow]) -> list[str]:
    rank = median(row.spectrum.r90 for row in rows)
    words = [
        f"rank 8 in every matrix would hold {pooled_energy(rows, 8):.0%} of the update's energy; 90 % takes rank "
        f"{rank:.0f} in the median matrix"
    ]
    seen = max(row.n_above_rounding for row in rows)
    if 4 * seen <= median(min(row.spectrum.shape) for row in rows):
        words.append(f"the update is of low rank: no matrix has more than {seen} singular values above the rounding")
    return words


def _noise(rows: Sequence[MatrixRow]) -> list[str]:
    alike = [row for row in rows if row.is_like_noise]
    if not alike:
        return []
    above = sum(row.n_above_noise > 1 for row in alike)
    but = f"; all the same, {above} of them have 2 or more singular values above the edge of noise" if above else ""
    return [
        f"in {len(alike)} of {len(rows)} matrices the update's rank cannot be told from noise: r90 is {LIKE_NOISE:.0%} "
        f"or more of that of a Gaussian matrix of the same shape{but}"
    ]


def _rounding(rows: Sequence[MatrixRow]) -> list[str]:
    whole = _norm(rows, lambda row: row.spectrum.norm_f)
    stored = sorted({row.stored_as for row in rows if row.stored_as})
    share = _norm(rows, lambda row: row.rounding.norm_f) / whole
    if share >= ROUNDING_WARNED:
        drowned = " and drowns its ranks" if share >= ROUNDING_DROWNS else ""
        return [
            f"stored in {' and '.join(stored)}, rounding is {_percent(share)} of the update{drowned}: measure on a "
            f"copy kept in float32"
        ]
    share = _norm(rows, lambda row: row.bf16_rounding.norm_f) / whole
    if share >= ROUNDING_WARNED and "bfloat16" not in stored:
        return [f"the update is small: folded into bfloat16 weights, rounding would be {_percent(share)} of it"]
    return []


def _intruder_words(rows: Sequence[MatrixRow]) -> list[str]:
    found = _intruders(rows)
    if found is None:
        return []
    official, undetermined = found["n_official"], found["n_undetermined"]
    words = (
        f"{official} of {found['n_examined']} leading singular vectors are intruders by the definition (no base vector "
        f"within a cosine of 0.5)"
    )
    if undetermined:
        words += f", but noise of the same size would turn {undetermined} of these as far: they are undetermined"
    return [words]


def _agreement_words(rows: Sequence[MatrixRow]) -> list[str]:
    found = _against(rows)
    if found is None:
        return []
    rank = "8" if "8" in found["captured"] else max(found["captured"], key=int)
    return [
        f"against the other update: median cosine {found['median_cosine']:.2f}; {found['captured'][rank]:.0%} of its "
        f"energy lies in this one's first {rank} directions"
    ]


def _norm(rows: Sequence[MatrixRow], of: Callable[[MatrixRow], float]) -> float:
    """Frobenius norm of all matrices together."""
    return math.sqrt(sum(of(row) ** 2 for row in rows))


def _percent(share: float) -> str:
    return f"{share:.0%}" if share < 1 else "100 % or more"


def _intruders(rows: Sequence[MatrixRow]) -> dict[str, Any] | None:
    found = [row.intruders for row in rows if row.intruders is not None]
    if not found:
        return None
    return {
        "n_examined": sum(min(TOP_K, len(each.cosines)) for each in found),
        "n_official": sum(each.n_official() for each in found),
        "n_robust": sum(each.n_robust() for each in found),
        "n_undetermined": sum(each.n_undetermined() for each in found),
        "sweep": [
            {
                "top_k": top_k,
                "epsilon": epsilon,
                "n_official": sum(each.n_official(top_k, epsilon) for each in found),
                "n_robust": sum(each.n_robust(top_k, epsilon) for each in found),
            }
            for top_k in SWEPT_TOP_K
            for epsilon in SWEPT_EPSILON
        ],
    }


def _against(rows: Sequence[MatrixRow]) -> dict[str, Any] | None:
    found = [row.agreement for row in rows if row.agreement is not None]
    if not found:
        return None
    ranks = [rank for rank in RANKS if all(rank in each.captured for each in found)] or [0]
    return {
        "n_matrices": len(found),
        "median_cosine": median(each.cosine for each in found),
        "captured": {str(rank): median(each.captured.get(rank, 0.0) for each in found) for rank in ranks},
    }


def _of_role(rows: Sequence[MatrixRow], role: str) -> dict[str, Any]:
    here = [row for row in rows if (row.role or "other") == role]
    return {
        "n_matrices": len(here),
        "norm_f": _norm(here, lambda row: row.spectrum.norm_f),
        "ratio_f": _norm(here, lambda row: row.spectrum.norm_f) / max(_norm(here, lambda row: row.base_norm_f), 1e-300),
        "median_ratio_2": median(row.ratio_2 for row in here),
        "median_r90": median(row.spectrum.r90 for row in here),
        "median_r90_over_noise": median(row.spectrum.r90 / row.r90_noise for row in here),
        "median_stable_rank": median(row.spectrum.stable_rank for row in here),
        "energy_8": pooled_energy(here, 8),
    }
