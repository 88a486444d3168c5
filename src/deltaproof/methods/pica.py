"""PiCa: updates within the span of each weight's principal directions, their coefficients shared by all layers."""

import warnings
from collections.abc import Iterator

import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError
from deltaproof.methods.base import LinearMethod, method
from deltaproof.methods.decompositions import principal_directions
from deltaproof.methods.edits import Edit, WeightEdit
from deltaproof.methods.fingerprint import check_fingerprint, probed
from deltaproof.methods.lora import check_rank

NEAR = 1e-8
"""Of two squared singular values this close, as a share of the largest, the directions may come out turned into one
another: rounding in fp64 turns them by about 1e-16 / NEAR, which is where fp32 begins to see it."""


class InPrincipalSpan(WeightEdit):
    """delta = M P, P (rank, d_in) the first right singular vectors of W (d_out, d_in), M (d_out, rank) the trained one.

    The paper writes Y = X W0 with W0 = W^T, so that what it calls the column space of W0 is the row space of W: the
    update acts on the directions of the input that the weight amplifies most.
    """

    adds_factors = True

    def __init__(self, site: Site, m: nn.Parameter, save_projection: bool) -> None:
        super().__init__()
        rank = m.shape[1]
        self.m = m
        self.save_projection = save_projection
        self.where = site.name
        self.register_buffer("p", torch.empty(rank, site.d_in), persistent=save_projection)
        # the directions as `probed` sees them, and their singular values
        self.register_buffer("fingerprint", torch.empty(2, rank), persistent=not save_projection)
        self.p: Tensor
        self.fingerprint: Tensor

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        assert weight is not None, "a linear site has a weight"
        p, values = principal_directions(weight, len(self.p))
        self.p.copy_(p)
        self.fingerprint.copy_(torch.stack([probed(p), values[:-1].float().cpu()]))
        if not self.save_projection and _nearest(values) < NEAR:
            warnings.warn(
                f"the singular values at {self.where} must be apart for their directions to come out alike on every "
                f"machine, within the first {len(self.p) + 1} two are equal but for rounding; use save_projection=True",
                stacklevel=2,
            )

    def delta(self, weight: Tensor) -> Tensor:
        return self.m @ self.p

    def contribution(self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(F.linear(x, self.p), self.m)

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.p, self.m

    def verify(self, stored: dict[str, Tensor]) -> None:
        if "fingerprint" in stored:
            check_fingerprint(
                self.fingerprint, stored["fingerprint"], f"the principal directions at {self.where}",
                "load them on the very model that was tuned, unmerged and in the same precision, or train with "
                "save_projection=True",
            )  # fmt: skip

    def resume(self, progress: dict[str, Tensor]) -> None:
        self.verify(progress)
        super().resume(progress)


def _nearest(values: Tensor) -> float:
    """The least difference of neighbouring squares as a share of the largest square; one behind the cut counts."""
    squares = values.square()
    return float((-squares.diff()).min() / squares[0].clamp_min(1e-300))


@method("pica")
class PiCa(LinearMethod):
    """W' = W + M P with P the principal directions of each weight and one M per role for all layers."""

    idea = "Change each weight along its own principal input directions, with one matrix of coefficients per role."
    equation = "W' = W + M P, P = first r right singular vectors of W, M = 0 at the start and shared by all layers"
    paper = "Hwang et al., 2025, arXiv:2505.20211, Algorithm 1, in its reparameterised form"
    trains = "r d_out per role, whatever the number of layers; r d_out per layer without sharing"
    advice = "At high ranks for few parameters: depth is free. Attaching costs a decomposition of each weight."
    learning_rate = 1e-3  # of the authors' scripts, for mathematics and for common sense alike
    start = "M = 0, which is the base; P from the weights, with the largest entry of each direction positive"
    where = "query, key, value and the two halves of the feed-forward block, as in the authors' scripts"
    differences = "M is kept in fp32 also on a base in bf16; P comes from fp64 and has fixed signs, checked on loading"

    rank: int = pydantic.Field(default=32, ge=1)
    """Number of principal directions."""
    roles: tuple[str, ...] = ("query", "key", "value", "ffn_in", "ffn_out")
    """Roles of the layers that are changed."""
    share: bool = True
    """One M per role for all layers; otherwise one per layer."""
    save_projection: bool = False
    """Store the directions with the tuned model, for bases that cannot be had again to the bit."""

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        first: dict[str, Site] = {}
        shared: dict[str, nn.Parameter] = {}
        for site in self.sites(backbone):
            check_rank(self.rank, site)
            group = site.role if self.share else site.name
            if group not in shared:
                first[group], shared[group] = site, nn.Parameter(torch.zeros(site.d_out, self.rank))
            _check_width(first[group], site)
            yield site, InPrincipalSpan(site, shared[group], self.save_projection)


def _check_width(first: Site, site: Site) -> None:
    if first.d_out != site.d_out:
        raise ConfigError(
            f"layers that share a matrix must have as many outputs each, got {first.d_out} at {first.name} and "
            f"{site.d_out} at {site.name}; use share=False, or name layers that are alike with `layers`"
        )
