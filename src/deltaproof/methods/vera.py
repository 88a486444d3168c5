"""VeRA: two vectors per layer around a pair of random matrices that all layers share."""

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
from deltaproof.methods.fingerprint import check_fingerprint, probed


class Projections(nn.Module):
    """A (rank, widest d_in) and B (tallest d_out, rank), drawn once; each layer takes the first columns and rows.

    Uniform with variance 2 / fan-in (Kaiming), A before B from one generator on the CPU: the bits of peft's own for an
    equal `projection_prng_key`.
    """

    def __init__(self, rank: int, d_in: int, d_out: int, seed: int, persistent: bool) -> None:
        super().__init__()
        self.seed = seed
        self.is_drawn = False
        self.register_buffer("a", torch.empty(rank, d_in), persistent=persistent)
        self.register_buffer("b", torch.empty(d_out, rank), persistent=persistent)
        self.a: Tensor
        self.b: Tensor

    def draw(self) -> None:
        if not self.is_drawn:
            generator = torch.Generator().manual_seed(self.seed)
            for matrix in (self.a, self.b):
                bound = math.sqrt(6 / matrix.shape[1])
                nn.init.uniform_(matrix, -bound, bound, generator=generator)
        self.is_drawn = True


class Vectors(WeightEdit):
    """delta = diag(b) B diag(d) A, A and B frozen, d (rank,) and b (d_out,) trained, b = 0 at the start."""

    def __init__(self, site: Site, settings: "VeRA", projections: Projections, owns: bool) -> None:
        super().__init__()
        self.site = site
        self.d_initial = settings.d_initial
        self.d = nn.Parameter(torch.empty(settings.rank))
        self.b = nn.Parameter(torch.zeros(site.d_out))
        self.dropout = nn.Dropout(settings.dropout)
        self.register_buffer("fingerprint", torch.empty(2), persistent=not settings.save_projection)
        self.fingerprint: Tensor
        self._shared = [projections]  # in a list, which torch does not look into
        if owns:  # one edit has them as its own, so that they are moved, and where they are stored, once
            self.projections = projections

    @property
    def frozen(self) -> tuple[Tensor, Tensor]:
        """A (rank, d_in) and B (d_out, rank) of this layer."""
        return self._shared[0].a[:, : self.site.d_in], self._shared[0].b[: self.site.d_out]

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        self._shared[0].draw()
        with torch.no_grad():
            self.d.fill_(self.d_initial)
            self.fingerprint.copy_(torch.stack([probed(matrix).mean() for matrix in self.frozen]))

    def factors(self) -> tuple[Tensor, Tensor]:
        a, b = self.frozen
        return a, self.b[:, None] * b * self.d

    def delta(self, weight: Tensor) -> Tensor:
        a, b = self.factors()
        return b @ a

    def contribution(self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        a, b = self.frozen
        return self.b * F.linear(self.d * F.linear(self.dropout(x), a), b)

    def verify(self, stored: dict[str, Tensor]) -> None:
        if "fingerprint" in stored:
            check_fingerprint(
                self.fingerprint, stored["fingerprint"], f"the random matrices at {self.site.name}",
                "load them with the release of torch that drew them, or train with save_projection=True",
            )  # fmt: skip

    def resume(self, progress: dict[str, Tensor]) -> None:
        self.verify(progress)
        super().resume(progress)

    def reachable_dimension(self) -> int:
        """rank + d_out, less one, as b may grow by what d shrinks; no more than a matrix has entries."""
        return min(self.d.numel() + self.b.numel() - 1, self.site.d_in * self.site.d_out)


@method("vera")
class VeRA(LinearMethod):
    """W' = W + diag(b) B diag(d) A with one frozen random pair A, B for all layers.

    peft's own code for the same method is `peft_vera`.
    """

    idea = "Share one frozen random pair of thin matrices over all layers, and train two vectors around it per layer."
    equation = "W' = W + diag(b) B diag(d) A, b = 0 and d = d_initial at the start"
    paper = "Kopiczko et al., 2023, arXiv:2310.11454, eq. 2"
    trains = "r + d_out per layer"
    advice = "Where what one more task adds must be tiny; wants a high rank and a high learning rate."
    learning_rate = 5e-3  # as for peft's own, in `peft_kinds`
    start = "b = 0, which is the base; d = d_initial; A and B uniform with variance 2 / fan-in, the same as peft's"
    where = "every linear layer of `roles`; a fused weight gets vectors of its own for each role"
    differences = (
        "on all linear layers instead of queries and values alone, as the paper has it for instruction tuning; "
        "layers of several shapes take slices of one pair, as in peft"
    )
    takes_any_rank = True

    costless = ("d_initial", "projection_seed")

    rank: int = pydantic.Field(default=256, ge=1)
    """Rank r of the random pair; it may exceed the layers' width."""
    d_initial: float = pydantic.Field(default=0.1, gt=0)
    """Start value of d."""
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of the input that is dropped on the way into A, in training."""
    projection_seed: int = pydantic.Field(default=0, ge=0)
    """What A and B are drawn from, whatever the run's own seed: peft's `projection_prng_key`."""
    save_projection: bool = False
    """Store A and B with the tuned model; otherwise they are drawn again, and checked, when it is loaded."""

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        sites = self.sites(backbone)
        for site in sites:
            self._check_rank(site)
        d_in, d_out = max(site.d_in for site in sites), max(site.d_out for site in sites)
        projections = Projections(self.rank, d_in, d_out, self.projection_seed, self.save_projection)
        for number, site in enumerate(sites):
            yield site, Vectors(site, self, projections, owns=number == 0)

    def _check_rank(self, site: Site) -> None:
        """A row of the delta is a mix of r random rows: more of them than the matrix has entries add nothing."""
        if self.rank > site.d_in * site.d_out:
            raise ConfigError(
                f"`rank <= d_in * d_out` must hold at {site.name}, got {self.rank} > {site.d_in * site.d_out}, which "
                f"is every matrix there is; lower `rank`, or leave this site out with `roles`"
            )
