"""What an experiment costs before anything is measured: operations, bytes, devices. Formulas alone, free of torch.

Per token of a transformer with P parameters in matrix products, L layers of width d and texts of s tokens:

    forward    2 P + 4 L s d          every weight once, multiply and add; queries by keys, and weights by values
    backward   2 P + 8 L s d          gradients of activations, to the lowest trained site; attention has two factors
             + 2 P                    gradients of the weights, where those are trained
    deltas     6 p                    for the p parameters of low-rank factors, forward and backward

so full fine-tuning takes 6 P + 12 L s d and a frozen base with deltas 4 P + 12 L s d + 6 p, two thirds of it; training
the head alone takes the forward pass. Source of 2 P and 6 P: Kaplan et al., 2020, arXiv:2001.08361, sec. 2.1.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A transformer, as far as costs depend on it."""

    n_layers: int
    width: int
    n_products: int
    """Parameters that take part in matrix products of every token: no embeddings, no head that reads one token."""
    n_parameters: int
    """All of them, embeddings included."""


@dataclass(frozen=True)
class Trained:
    """What a method trains, as far as costs depend on it."""

    name: str
    n_trained: int
    n_factors: int = 0
    """Parameters of low-rank factors or modules that multiply every token."""
    trains_base: bool = False
    """Whether weights of the base have gradients."""
    backward_fraction: float = 1.0
    """Share of the layers that the backward pass goes through; 0 where only the head is trained."""


FULL_PRECISION_BYTES, HALF_PRECISION_BYTES = 4, 2
OPTIMISER_BYTES = 12
"""Per trained parameter in fp32: gradient and AdamW's two moments, beside the value itself."""


def flops_per_token(shape: Shape, trained: Trained, length: float) -> float:
    """Operations of a training step, per token of texts of this length."""
    products = 2 * shape.n_products
    attention = 4 * shape.n_layers * length * shape.width
    forward = products + attention
    backward = trained.backward_fraction * (products + 2 * attention) + trained.trains_base * products
    return forward + backward + 6 * trained.n_factors


def state_bytes(shape: Shape, trained: Trained, base_bytes: int = FULL_PRECISION_BYTES) -> int:
    """Weights, gradients and optimiser of a training; activations come on top.

    Args:
        base_bytes: per parameter of a frozen base; what is trained is held in fp32.
    """
    held = FULL_PRECISION_BYTES if trained.trains_base else base_bytes
    own = 0 if trained.trains_base else trained.n_trained * FULL_PRECISION_BYTES
    return shape.n_parameters * held + own + trained.n_trained * OPTIMISER_BYTES


def devices_for(n_bytes: float, device_bytes: float) -> int:
    """The fewest devices that hold so many bytes together."""
    return math.ceil(n_bytes / device_bytes)


@dataclass(frozen=True)
class Protocol:
    """How many runs of what length an experiment takes."""

    n_contestants: int
    n_trials: int
    n_seeds: int
    tokens_per_run: float
    length: float

    @property
    def n_runs(self) -> int:
        return self.n_contestants * (self.n_trials + self.n_seeds)


def experiment_flops(shape: Shape, trained: Trained, protocol: Protocol) -> float:
    """Of all training steps; evaluation comes on top."""
    return protocol.n_runs * protocol.tokens_per_run * flops_per_token(shape, trained, protocol.length)


def wall_seconds(device_seconds: float, n_devices: int, longest_chain_seconds: float) -> float:
    """No faster than the work shared evenly, nor than runs that follow one another."""
    return max(device_seconds / n_devices, longest_chain_seconds)
