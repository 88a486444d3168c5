"""What compression dropped of an update, seen where the model uses it: in the weights, by role and by direction.

An error in LoRA's factors is not the error of their product, so that both are worth knowing. Here the change of every
weight matrix, D, is held against the change D' that is left: |D - D'| / |D|, their cosine, and for each singular
direction of D = sum_i s_i u_i v_i^T how much of it is left, u_i^T D' v_i / s_i. What of D' lies beside these directions
is new: nothing that training put there.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltaproof.methods.tuned import Tuned
from deltaproof.theory.in_memory import deltas_of

MOST_ROWS = 8192
"""Matrices with a longer side, such as embeddings, are not taken apart."""
N_POINTS = 40
"""Directions that are looked at, evenly spaced on a log scale up to `MOST_ROWS`."""
LEAST = 1e-5
"""Singular values below this share of the largest are rounding."""


@dataclass(frozen=True, eq=False)
class Whole:
    """The change of one matrix as training made it."""

    name: str
    role: str
    change: Tensor
    directions: tuple[Tensor, Tensor, Tensor] | None
    """(d_out, r), (r,) and (r, d_in); None of a matrix that was not taken apart."""


@torch.no_grad()
def taken_apart(tuned: Tuned, base: Mapping[str, Tensor]) -> list[Whole]:
    """The changes of all matrices of the model as it stands.

    Args:
        base: the values before training, without the head.
    """
    found = []
    for name, delta in deltas_of(tuned, base).items():
        if not delta.is_matrix:
            continue
        change = delta.change.float().cpu().clone()
        found.append(Whole(name, delta.role or "other", change, _directions(change)))
    return found


def _directions(change: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    if max(change.shape) > MOST_ROWS or not bool(change.any()):
        return None
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    rank = int((s > LEAST * s[0]).sum())
    return u[:, :rank], s[:rank], v[:rank]


@torch.no_grad()
def dropped(whole: Sequence[Whole], tuned: Tuned, base: Mapping[str, Tensor]) -> dict[str, Any]:
    """What is left of these changes in the model as it stands now, with a compressed update in it.

    Returns:
        relative error and cosine over all matrices and by role; the share that is left of the 1st, 2nd, … direction,
        a mean over matrices that weighs each by the energy that it has there, with these directions' share of all
        energy; and `beside`, the energy of what is new, as a share of the whole update's.
    """
    now = deltas_of(tuned, base)
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(5))
    left: dict[int, list[tuple[float, float]]] = defaultdict(list)
    beside, taken = 0.0, 0.0
    for one in whole:
        change = now[one.name].change.float().cpu()
        products = [one.change.square(), change.square(), (one.change - change).square(), one.change * change]
        sums[one.role] += [one.change.numel(), *(float(value.sum(dtype=torch.float64)) for value in products)]
        if one.directions is None:
            continue
        u, s, v = one.directions
        along = ((u.mT @ change) * v).sum(1)
        energy = float(s.square().sum())
        taken += energy
        beside += float(change.square().sum() - along.square().sum())
        for at in _positions(len(s)):
            left[at].append((float(along[at] * s[at]), float(s[at].square())))
    total = sum(sums.values(), np.zeros(5))
    directions = []
    for at, found in sorted(left.items()):
        kept, whole_energy = np.sum(found, axis=0).tolist()
        share = _share(whole_energy, taken)
        directions.append({"direction": at + 1, "left": kept / whole_energy, "energy": share, "n_matrices": len(found)})
    roles = [{"role": role, "n_values": int(found[0]), "energy": _share(found[1], total[1]), **_ratios(found)}
             for role, found in sums.items()]  # fmt: skip
    return {**_ratios(total), "roles": roles, "directions": directions, "beside": _share(beside, taken)}


def _positions(n: int) -> list[int]:
    """The first directions of each matrix and ever fewer of the others; of every matrix the same ones."""
    wanted = np.unique(np.round(np.geomspace(1, MOST_ROWS, N_POINTS)).astype(int)) - 1
    return [int(at) for at in wanted if at < n]


def _ratios(sums: np.ndarray) -> dict[str, float | None]:
    _, before, after, lost, product = sums.tolist()
    length = (before * after) ** 0.5
    return {
        "relative_error": (lost / before) ** 0.5 if before > 0 else None,
        "cosine": product / length if length > 0 else None,
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
