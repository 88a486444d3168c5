"""What a method may do at a site: train what is there, change the weight, the output, the input or the attention, or
wrap the whole model."""

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.sites import Site
from deltaproof.methods.context import Context

__all__ = [
    "AttentionEdit",
    "BranchEdit",
    "Context",
    "Edit",
    "ModelEdit",
    "OutputEdit",
    "Unfreeze",
    "Watch",
    "WeightEdit",
]


class Edit(nn.Module):
    """One change at one site. Its parameters are what the method trains there."""

    mergeable: bool = False
    """Whether the change can be folded into the model's weights."""
    recomputable: bool = True
    """Whether layers may be computed again in the backward pass (gradient checkpointing)."""

    @property
    def draws(self) -> bool:
        """Whether the edit draws random numbers in training, or changes how many the model draws."""
        return any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.modules())

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
        return self.stored_buffers()

    @torch.no_grad()
    def resume(self, progress: dict[str, Tensor]) -> None:
        """Take up what `progress` gave."""
        for name, buffer in self.stored_buffers().items():
            buffer.copy_(progress[name])

    def stored_buffers(self) -> dict[str, Tensor]:
        """What is saved beside the parameters: every buffer but those registered with `persistent=False`."""
        stored = self.state_dict(keep_vars=True)
        return {name: buffer for name, buffer in self.named_buffers() if name in stored}

    def verify(self, stored: dict[str, Tensor]) -> None:
        """Stored values are about to be loaded; an edit may look whether they fit this model.

        Raises:
            ConfigError: they do not.
        """

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
        """The change of the weight, (d_out, d_in); at a norm that ends in w * n + b, that of w, (d_out,)."""
        raise NotImplementedError

    def delta_bias(self, bias: Tensor | None) -> Tensor | None:
        """The change of the bias, (d_out,), or None where the method leaves it alone.

        `bias` is None where the site has none: an edit that adds one there all the same cannot be merged there.
        """
        return None

    def contribution(self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the edit adds to the site's output.

        Args:
            x: the site's input, (..., d_in).
            output: the frozen site's output x W^T + b, (..., d_out).
            weight: the frozen W, (d_out, d_in).
            bias: the frozen b, (d_out,), or None.
        """
        return F.linear(x, self.delta(weight), self.delta_bias(bias))

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """A (r, d_in) and B (d_out, r) with delta = B A, scale included, for an edit that has that form."""
        return None

    adds_factors: ClassVar[bool] = False
    """Whether the contribution is x A^T B^T of `factors` and no more, but for dropout."""

    changes_input: ClassVar[bool] = False
    """Whether the edit can be had by changing the site's input, which saves a second product with W."""

    def changed_input(self, x: Tensor) -> Tensor:
        """x' with W x' + b = W' x + b', for an edit that `changes_input`."""
        raise NotImplementedError


class OutputEdit(Edit):
    """h' = edit(h): a change of what a site puts out, which no change of weights expresses."""

    def forward(self, h: Tensor, context: Context) -> Tensor:
        raise NotImplementedError


class Watch(OutputEdit):
    """Looks at what a site puts out and leaves it as it is: for penalties. There is nothing to merge or to export.

    One of a kind may stand at a site: a second one would count the same thing twice.
    """

    mergeable = True

    def watch(self, h: Tensor, context: Context) -> None:
        raise NotImplementedError

    def forward(self, h: Tensor, context: Context) -> Tensor:
        self.watch(h, context)
        return h


class BranchEdit(Edit):
    """h' = h + branch(x): a branch beside or behind a site. Several at one place all see the frozen values and add up.

    The sum stands at the site's output, or, with `side = "input"`, at its input: the one place where a value that
    enters a norm, such as a post-norm model's residual sum, can be met.
    """

    side: Literal["input", "output"] = "output"
    """Where the branch is added."""
    reads: Site | None = None
    """The site whose input is x; None: x is the value that the branch is added to."""
    through_site: bool = False
    """With `side = "input"`: x is what the site makes of its input, norm(h) for a norm, instead of the input itself."""

    def branch(self, x: Tensor, context: Context) -> Tensor:
        """What is added.

        Args:
            x: (batch, tokens, width of where it is read).
        Returns:
            (batch, tokens, width of where it is added).
        """
        raise NotImplementedError


class AttentionEdit(Edit):
    """A change inside attention, at a site of role `attention`: further keys and values, other scores or weights."""

    draws = True  # where attention drops weights, they are others than the model's
    changes_scores: bool = False
    """Whether `scores` or `weights` does anything: attention maps are then written out, which costs memory."""

    def keys_and_values(self, context: Context) -> tuple[Tensor, Tensor] | None:
        """Keys and values that every token may attend to, each (heads of keys, extra tokens, width of a head).

        They come as attention sees them: past any norm of keys, and turned by no rotary position.
        """
        return None

    def scores(self, scores: Tensor, context: Context) -> Tensor:
        """Other attention scores, before mask and softmax.

        Args:
            scores: q k^T / sqrt(width of a head), with the model's soft cap and position bias where it has them,
                (batch, heads, queries, keys). The queries are the last tokens seen; the keys leave out further ones.
        """
        return scores

    def weights(self, weights: Tensor, context: Context) -> Tensor:
        """Other attention weights, after the softmax.

        Args:
            weights: (batch, heads, queries, keys), in fp32, further keys not among them.
        """
        return weights


class ModelEdit(Edit):
    """A change of the whole model by code that is not ours: `wrap` returns the model to call from now on."""

    draws = True  # for all that is known of it
    acts_inside: bool = True
    """Whether all that it does happens in modules of the model, and not around it."""

    def wrap(self, model: nn.Module, head: tuple[str, ...]) -> nn.Module:
        raise NotImplementedError

    def merge(self) -> nn.Module:
        """The plain model with the change folded into its weights."""
        raise NotImplementedError

    def unwrap(self) -> nn.Module:
        """The plain model as it was."""
        raise NotImplementedError
