"""Diagnose an update: every changed matrix measured, summed up, and said in words."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from deltaproof.errors import BackboneError
from deltaproof.theory.deltas import Delta, Deltas
from deltaproof.theory.rows import MatrixRow, measure
from deltaproof.theory.summary import findings, summarise

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class VectorRow:
    """A changed bias or norm: it has a length, and no spectrum."""

    name: str
    role: str | None
    layer: int | None
    norm: float
    base_norm: float


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What an update is made of."""

    rows: tuple[MatrixRow, ...]
    vectors: tuple[VectorRow, ...]
    n_unchanged: int
    """Tensors that both sides hold and that are equal."""
    notes: tuple[str, ...]
    """What could not be compared."""

    @cached_property
    def summary(self) -> dict[str, Any]:
        return summarise(self.rows)

    @cached_property
    def findings(self) -> list[str]:
        """What to take home, in sentences."""
        return findings(self.rows, len(self.vectors))

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "findings": self.findings,
            "notes": list(self.notes),
            "summary": self.summary,
            "n_unchanged": self.n_unchanged,
            "matrices": [row.to_dict() for row in self.rows],
            "vectors": [vars(vector) for vector in self.vectors],
        }


def diagnose(
    deltas: Deltas,
    against: Deltas | None = None,
    *,
    with_intruders: bool = True,
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, n, name: None,
) -> Diagnosis:
    """Measure every changed matrix, one at a time.

    Args:
        deltas: the update, from `read_update` or `deltas_of`.
        against: another update of the same base, to compare directions with.
        with_intruders: whether to look for intruder dimensions, which needs all singular vectors of each weight.
        device: where to reckon; in float64, so on the CPU where the device has none (MPS).
    Raises:
        BackboneError: a weight holds NaN or infinity.
    """
    place = torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)
    rows: list[MatrixRow] = []
    vectors: list[VectorRow] = []
    n_unchanged = 0
    for done, name in enumerate(deltas):
        progress(done, len(deltas), name)
        delta = _on(deltas[name], place)
        if not bool(delta.change.any()):
            n_unchanged += 1
        elif not delta.is_matrix:
            vectors.append(VectorRow(name, delta.role, delta.layer, *_lengths(delta)))
        else:
            other = _on(against[name], place) if against is not None and name in against else None
            has_other = other is not None and other.change.shape == delta.change.shape and bool(other.change.any())
            rows.append(measure(delta, with_intruders, other if has_other else None))
    progress(len(deltas), len(deltas), "")
    notes = [*deltas.notes]
    if against is not None:
        notes += [f"the other update: {note}" for note in against.notes]
        if missing := sum(row.agreement is None for row in rows):
            notes.append(f"{missing} of {len(rows)} changed matrices are unchanged or absent in the other update")
    return Diagnosis(tuple(rows), tuple(vectors), n_unchanged, tuple(notes))


def _on(delta: Delta, device: torch.device) -> Delta:
    """The change on a device, its values checked."""

    def place(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device)

    if not bool(torch.isfinite(delta.change).all()):
        raise BackboneError(
            f"weights must be finite, `{delta.name}` holds NaN or infinity; a training that diverged left them, take "
            f"another checkpoint"
        )
    factors = None if delta.factors is None else (place(delta.factors[0]), place(delta.factors[1]))
    return replace(delta, base=place(delta.base), change=place(delta.change), factors=factors)


def _lengths(delta: Delta) -> tuple[float, float]:
    return float(delta.change.double().norm()), float(delta.base.double().norm())
