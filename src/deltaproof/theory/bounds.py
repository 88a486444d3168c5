"""How far tuning can move a network's answer: the right-hand side of the capacity theorem, in logarithms.

With h_k = s((W_k + D_k) h_{k-1}), s(0) = 0 and a slope of at most L, every layer multiplies lengths by a_k = L |W_k|_2
in the base and by a_k + alpha_k, alpha_k = L |D_k|_2, in the tuned network, so that

    |f(x) - f0(x)| <= (prod (a_k + alpha_k) - prod a_k) |x|

It bounds how far the answer moves, for full fine-tuning as for any other change of weights: no method's capacity.
Over a transformer's layers the products leave the range of floating-point numbers, hence the logarithms.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.float64]
LOG10 = math.log(10)
ACTIVATIONS = {"relu": 1.0, "tanh": 1.0, "gelu": 1.1289, "silu": 1.0998}
"""Largest slopes, to four decimals."""
STEEPEST = max(ACTIVATIONS.values())
"""For an activation that cannot be looked at."""
_REACH, _STEPS = 20.0, 400_001


def activation_lipschitz(activation: Callable[[Tensor], Tensor]) -> float:
    """The largest slope of a function of one number, found on a grid of 1e-4 from -20 to 20.

    >>> round(activation_lipschitz(torch.nn.functional.gelu), 4), round(activation_lipschitz(torch.nn.SiLU()), 4)
    (1.1289, 1.0998)
    """
    x = torch.linspace(-_REACH, _REACH, _STEPS, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(activation(x).sum(), x)
    return float(slope.abs().max())


def log10_layer_bound(
    norms: ArrayLike, changes: ArrayLike, lipschitz: ArrayLike = 1.0, input_norm: float = 1.0
) -> float:
    """log10 of (prod L_k (|W_k|_2 + |D_k|_2) - prod L_k |W_k|_2) |x|; minus infinity where nothing changed.

    Args:
        norms: spectral norms of the base's layers, (layers,).
        changes: those of their changes, (layers,).
        lipschitz: largest slope behind each layer, one for all or (layers,).

    >>> round(10 ** log10_layer_bound([1.0, 1.0, 1.0], [0.5, 0.5, 0.5]), 6)
    2.375
    """
    scale = np.asarray(lipschitz, dtype=float)
    a, alpha = scale * np.asarray(norms, dtype=float), scale * np.asarray(changes, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        after = float(np.log(a + alpha).sum() + np.log(input_norm))
        grown = np.where(a > 0, np.log1p(alpha / a), np.where(alpha > 0, np.inf, 0.0))
        return _log10(after, float(-np.expm1(-grown.sum())))


def log10_uniform_bound(
    largest_norm: float, changes: ArrayLike, lipschitz: float = 1.0, input_norm: float = 1.0
) -> float:
    """log10 of (prod (L M + L |D_k|_2) - (L M)^N) |x|, M being at least every layer's norm: the theorem as stated."""
    found = np.asarray(changes, dtype=float)
    return log10_layer_bound(np.full(found.shape, largest_norm), found, lipschitz, input_norm)


def log10_first_order(
    largest_norm: float, changes: ArrayLike, lipschitz: float = 1.0, input_norm: float = 1.0
) -> float:
    """log10 of sum_k alpha_k (L M)^(N-1) |x|: what the bound comes to for small changes. No bound itself: the answer
    can move further."""
    alpha = lipschitz * np.asarray(changes, dtype=float)
    with np.errstate(divide="ignore"):
        logs = (len(alpha) - 1) * np.log(lipschitz * largest_norm) + np.log(input_norm)
    return _log10(float(logs), float(alpha.sum()))


def _log10(log: float, factor: float) -> float:
    """log10 of e^log factor."""
    return -math.inf if factor <= 0 or log == -math.inf else (log + math.log(factor)) / LOG10


@dataclass(frozen=True)
class Map:
    """The sizes of one map h -> W h + b and of its change: spectral norms of matrices, lengths of biases."""

    norm: float
    change: float = 0.0
    bias: float = 0.0
    bias_change: float = 0.0


@dataclass(frozen=True)
class Block:
    """Maps one after another and a function of slope at most L behind the first of them: h -> f(h), or h + f(h)."""

    maps: tuple[Map, ...]
    lipschitz: float = 1.0
    is_residual: bool = False


@dataclass(frozen=True)
class Reach:
    """Upper bounds at one place of two networks, as natural logarithms: arrays of one shape, such as (examples,)."""

    size: Array
    """Of |h0|, the length of the base's vector."""
    shift: Array
    """Of |h - h0|, how far tuning moved it."""

    @classmethod
    def at(cls, size: ArrayLike, shift: ArrayLike = 0.0) -> "Reach":
        """From lengths that were measured, such as those of the vectors that go into the first layer."""
        lengths = np.broadcast_arrays(np.asarray(size, dtype=float), np.asarray(shift, dtype=float))
        return cls(_log(lengths[0]), _log(lengths[1]))

    def through(self, step: Map) -> "Reach":
        """Behind a map: |h| <= |W| |h| + |b|, and |h - h0| <= (|W| + |D|) |h - h0| + |D| |h0| + |b' - b|."""
        size = np.logaddexp(self.size + _log(step.norm), _log(step.bias))
        shift = np.logaddexp(self.shift + _log(step.norm + step.change), self.size + _log(step.change))
        return Reach(size, np.logaddexp(shift, _log(step.bias_change)))

    def stretched(self, lipschitz: float) -> "Reach":
        return Reach(self.size + _log(lipschitz), self.shift + _log(lipschitz))

    def plus(self, other: "Reach") -> "Reach":
        return Reach(np.logaddexp(self.size, other.size), np.logaddexp(self.shift, other.shift))

    def past(self, blocks: Sequence[Block]) -> "Reach":
        """Behind all these blocks. Without biases and residuals, from a shift of 0, it is `log10_layer_bound`."""
        here = self
        for block in blocks:
            branch = here
            for step in block.maps:
                branch = branch.through(step)
            branch = branch.stretched(block.lipschitz)
            here = here.plus(branch) if block.is_residual else branch
        return here

    @property
    def log10_shift(self) -> Array:
        return self.shift / LOG10


def _log(lengths: ArrayLike) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.asarray(lengths, dtype=float)))
