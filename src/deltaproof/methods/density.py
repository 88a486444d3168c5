"""DEFT's activation density as a penalty around any method: fewer units of the feed-forward blocks stay active."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pydantic
import torch
from torch import Tensor

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError
from deltaproof.methods.base import expression, method
from deltaproof.methods.combine import Wrapper
from deltaproof.methods.edits import Context, Edit, Watch


class Surrogate(Protocol):
    """A smooth stand-in for "o is not zero", between 0 and 1."""

    def value(self, o: Tensor) -> Tensor: ...

    def slope(self, o: Tensor) -> Tensor:
        """The derivative of `value`."""
        ...


@dataclass(frozen=True)
class Rational:
    """o^2 / (o^2 + epsilon): a half at |o| = sqrt(epsilon). Source: github.com/IBM/DEFT at 193cdef."""

    epsilon: float

    def value(self, o: Tensor) -> Tensor:
        square = o.square()
        return square / (square + self.epsilon)

    def slope(self, o: Tensor) -> Tensor:
        return 2 * self.epsilon * o / (o.square() + self.epsilon).square()


@dataclass(frozen=True)
class Tanh:
    """tanh(beta |o|). Ours: it pulls at every active unit, the rational one only at those within some sqrt(epsilon)."""

    beta: float

    def value(self, o: Tensor) -> Tensor:
        return (self.beta * o.abs()).tanh()

    def slope(self, o: Tensor) -> Tensor:
        return self.beta * o.sign() * (1 - (self.beta * o).tanh().square())


class _WeightedSum(torch.autograd.Function):
    """sum over tokens and units of weight * surrogate(o), keeping `o` alone, which the model mostly keeps anyway."""

    @staticmethod
    def forward(ctx: Any, o: Tensor, weights: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(o, weights)
        ctx.surrogate = surrogate
        return (surrogate.value(_wide(o)).sum(-1) * weights).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        o, weights = ctx.saved_tensors
        return (ctx.surrogate.slope(_wide(o)) * (gradient * weights)[..., None]).to(o.dtype), None, None


def _wide(o: Tensor) -> Tensor:
    """At least fp32: in fp16 a square is zero below 2.4e-4, where the penalty pulls hardest."""
    return o.to(torch.promote_types(o.dtype, torch.float32))


def soft_density(o: Tensor, surrogate: Surrogate, weights: Tensor) -> Tensor:
    """The mean of the surrogate over units, tokens and examples, a scalar in 0..1.

    Args:
        o: what the non-linearity puts out, (batch, tokens, d_ff), or (batch * tokens, d_ff) where the model flattens.
        weights: of each token, as `token_weights` gives them; `o`'s shape without d_ff.
    """
    density: Tensor = _WeightedSum.apply(o, weights / o.shape[-1], surrogate)  # type: ignore[no-untyped-call]
    return density


def token_weights(o: Tensor, context: Context, masked: bool = True) -> Tensor:
    """Weights under which a sum over tokens is the mean over each example's tokens, then over examples.

    Args:
        masked: leave padding out.
    Returns:
        `o`'s shape without d_ff, at least fp32; they add up to 1.
    """
    counted = real_tokens(o, context)
    counted = counted if masked else torch.ones_like(counted)
    counted = counted.to(torch.promote_types(o.dtype, torch.float32))
    weights = counted / counted.sum(1, keepdim=True).clamp(min=1) / len(counted)
    return weights.reshape(o.shape[:-1])


def real_tokens(o: Tensor, context: Context) -> Tensor:
    """Which tokens are no padding, (batch, tokens), also of a model that flattens them (OPT); all are without a mask.

    Raises:
        ConfigError: the non-linearity does not see every token once.
    """
    if o.ndim == 3:
        return context.real(o)
    mask = context.attention_mask
    if mask is None:
        return torch.ones(1, len(o), dtype=torch.bool, device=o.device)
    if o.ndim != 2 or len(o) != mask.numel():
        raise ConfigError(
            f"an activation's density is a mean over all tokens, {tuple(mask.shape)} of them here, got values of "
            f"shape {tuple(o.shape)}, as of a mixture of experts; use the method without `density_penalty`"
        )
    return context.real(o.view(*mask.shape, -1))


class Density(Watch):
    """strength / n_layers * mean over examples of the density at one non-linearity, added to the loss."""

    def __init__(self, site: Site, surrogate: Surrogate, strength: float, n_layers: int, masked: bool) -> None:
        super().__init__()
        self.path, self.surrogate, self.masked = site.path, surrogate, masked
        self.factor = strength / n_layers
        self._forget()

    def _forget(self) -> None:
        self._call: int | None = None
        """Which call of the model was seen last."""
        self._kept: list[Tensor] = []
        """Its densities, scalars: one, or as many as the model comes by here (ALBERT uses its one layer again)."""
        self._is_taken = False

    def begin(self, n_steps: int) -> None:
        self._forget()

    def train(self, mode: bool = True) -> "Density":
        self._kept = []
        super().train(mode)
        return self

    def watch(self, h: Tensor, context: Context) -> None:
        if not self.training or not torch.is_grad_enabled():
            return
        if context.n_calls != self._call:
            self._call, self._kept, self._is_taken = context.n_calls, [], False
        density = soft_density(h, self.surrogate, token_weights(h, context, self.masked))
        # A layer that is recomputed in the backward pass must do what it did, but its density was taken already.
        if not self._is_taken:
            self._kept.append(density)

    def penalty(self) -> Tensor | None:
        """The term of the last forward pass; it is given once."""
        if self._call is None:
            raise ConfigError(
                f"the non-linearity `{self.path}` must be called in training for its density to be seen, it was not: "
                f"a fused kernel may stand in for it; turn that off, or use the method without `density_penalty`"
            )
        kept, self._kept, self._is_taken = self._kept, [], True
        return self.factor * torch.stack(kept).mean() if kept else None


_FAR_ZEROS = {
    "SiLU": ("SiLU", -88.7),
    "SiLUActivation": ("SiLU", -88.7),
    "Mish": ("Mish", -102.9),
    "MishActivation": ("Mish", -102.9),
    "QuickGELUActivation": ("quick GELU", -52.1),
}
"""Non-linearities whose fp32 values are zero only where hardly an input lies, by the name of the class."""


@method("density_penalty")
class DensityPenalty(Wrapper):
    """A method trained with a penalty on the density of the feed-forward activations.

    Exact zeros come from the floating point: fp32 GELU is 0 below about -5.5, its tanh form below about -5.1, ReLU
    below 0; SiLU only below -88.7.
    """

    idea = "Train any method so that fewer units of the feed-forward blocks are active."
    equation = (
        "L = L_task + strength * mean over examples and layers of d, d = mean over tokens and units of "
        "o^2 / (o^2 + epsilon), o = act(x W_in)"
    )
    paper = "Runwal et al., 2024, arXiv:2402.01911 (DEFT; released code of the first version)"
    trains = "the inner method's formula; no parameters of its own"
    advice = (
        "For hardware that skips zeros, or to see how sparse a task lets a model be; dense GPUs gain nothing from it. "
        "`density_penalty(lora, strength=0)` is plain `lora` with its density measured."
    )
    learning_rate = 1e-3
    start = "as the inner method starts"
    where = "the non-linearity of each feed-forward block; in gated blocks before the product, as the authors do for T5"
    differences = (
        "padding is left out unless `masked=False`; `surrogate='tanh'` is ours; the adaptive form of the later version "
        "is not built, its code being unreleased"
    )
    positional = ("inner",)

    costless = ("strength", "epsilon", "beta")

    strength: float = pydantic.Field(default=1.0, ge=0)
    """Weight lambda of the penalty."""
    surrogate: Literal["rational", "tanh"] = "rational"
    """`rational`: o^2 / (o^2 + epsilon), as released; `tanh`: tanh(beta |o|), ours, not the authors' code."""
    epsilon: float = pydantic.Field(default=1e-7, gt=0)
    """Of `rational`: units within some sqrt(epsilon) of zero are pulled there."""
    beta: float = pydantic.Field(default=20.0, gt=0)
    """Of `tanh`: its slope at zero."""
    masked: bool = True
    """Leave padding out; False counts it, as the released code does."""
    layers: tuple[int, ...] | None = None
    """Numbers of the layers whose activations are penalised, from 0; all when left out."""

    @property
    def measures(self) -> tuple[str, ...]:
        return (*super().measures, "activation_density")

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        yield from self.inner.edits(backbone)
        sites = activation_sites(backbone, self.layers)
        surrogate = Rational(self.epsilon) if self.surrogate == "rational" else Tanh(self.beta)
        for site in sites:
            yield site, Density(site, surrogate, self.strength, len(sites), self.masked)

    def notes(self, backbone: Backbone) -> list[str]:
        found = {type(backbone.module(site)).__name__ for site in activation_sites(backbone, self.layers)}
        far = sorted({_FAR_ZEROS[kind] for kind in found if kind in _FAR_ZEROS})
        ours = [
            f"{backbone.name} can hardly win an exact zero: {name} is 0 in fp32 only below {x:g}; read the share of "
            f"activations above a threshold instead"
            for name, x in far
        ]
        return [*super().notes(backbone), *ours]

    @property
    def label(self) -> str:
        fields = {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if name != "inner" and getattr(self, name) != field.default
        }
        inside = expression(self.name, fields).removeprefix(self.name).strip("()")
        return f"{self.name}({', '.join(part for part in (self.inner.label, inside) if part)})"


def activation_sites(backbone: Backbone, layers: tuple[int, ...] | None = None) -> list[Site]:
    """The non-linearity of each feed-forward block.

    Raises:
        ConfigError: the model computes it in a form that cannot be watched, or has several in a layer.
    """
    if not any(site.role == "activation" for site in backbone.all_sites):
        if any(site.role == "activation" for site in backbone.hidden_sites):
            raise ConfigError(
                "a density needs the role `activation`, what keeps `density_penalty` to some roles leaves it out; "
                "keep the method inside of it to them instead: `density_penalty(only(lora, roles=['query']))`"
            )
        raise ConfigError(
            f"a density needs the feed-forward block's non-linearity as a module that can be watched, got none in "
            f"`{backbone.name}` of family `{backbone.family}`; use the method without `density_penalty`"
        )
    sites = backbone.sites(["activation"], layers)
    layer, most = Counter(site.layer for site in sites).most_common(1)[0]
    if most > 1:
        paths = ", ".join(f"`{site.path}`" for site in sites if site.layer == layer)
        raise ConfigError(
            f"a feed-forward block must have one non-linearity, got {most} in layer {layer} of `{backbone.name}` "
            f"({paths}); use the method without `density_penalty`"
        )
    return sites
