"""DoRA: LoRA on the direction of each weight row, with a trained length."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.methods.base import method
from deltaproof.methods.edits import Edit
from deltaproof.methods.lora import LoRA, LowRank, check_rank


class Decomposed(LowRank):
    """W' = m * (W + s B A) / |W + s B A|, |.| the length of each row (one row per output); m starts as |W|.

    As the paper proposes (sec. 4.3), the lengths are held constant in the backward pass.
    """

    adds_factors = False  # A and B are its direction alone

    def __init__(self, site: Site, rank: int, scale: float, dropout: float) -> None:
        super().__init__(site, rank, scale, dropout)
        self.magnitude = nn.Parameter(torch.empty(site.d_out))

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        super().start(weight, generator)
        assert weight is not None, "a linear site has a weight"
        with torch.no_grad():
            self.magnitude.copy_(weight.norm(dim=1))

    def stretch(self, weight: Tensor) -> Tensor:
        """m / |W + s B A|, (d_out,)."""
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):  # a length in bf16 is off by 0.4 %
            length: Tensor = (weight.float() + super().delta(weight)).norm(dim=1)
        return self.magnitude / length

    def delta(self, weight: Tensor) -> Tensor:
        return self.stretch(weight)[:, None] * (weight + super().delta(weight)) - weight

    def contribution(self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stretch = self.stretch(weight).to(x.dtype)
        if self.training and self.dropout.p > 0:  # as in peft: the stretch acts on the dropped input
            x = self.dropout(x)
            straight = F.linear(x, weight)
        else:
            straight = output if bias is None else output - bias
        return (stretch - 1) * straight + stretch * F.linear(F.linear(x, self.a), self.b * self.scale)

    def reachable_dimension(self) -> int:
        return min(super().reachable_dimension() + self.magnitude.numel(), self.b.shape[0] * self.a.shape[1])


@method("dora")
class DoRA(LoRA):
    """LoRA for the direction of each weight row beside a trained length."""

    idea = "Split each weight into length and direction; train the length, and the direction by LoRA."
    equation = "W' = m * (W + s B A) / |W + s B A|_row, m = |W|_row at the start"
    paper = "Liu et al., 2024, arXiv:2402.09353, eq. 5, gradient of sec. 4.3"
    trains = "r (d_in + d_out) + d_out per layer"
    advice = "Where LoRA at a low rank falls short; a step costs more."
    learning_rate = 5e-4
    start = "as LoRA, with m = |W|_row"
    where = "every linear layer of `roles`"
    differences = "none; the length is held constant in the backward pass, as the paper proposes"

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        for site in self.sites(backbone):
            check_rank(self.rank, site)
            yield site, Decomposed(site, self.rank, self.scale, self.dropout)
