"""IA3: learned gains on keys, values and the hidden layer of the feed-forward block."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.methods.base import LinearMethod, method
from deltaproof.methods.edits import Edit, WeightEdit


class OutputGain(WeightEdit):
    """y' = l * y, so W' = diag(l) W and b' = l * b; l = 1 at the start."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(site.d_out))

    def delta(self, weight: Tensor) -> Tensor:
        return (self.gain - 1)[:, None] * weight

    def delta_bias(self, bias: Tensor | None) -> Tensor | None:
        return None if bias is None else (self.gain - 1) * bias

    def contribution(self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return (self.gain - 1).to(output.dtype) * output


class InputGain(WeightEdit):
    """y' = W (l * x) + b, so W' = W diag(l); l = 1 at the start."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(site.d_in))

    def delta(self, weight: Tensor) -> Tensor:
        return weight * (self.gain - 1)

    changes_input = True

    def changed_input(self, x: Tensor) -> Tensor:
        return x * self.gain.to(x.dtype)

    def contribution(self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x * (self.gain - 1).to(x.dtype), weight)


@method("ia3")
class IA3(LinearMethod):
    """Gains on the outputs of key and value and on the input of the second feed-forward matrix."""

    idea = "Scale keys, values and feed-forward activations by learned vectors."
    equation = "k' = l_k * k, v' = l_v * v, ffn' = W_out (l_ff * act(W_in x)), l = 1 at the start"
    paper = "Liu et al., 2022, arXiv:2205.05638, sec. 3.3"
    trains = "d_out per key and value, d_in per second feed-forward layer"
    advice = "Among the smallest that merge into the base; wants a high learning rate."
    learning_rate = 1e-2
    start = "l = 1, which is the base"
    where = "the outputs of key and value, the input of the second feed-forward layer"
    differences = "none"

    roles: tuple[str, ...] = ("key", "value", "ffn_out")
    """Roles that get a gain: on the input for `ffn_out`, on the output otherwise."""

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        for site in self.sites(backbone):
            yield site, InputGain(site) if site.role == "ffn_out" else OutputGain(site)
