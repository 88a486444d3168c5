"""The best low-rank form of a change, and what it leaves out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from deltaproof.theory.subspaces import leading_directions


@dataclass(frozen=True)
class Cut:
    """One matrix, cut to a rank."""

    name: str
    rank: int
    norm: float
    """|D|_F of the whole change."""
    lost_norm: float
    """|D - B A|_F."""

    @property
    def lost_fraction(self) -> float:
        """Relative error in the Frobenius norm, 0 … 1."""
        return self.lost_norm / self.norm if self.norm > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "lost_fraction": self.lost_fraction}


@torch.no_grad()
def best_factors(name: str, change: Tensor, rank: int) -> tuple[Tensor, Tensor, Cut]:
    """A (k, n) and B (m, k) whose product is the nearest matrix of rank `rank`; k is less where the change has less.

    Args:
        change: D, (m, n).
    Source: Eckart and Young, 1936: the first singular vectors; |D - B A|_F^2 is the sum of the squares left out.
    """
    u, s, v = leading_directions(change, rank)
    root = s.sqrt()
    total = float(change.double().square().sum())
    lost = max(total - float(s.square().sum()), 0.0) ** 0.5
    return (root[:, None] * v.mT).float(), (u * root).float(), Cut(name, len(s), total**0.5, lost)


@torch.no_grad()
def squeezed_factors(name: str, a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, Cut]:
    """The same of a product B A, without forming it: the SVD of the small core between two thin QRs.

    Args:
        a: (r, n).
        b: (m, r), the adapter's scale in it.
    """
    q_out, r_out = torch.linalg.qr(b.double())
    q_in, r_in = torch.linalg.qr(a.double().mT)
    u, s, vh = torch.linalg.svd(r_out @ r_in.mT, full_matrices=False)
    k = max(1, min(rank, int((s > s[0] * torch.finfo(torch.float64).eps * max(a.shape[1], len(b))).sum())))
    root = s[:k].sqrt()
    lost, total = float(s[k:].norm()), float(s.norm())
    return (root[:, None] * vh[:k] @ q_in.mT).float(), (q_out @ u[:, :k] * root).float(), Cut(name, k, total, lost)


def lost_in_all(cuts: Sequence[Cut]) -> float:
    """Relative error over all matrices together: the root of the energy left out over all energy."""
    total = sum(cut.norm**2 for cut in cuts)
    return float((sum(cut.lost_norm**2 for cut in cuts) / total) ** 0.5) if total > 0 else 0.0


def cuts_text(found: dict[str, Any]) -> str:
    """What a cut lost: in all, and the worst matrices."""
    worst = sorted(found["matrices"], key=lambda cut: -float(cut["lost_fraction"]))
    lines = [f"{100 * cut['lost_fraction']:7.2f} %  {cut['name']}" for cut in worst[:_SHOWN]]
    head = (
        f"{len(worst)} matrices cut to rank {found['rank']}: the relative error, |D - B A| / |D|, is "
        f"{100 * found['lost_fraction']:.2f} % in all"
    )
    more = [f"           … and {len(worst) - _SHOWN} that lost less"] if len(worst) > _SHOWN else []
    return "\n".join([head, *lines, *more])


_SHOWN = 8
