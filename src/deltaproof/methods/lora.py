"""LoRA, with rank-stabilised scaling as an option."""

import math
from collections.abc import Iterator

import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError
from deltaproof.methods.base import LinearMethod, method
from deltaproof.methods.edits import Edit, WeightEdit


class LowRank(WeightEdit):
    """delta = s B A with A (rank, d_in), B (d_out, rank) and B = 0 at the start."""

    adds_factors = True

    def __init__(self, site: Site, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, site.d_in))
        self.b = nn.Parameter(torch.zeros(site.d_out, rank))
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5), generator=generator)  # as the authors' code and peft do

    def delta(self, weight: Tensor) -> Tensor:
        return self.scale * self.b @ self.a

    def contribution(self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(F.linear(self.dropout(x), self.a), self.b * self.scale)

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.a, self.scale * self.b

    def reachable_dimension(self) -> int:
        """Dimension of the m x n matrices of rank r: r (m + n - r)."""
        (r, n), m = self.a.shape, self.b.shape[0]
        return r * (m + n - r)


@method("lora")
class LoRA(LinearMethod):
    """W' = W + s B A on every linear layer, s = alpha / rank, or alpha / sqrt(rank) with `rank_stabilised`."""

    idea = "Add a product of two thin matrices to each weight, and train only those."
    equation = "W' = W + (alpha / r) B A, B = 0 at the start"
    paper = "Hu et al., 2021, arXiv:2106.09685, eq. 3; scaling alpha / sqrt(r): Kalajdzievski, 2023, arXiv:2312.03732"
    trains = "r (d_in + d_out) per layer"
    advice = "The default of parameter-efficient tuning: near full fine-tuning when all linear layers get it."
    learning_rate = 5e-4
    start = "A uniform as in the authors' code (Kaiming, a = sqrt(5)), B = 0, which is the base"
    where = "every linear layer of `roles`; a fused weight gets factors of its own for each role"
    differences = "on all linear layers instead of queries and values alone, after later findings; no bias is trained"

    costless = ("alpha", "rank_stabilised")

    rank: int = pydantic.Field(default=8, ge=1)
    """Rank r of the update."""
    alpha: float = pydantic.Field(default=16.0, gt=0)
    """Numerator of the scale."""
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of the input that is dropped on the way into A, in training."""
    rank_stabilised: bool = False
    """Divide alpha by sqrt(r) instead of r (rsLoRA), so that large ranks keep learning."""

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        for site in self.sites(backbone):
            check_rank(self.rank, site)
            yield site, LowRank(site, self.rank, self.scale, self.dropout)


def check_rank(rank: int, site: Site) -> None:
    """Refuse a rank above the smaller side of the matrix, where a factorisation only wastes parameters."""
    smaller = min(site.d_in, site.d_out)
    if rank > smaller:
        raise ConfigError(
            f"`rank <= min(d_in, d_out)` must hold at {site.name}, got {rank} > {smaller}; "
            f"lower `rank`, or leave this site out with `roles`"
        )
