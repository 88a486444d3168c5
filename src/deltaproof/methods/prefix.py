"""Prefix tuning: learned keys and values that every token of a layer may attend to."""

from collections.abc import Iterator

import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError
from deltaproof.methods.base import Method, method
from deltaproof.methods.context import Context
from deltaproof.methods.edits import AttentionEdit, Edit


class Prefix(AttentionEdit):
    """Keys [P_k; K] and values [P_v; V] of one layer; P_k, P_v ~ N(0, 1) at the start."""

    def __init__(self, length: int, n_heads: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.empty(n_heads, length, width))
        self.values = nn.Parameter(torch.empty(n_heads, length, width))

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        nn.init.normal_(self.keys, generator=generator)
        nn.init.normal_(self.values, generator=generator)

    def keys_and_values(self, context: Context) -> tuple[Tensor, Tensor]:
        return self.keys, self.values


class Reparametrisation(nn.Module):
    """tanh(A E + a), what the prefixes of all layers are made of; E ~ N(0, 1), A and a as `nn.Linear` starts.

    Li & Liang, 2021, sec. 4.3: P = MLP(E), where the MLP's last map has rows for each layer.
    """

    def __init__(self, length: int, width: int, bottleneck: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(length, width))
        self.a = nn.Parameter(torch.empty(bottleneck, width))
        self.a_bias = nn.Parameter(torch.empty(bottleneck))

    def start(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.embedding, generator=generator)
        start_as_linear(self.a, self.a_bias, generator)

    def forward(self) -> Tensor:
        return torch.tanh(F.linear(self.embedding, self.a, self.a_bias))


class MadePrefix(AttentionEdit):
    """Keys and values [P_k | P_v] = B tanh(A E + a) + b of one layer; A, a and E are shared by all layers."""

    def __init__(self, shared: Reparametrisation, n_heads: int, width: int, owns: bool) -> None:
        super().__init__()
        self.shape = (n_heads, width)
        bottleneck = len(shared.a)
        self.b = nn.Parameter(torch.empty(2 * n_heads * width, bottleneck))
        self.b_bias = nn.Parameter(torch.empty(2 * n_heads * width))
        self.shared = shared if owns else None  # a module is stored, moved and counted where it is registered
        self._made = [shared]  # a list hides it from those who look for modules

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        start_as_linear(self.b, self.b_bias, generator)
        if self.shared is not None:
            self.shared.start(generator)

    def keys_and_values(self, context: Context) -> tuple[Tensor, Tensor]:
        rows = F.linear(self._made[0](), self.b, self.b_bias)
        keys, values = rows.view(len(rows), 2, *self.shape).permute(1, 2, 0, 3)
        return keys, values

    def reachable_dimension(self) -> int:
        """No more than the keys and values have numbers."""
        return min(super().reachable_dimension(), len(self._made[0].embedding) * len(self.b))


def start_as_linear(weight: Tensor, bias: Tensor, generator: torch.Generator) -> None:
    """U(-1/sqrt(d_in), 1/sqrt(d_in)), as `nn.Linear` starts."""
    for tensor in (weight, bias):
        nn.init.uniform_(tensor, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5, generator=generator)


def check_length(length: int, backbone: Backbone) -> None:
    """Refuse more learned tokens than the longest text has: they take no positions, but memory in every layer."""
    if 0 < backbone.max_length < length:
        raise ConfigError(
            f"`length <= {backbone.max_length}`, the most tokens that `{backbone.name}` takes, must hold, got "
            f"{length}; lower `length`"
        )


@method("prefix")
class PrefixTuning(Method):
    """Learned keys and values in every layer.

    A fresh prefix is attended to, so that the first answers are not those of the base: a prefix that changed nothing
    would have to be one that nobody attends to, and would get no gradient.
    """

    idea = "Let every token attend to a few learned keys and values in each layer."
    equation = "attention(q, [P_k; K], [P_v; V]); with a bottleneck [P_k, P_v] = B tanh(A E + a) + b"
    paper = "Li & Liang, 2021, arXiv:2101.00190, sec. 4; Zhou et al., 2023, arXiv:2301.12132 (bottleneck 800)"
    trains = (
        "2 * length * heads of keys * width of a head per layer; with a bottleneck k: length * d + (d + 1) k in all "
        "and 2 (k + 1) * heads of keys * width of a head per layer"
    )
    advice = "For steering a generating model, or beside adapters; sensitive to its start, wants a high learning rate."
    learning_rate = 1e-2  # as peft's guides; on the demo's data better than 1e-3 and 1e-1
    start = "keys and values drawn from N(0, 1); with a bottleneck E from N(0, 1) and the maps as linear layers start"
    where = "the attention of every layer; nothing is added to the sequence, so no position moves"
    differences = (
        "positions stay what they were, where the paper and peft count the prefix as the first positions; start values "
        "are drawn (peft), where the paper prefers activations of real words; the map behind a bottleneck is kept "
        "after training, so that training can go on, where the paper keeps its result"
    )
    starts_as_base = False

    length: int = pydantic.Field(default=20, ge=1)
    """Keys and values per layer and head."""
    layers: tuple[int, ...] | None = None
    """Numbers of the layers that get a prefix, from 0; all when left out."""
    bottleneck: int | None = pydantic.Field(default=None, ge=1)
    """Width of the hidden layer that makes the prefixes, for steadier training; None: they are trained as they are."""

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        check_length(self.length, backbone)
        _, n_heads, width = backbone.heads
        sites = backbone.sites(["attention"], self.layers)
        if self.bottleneck is None:
            for site in sites:
                yield site, Prefix(self.length, n_heads, width)
            return
        shared = Reparametrisation(self.length, sites[0].d_in, self.bottleneck)
        for site in sites:
            yield site, MadePrefix(shared, n_heads, width, owns=site is sites[0])
