"""Singular values of an update, and what they say: how many directions it has, and what a low rank would keep.

>>> stretched = spectrum(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
>>> stretched.norm_2, stretched.rank_for(0.9), stretched.truncation_error(3)
(3.0, 2, 0.0)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

ENERGY_SHARE = 0.9
"""The share of the energy behind r90 (Biderman et al., 2024, arXiv:2405.09673, sec. 4)."""

_BLOCK = 8192
"""Rows that are turned to float64 at a time."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of one matrix, with the numbers drawn from them. All counts are of singular values."""

    values: Tensor
    """Descending, (k,) with k <= min(shape), float64 on the CPU; those left out are zero."""
    shape: tuple[int, int]
    floor: float
    """Singular values below this are arithmetic, not the matrix: they cannot be told from zero."""

    @property
    def norm_f(self) -> float:
        """Frobenius norm."""
        return float(self.values.square().sum().sqrt())

    @property
    def norm_2(self) -> float:
        """Spectral norm: the largest singular value."""
        return float(self.values[0]) if len(self.values) else 0.0

    @property
    def energies(self) -> Tensor:
        """E(r) for r = 1 … k: the share of the squared Frobenius norm that the best rank-r matrix holds, (k,).

        It never falls, and its steps E(r) - E(r-1) = s_r^2 / sum s^2 never grow.
        """
        energy = self.values.square()
        total = energy.sum()
        return (energy.cumsum(0) / total).clamp(max=1) if total > 0 else torch.ones_like(energy)

    def energy(self, rank: int) -> float:
        """E(rank), 0 … 1; a zero matrix is held whole by any rank."""
        if self.norm_f == 0:
            return 1.0
        return float(self.energies[min(rank, len(self.values)) - 1]) if rank > 0 else 0.0

    def truncation_error(self, rank: int) -> float:
        """|D - [D]_r|_F / |D|_F = sqrt(1 - E(r)): the least error of any rank-r matrix (Eckart and Young, 1936)."""
        total = self.norm_f
        return float(self.values[rank:].square().sum().sqrt()) / total if total > 0 else 0.0

    def spectral_error(self, rank: int) -> float:
        """|D - [D]_r|_2 / |D|_2 = s_(r+1) / s_1: the least error in the spectral norm (Mirsky, 1960)."""
        return float(self.values[rank]) / self.norm_2 if rank < len(self.values) and self.norm_2 > 0 else 0.0

    def rank_for(self, share: float) -> int:
        """The least rank that holds this share of the energy; 0 for a zero matrix."""
        if self.norm_f == 0:
            return 0
        return min(int((self.energies < share).sum()) + 1, len(self.values))

    @property
    def r90(self) -> int:
        return self.rank_for(ENERGY_SHARE)

    @property
    def stable_rank(self) -> float:
        """sum s^2 / s_1^2, between 1 and the rank; 0 for a zero matrix."""
        return (self.norm_f / self.norm_2) ** 2 if self.norm_2 > 0 else 0.0

    @property
    def entropy_rank(self) -> float:
        """exp(-sum p log p) with p = s / sum s; 0 for a zero matrix. Source: Roy and Vetterli, 2007, def. 1."""
        if self.norm_2 == 0:
            return 0.0
        shares = self.values / self.values.sum()
        return float(torch.exp(torch.special.entr(shares).sum()))

    def n_above(self, threshold: float) -> int:
        """How many singular values are larger."""
        return int((self.values > threshold).sum())

    @property
    def rank(self) -> int:
        """How many singular values stand above the floor of the arithmetic."""
        return self.n_above(self.floor)


@torch.no_grad()
def spectrum(matrix: Tensor) -> Spectrum:
    """Singular values by way of the Gram matrix of the smaller side, in float64.

    Squaring costs half the digits: a singular value is right to about `floor` = s_1 sqrt(eps max(m, n)), 5e-7 s_1 for
    a side of 1,000, which is the rounding of float32 entries. Ranks by energy, such as r90, do not feel it; the rank
    itself counts what stands above the floor. A full decomposition would be 2 to 10 times as slow.

    Args:
        matrix: (m, n), any floating type, on any device that knows float64.
    """
    m, n = matrix.shape
    values = torch.linalg.eigvalsh(gram(matrix)).clamp(min=0).sqrt().flip(0).cpu()
    largest = float(values[0]) if len(values) else 0.0
    return Spectrum(values, (m, n), largest * (torch.finfo(torch.float64).eps * max(m, n)) ** 0.5)


@torch.no_grad()
def spectrum_of_factors(a: Tensor, b: Tensor) -> Spectrum:
    """Singular values of B A, to full precision, without the product: those of R_B R_A^T from two thin QRs.

    Args:
        a: (r, n).
        b: (m, r).
    """
    (rank, n), m = a.shape, b.shape[0]
    core = torch.linalg.qr(b.double())[1] @ torch.linalg.qr(a.double().mT)[1].mT
    values = torch.linalg.svdvals(core).cpu()
    largest = float(values[0]) if len(values) else 0.0
    return Spectrum(values, (m, n), largest * torch.finfo(torch.float64).eps * max(m, n, rank))


def gram(matrix: Tensor) -> Tensor:
    """D D^T where m <= n, else D^T D, float64: summed over blocks, so that no second copy of D is made."""
    tall = matrix.mT if matrix.shape[0] <= matrix.shape[1] else matrix
    total = torch.zeros(tall.shape[1], tall.shape[1], dtype=torch.float64, device=matrix.device)
    for start in range(0, len(tall), _BLOCK):
        wide = tall[start : start + _BLOCK].double()
        total.addmm_(wide.mT, wide)
    return total


def low_rank_dimension(shape: tuple[int, int], rank: int) -> int:
    """Dimension of the m x n matrices of rank at most r: r (m + n - r). Two factors have r^2 numbers more than that.

    >>> low_rank_dimension((768, 768), 8)
    12224
    """
    m, n = shape
    rank = min(rank, m, n)
    return rank * (m + n - rank)
