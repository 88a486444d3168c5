"""Do two updates go the same way? Overlap of their leading directions, captured energy, cosine."""

import torch
from torch import Tensor

from deltaproof.theory.spectra import gram


def subspace_overlap(u: Tensor, v: Tensor) -> Tensor:
    """How far two column spaces share directions: phi = |U^T V|_F^2 / min(i, j).

    Two random spaces of d dimensions have max(i, j) / d on average.

    Args:
        u: orthonormal columns, (..., d, i).
        v: orthonormal columns, (..., d, j).
    Returns:
        (...), no unit: 0 for orthogonal spaces, 1 when one holds the other.
    Source: Hu et al., 2021, arXiv:2106.09685, sec. 7.2, eq. 4.

    >>> e = torch.eye(3)
    >>> subspace_overlap(e[:, :1], e[:, :2]).item()
    1.0
    """
    return (u.mT @ v).square().sum((-2, -1)) / min(u.shape[-1], v.shape[-1])


@torch.no_grad()
def overlap_grid(u: Tensor, v: Tensor, ranks: tuple[int, ...]) -> list[list[float]]:
    """phi(i, j) between the first i columns of one and the first j of the other, for i and j in `ranks`: a heat map."""
    return [[float(subspace_overlap(u[:, :i], v[:, :j])) for j in ranks] for i in ranks]


@torch.no_grad()
def leading_directions(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first singular vectors and values, float64: U (m, k), s (k,), V (n, k).

    k is `rank`, or fewer where the matrix has fewer singular values above the floor of the arithmetic (see `spectrum`).
    """
    if matrix.shape[0] > matrix.shape[1]:
        v, s, u = leading_directions(matrix.mT, rank)
        return u, s, v
    values, vectors = torch.linalg.eigh(gram(matrix))
    s = values.clamp(min=0).sqrt().flip(0)
    floor = s[0] * (torch.finfo(torch.float64).eps * max(matrix.shape)) ** 0.5
    k = min(rank, int((s > floor).sum()))
    u = vectors.flip(1)[:, :k]
    # QR instead of a division by s: the columns stay orthonormal where s is small
    v, triangle = torch.linalg.qr(matrix.double().mT @ u)
    return u, s[:k], v * triangle.diagonal().sign()


@torch.no_grad()
def captured_energy(u: Tensor, v: Tensor, change: Tensor) -> float:
    """The share of an update that lives in given directions: |U U^T D V V^T|_F^2 / |D|_F^2, 0 … 1.

    Args:
        u: orthonormal columns, (m, i).
        v: orthonormal columns, (n, j).
        change: D, (m, n).
    """
    wide = change.double()
    total = float(wide.square().sum())
    return float((u.mT @ wide @ v).square().sum()) / total if total > 0 else 0.0


@torch.no_grad()
def cosine(one: Tensor, other: Tensor) -> float:
    """<A, B>_F / (|A|_F |B|_F), -1 … 1; 0 where one of them is zero."""
    a, b = one.double(), other.double()
    norms = float(a.norm() * b.norm())
    return float((a * b).sum()) / norms if norms > 0 else 0.0
