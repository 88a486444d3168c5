"""What a spectrum would look like if the update were noise, and how much of an update is rounding.

Without these, r90 of noise reads as "full fine-tuning has high rank".
"""

import math
from typing import NamedTuple

import torch
from scipy import integrate, optimize
from torch import Tensor

from deltaproof.theory.spectra import ENERGY_SHARE


def r90_noise(m: int, n: int, share: float = ENERGY_SHARE) -> int:
    """r90 of an m x n matrix of independent Gaussians: the Marchenko-Pastur law, integrated.

    With the eigenvalues of X X^T / n written as 1 + b + 2 sqrt(b) cos(t), b = m / n <= 1, the energy above an
    angle t is (t - sin t cos t) / pi whatever b is, and the number above it the integral of
    (2 / pi) sin^2 t / (1 + b + 2 sqrt(b) cos t). Source: Marchenko and Pastur, 1967.

    >>> r90_noise(4096, 4096), r90_noise(4096, 11008)
    (2089, 2917)
    """
    smaller, larger = sorted((m, n))
    ratio = smaller / larger
    angle: float = optimize.brentq(lambda t: (t - math.sin(t) * math.cos(t)) / math.pi - share, 0.0, math.pi)
    number, _ = integrate.quad(
        lambda t: 2 / math.pi * math.sin(t) ** 2 / (1 + ratio + 2 * math.sqrt(ratio) * math.cos(t)), 0.0, angle
    )
    return max(1, min(smaller, math.ceil(smaller * float(number))))


def noise_edge(shape: tuple[int, int], norm_f: float) -> float:
    """Where the singular values of Gaussian noise of this Frobenius norm end: s (sqrt(m) + sqrt(n)).

    s = |D|_F / sqrt(mn) is the size of an entry. The largest singular value of noise lies near it, now and then above:
    one value barely above the edge proves nothing.
    """
    m, n = shape
    return norm_f / math.sqrt(m * n) * (math.sqrt(m) + math.sqrt(n))


class Rounding(NamedTuple):
    """What storing a weight in a floating type is expected to round away."""

    norm_f: float
    """Its Frobenius norm."""
    edge: float
    """Where its singular values end: the largest norm of a row and that of a column, added up. For errors of one size
    that is `noise_edge`; large weights have large errors, and then a row of them stands out.
    Source: Bandeira and van Handel, 2016, arXiv:1408.6185."""


@torch.no_grad()
def rounding(weight: Tensor, stored_as: torch.dtype) -> Rounding:
    """The expected rounding: an error spread evenly over one spacing has the variance spacing^2 / 12.

    The spacing at w is eps 2^floor(log2 |w|), never less than that of the subnormal numbers.

    Args:
        weight: (m, n).
    """
    facts = torch.finfo(stored_as)
    _, exponent = torch.frexp(weight.double())
    spacing = facts.eps * torch.exp2(exponent.double() - 1)
    spacing = spacing.clamp(min=facts.tiny * facts.eps).masked_fill(weight == 0, 0.0)
    variance = spacing.square() / 12
    edge = variance.sum(1).max().sqrt() + variance.sum(0).max().sqrt()
    return Rounding(float(variance.sum().sqrt()), float(edge))
