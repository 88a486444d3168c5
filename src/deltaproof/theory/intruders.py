"""Intruder dimensions: leading singular vectors of the tuned weight that resemble none of the base weight.

Source: Shuttleworth et al., 2024, arXiv:2410.21228, sec. 3, and the authors' code: left singular vectors, the ten
leading ones of the tuned weight, threshold 0.5.

Where the base's singular values lie close together, its vectors are not determined: any small update mixes them, and
the definition above calls every mixture an intruder. So each intruder is looked at again: how much of it lies outside
of the base vectors that noise as large as the update would mix it with?
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from deltaproof.theory.nulls import noise_edge
from deltaproof.theory.spectra import gram

TOP_K, EPSILON = 10, 0.5
"""The authors' choices."""
OUTSIDE = 0.5
"""More than half of an intruder must lie outside of what noise would mix. Of noise itself, a quarter at most does to
first order: s^2 sum_i 1 / (gap to vector i)^2 <= n s^2 / radius^2."""
SWEPT_TOP_K = (1, 5, 10, 50)
SWEPT_EPSILON = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Intruders:
    """What became of the leading left singular vectors of one weight, the largest singular value first."""

    cosines: tuple[float, ...]
    """max_i |cos(y_j, x_i)| over all left singular vectors x_i of the base, for each vector y_j of the tuned weight."""
    outside: tuple[float, ...]
    """The part of |y_j|^2 outside of the base vectors whose singular values lie within `radius` of y_j's own."""
    radius: float
    """Spectral norm of Gaussian noise with the Frobenius norm of the update."""

    def n_official(self, top_k: int = TOP_K, epsilon: float = EPSILON) -> int:
        """Intruders by the authors' definition: cosines below `epsilon` among the first `top_k`."""
        return sum(cosine < epsilon for cosine in self.cosines[:top_k])

    def n_robust(self, top_k: int = TOP_K, epsilon: float = EPSILON) -> int:
        """Those among them that also lie, for the most part, outside of all that noise would mix."""
        leading = list(zip(self.cosines, self.outside, strict=True))[:top_k]
        return sum(cosine < epsilon and outside > OUTSIDE for cosine, outside in leading)

    def n_undetermined(self, top_k: int = TOP_K, epsilon: float = EPSILON) -> int:
        """Intruders by the definition that noise of the same size would make as well: gaps too small to tell."""
        return self.n_official(top_k, epsilon) - self.n_robust(top_k, epsilon)


@torch.no_grad()
def intruders(base: Tensor, change: Tensor, top_k: int = max(SWEPT_TOP_K)) -> Intruders:
    """Compare the leading left singular vectors of W0 + D with all of W0's.

    Args:
        base: W0, (d_out, d_in).
        change: D, (d_out, d_in).
        top_k: vectors of the tuned weight that are looked at.
    """
    before = base.double()
    x, sigma = _left_singular(before)
    y, tuned_sigma = _left_singular(before + change.double())
    similarity = (y[:, :top_k].mT @ x).square()
    radius = noise_edge((base.shape[0], base.shape[1]), float(change.double().norm()))
    near = (tuned_sigma[:top_k, None] - sigma[None, :]).abs() <= radius
    outside = 1 - (similarity * near).sum(1)
    cosines = similarity.max(1).values.sqrt()
    return Intruders(tuple(cosines.tolist()), tuple(outside.clamp(0, 1).tolist()), radius)


def _left_singular(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """All left singular vectors with a singular value that is not zero, (m, k), and these values, descending."""
    values, vectors = torch.linalg.eigh(gram(matrix))
    sigma, vectors = values.clamp(min=0).sqrt().flip(0), vectors.flip(1)
    kept = int((sigma > sigma[0] * (torch.finfo(torch.float64).eps * max(matrix.shape)) ** 0.5).sum())
    if matrix.shape[0] <= matrix.shape[1]:
        return vectors[:, :kept], sigma[:kept]
    return matrix @ vectors[:, :kept] / sigma[:kept], sigma[:kept]
