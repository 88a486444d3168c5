"""What a method may do at a site: train what is there, change the weight or the output, or wrap the whole model."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Context:
    """What the model was called with in the forward pass under way; edits may read it."""

    attention_mask: Tensor | None = None
    """(batch, tokens), 1 for real tokens."""


class Edit(nn.Module):
    """One change at one site. Its parameters are what the method trains there."""

    mergeable: bool = False
    """Whether the change can be folded into the model's weights."""

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        """Set the start values; `weight` is the site's frozen weight, (d_out, d_in), where the site has one."""

    def begin(self, n_steps: int) -> None:
        """Training of `n_steps` steps is about to begin."""

    def after_step(self, step: int) -> None:
        """Optimiser step number `step`, counted from 0, has been taken; its gradients are still there."""

    def penalty(self) -> Tensor | None:
        """What the method adds to the loss of every optimiser step, a scalar; None for nothing."""
        return None

    def progress(self) -> dict[str, Tensor]:
        """What the edit remembers from one step to the next beyond its parameters: a training that resumes needs it."""
        return dict(self.named_buffers())

    @torch.no_grad()
    def resume(self, progress: dict[str, Tensor]) -> None:
        """Take up what `progress` gave."""
        for name, buffer in self.named_buffers():
            buffer.copy_(progress[name])

    def reachable_dimension(self) -> int:
        """Dimension of the set that the edit can reach; its number of parameters unless they overlap in effect."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)


class Unfreeze(Edit):
    """Train parameters that the model has already, by their names in the model."""

    mergeable = True

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = tuple(names)


class WeightEdit(Edit):
    """W' = W + delta(W), b' = b + delta_bias(b). `delta` is the definition, `contribution` the faster route."""

    mergeable = True

    def delta(self, weight: Tensor) -> Tensor:
        """The change of the weight, (d_out, d_in)."""
        raise NotImplementedError

    def delta_bias(self, bias: Tensor) -> Tensor | None:
        """The change of the bias, (d_out,), or None where the method leaves it alone."""
        return None

    def contribution(self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the edit adds to the site's output.

        Args:
            x: the site's input, (..., d_in).
            output: the frozen site's output x W^T + b, (..., d_out).
            weight: the frozen W, (d_out, d_in).
            bias: the frozen b, (d_out,), or None.
        """
        return F.linear(x, self.delta(weight), None if bias is None else self.delta_bias(bias))

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """A (r, d_in) and B (d_out, r) with delta = B A, scale included, for an edit that has that form."""
        return None

    changes_input: ClassVar[bool] = False
    """Whether the edit can be had by changing the site's input, which saves a second product with W."""

    def changed_input(self, x: Tensor) -> Tensor:
        """x' with W x' + b = W' x + b', for an edit that `changes_input`."""
        raise NotImplementedError


class OutputEdit(Edit):
    """h' = edit(h): a change of what a site puts out, which no change of weights expresses."""

    def forward(self, h: Tensor, context: Context) -> Tensor:
        raise NotImplementedError


class ModelEdit(Edit):
    """A change of the whole model by code that is not ours: `wrap` returns the model to call from now on."""

    def wrap(self, model: nn.Module, head: tuple[str, ...]) -> nn.Module:
        raise NotImplementedError

    def merge(self) -> nn.Module:
        """The plain model with the change folded into its weights."""
        raise NotImplementedError

    def unwrap(self) -> nn.Module:
        """The plain model as it was."""
        raise NotImplementedError
