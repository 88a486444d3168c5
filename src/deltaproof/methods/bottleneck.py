"""The bottleneck that adapters are made of, s Up(act(Down x)), and the places of a layer where one may stand."""

import math
from collections.abc import Callable
from typing import Literal

import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.families import FAMILIES
from deltaproof.backbones.sites import Site
from deltaproof.methods.base import Method
from deltaproof.methods.edits import BranchEdit, Context

Activation = Literal["relu", "gelu", "gelu_new", "silu", "tanh"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),  # the name that transformers has for it
    "silu": F.silu,
    "tanh": torch.tanh,
}


class BottleneckMethod(Method):
    """The settings that every adapter with a bottleneck has."""

    costless = ("scale", "initial")

    bottleneck: int | None = pydantic.Field(default=None, ge=1)
    """Width D of the bottleneck; that of the model divided by `reduction` when left out."""
    reduction: int = pydantic.Field(default=16, ge=1)
    """How many times narrower than the model the bottleneck is, where `bottleneck` does not say."""
    activation: Activation = "relu"
    """The non-linearity in the bottleneck."""
    scale: float = 1.0
    """Factor s on what the adapter adds."""
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of the bottleneck that is dropped in training."""
    layers: tuple[int, ...] | None = None
    """Numbers of the transformer layers that get adapters, from 0; all when left out."""
    initial: Literal["identity", "near", "bert"] = "identity"
    """Start values. `identity`: Down Kaiming-uniform (a = sqrt(5)), Up 0, which is the base. Not the base, but close:
    `near` draws both from N(0, 0.01), `bert` from N(0, 0.02). Biases are 0 in each."""

    @property
    def is_base_at_start(self) -> bool:
        return self.initial == "identity"

    def width(self, site: Site) -> int:
        """Width D of the bottleneck at a site; 1 where the model is narrower than `reduction`."""
        return self.bottleneck or max(1, site.d_out // self.reduction)


class Bottleneck(BranchEdit):
    """h' = h + s Up(act(Down x)), both maps with biases."""

    def __init__(self, site: Site, settings: BottleneckMethod, reads: Site | None = None) -> None:
        super().__init__()
        n_read, n_between = (reads.d_in if reads else site.d_out), settings.width(site)
        self.reads = reads
        self.down, self.up = _unfilled(n_read, n_between), _unfilled(n_between, site.d_out)
        self.dropout = nn.Dropout(settings.dropout)
        self.settings = settings

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)
        if self.settings.initial == "identity":
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5), generator=generator)
            nn.init.zeros_(self.up.weight)
            return
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std={"near": 0.01, "bert": 0.02}[self.settings.initial], generator=generator)

    def branch(self, x: Tensor, context: Context) -> Tensor:
        between = ACTIVATIONS[self.settings.activation](self.down(x))
        added: Tensor = self.settings.scale * self.up(self.dropout(between))
        return added

    def reachable_dimension(self) -> int:
        """With ReLU a unit of the bottleneck may grow before it and shrink behind it by the same factor, unseen."""
        n_units = self.down.out_features
        return super().reachable_dimension() - (n_units if self.settings.activation == "relu" else 0)


def _unfilled(n_in: int, n_out: int) -> nn.Linear:
    """A map that `start` will fill: made without a draw from the global generator."""
    return nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")


class BeforeNorm(Bottleneck):
    """A bottleneck that is added to what enters a norm, a post-norm model's residual sum z: z' = z + branch."""

    side = "input"


class BehindNorm(BeforeNorm):
    """z' = z + branch(norm(z)): what AutoPEFT's serial adapter does."""

    through_site = True


def norms_behind_sums(backbone: Backbone) -> bool:
    """Whether each layer's norms stand behind its residual sums (BERT), instead of before its blocks (GPT-2, Llama).

    Read off the family and not off the sites: a model that shows some of its roles only is still the same model.
    """
    return backbone.family in FAMILIES and FAMILIES[backbone.family].norms is not None


def ends(backbone: Backbone, block: Literal["attention", "ffn"], layers: tuple[int, ...] | None) -> list[Site]:
    """Where a block's branch joins the residual stream: the norm behind the sum, or else the block's last map."""
    return backbone.sites([f"{block}_norm" if norms_behind_sums(backbone) else f"{block}_out"], layers)
