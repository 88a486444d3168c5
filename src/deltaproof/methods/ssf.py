"""SSF: a learned scale and shift of features, behind every linear map and norm."""

import inspect
from collections.abc import Iterator

import pydantic
import torch
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site, bias_of
from deltaproof.methods.base import LINEAR_ROLES, LinearMethod, method
from deltaproof.methods.edits import Edit, WeightEdit


class ScaleShift(WeightEdit):
    """y' = g * y + t, so W' = diag(g) W and b' = g * b + t.

    A norm ends in w * n + b, which gives w' = g * w; or, in some families, in (1 + w) * n, which gives
    1 + w' = g * (1 + w). `unit` is that 1, or 0.
    """

    def __init__(self, site: Site, spread: float, shifts: bool, unit: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(site.d_out))
        self.shift = nn.Parameter(torch.zeros(site.d_out)) if shifts else None
        self.spread, self.unit = spread, unit

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        if self.spread:
            nn.init.normal_(self.gain, mean=1.0, std=self.spread, generator=generator)
            if self.shift is not None:
                nn.init.normal_(self.shift, std=self.spread, generator=generator)

    def delta(self, weight: Tensor) -> Tensor:
        gain = self.gain if weight.ndim == 1 else self.gain[:, None]
        return (gain - 1) * (self.unit + weight)

    def delta_bias(self, bias: Tensor | None) -> Tensor | None:
        if bias is None:
            return self.shift
        return (self.gain - 1) * bias if self.shift is None else (self.gain - 1) * bias + self.shift

    def contribution(self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        added = (self.gain - 1).to(output.dtype) * output
        return added if self.shift is None else added + self.shift.to(output.dtype)


@method("ssf")
class SSF(LinearMethod):
    """y' = g * y + t behind linear maps and norms, g and t vectors."""

    idea = "Scale and shift the features behind every linear map and norm."
    equation = "y' = g * y + t, which is W' = diag(g) W, b' = g * b + t"
    paper = "Lian et al., 2022, arXiv:2210.08823"
    trains = "2 d_out per linear map, 2 d per norm; half of it without `shift`"
    advice = "Small, and free at inference where the base has biases (BERT, GPT-2) or without `shift`: it then merges."
    learning_rate = 3e-3  # between the two rates, 1e-3 and 1e-2, of the study of arXiv:2409.16434
    start = "g = 1 and t = 0, which is the base; with `spread` drawn around them"
    where = "behind every linear map of `roles` and every norm, the embeddings' and the last one included"
    differences = (
        "starts as the base, where the paper draws g from N(1, 0.02) and t from N(0, 0.02) (`spread=0.02`): nothing "
        "needs a random start, for every g and t has a gradient of its own; embeddings get none beyond their norm"
    )

    takes_roles = (*LINEAR_ROLES, "norm", "head")

    costless = ("spread",)

    roles: tuple[str, ...] = (*LINEAR_ROLES, "norm")
    """Roles whose outputs are scaled and shifted."""
    shift: bool = True
    """Shift too. Without, it merges into models without biases (Llama) as well."""
    spread: float = pydantic.Field(default=0.0, ge=0)
    """Standard deviation of the start values around g = 1 and t = 0; the paper has 0.02."""

    @property
    def is_base_at_start(self) -> bool:
        return self.spread == 0

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        for site in self.sites(backbone):
            unit = unit_of(backbone.module(site)) if site.role == "norm" else 0.0
            yield site, ScaleShift(site, self.spread, self.shift, unit)

    def notes(self, backbone: Backbone) -> list[str]:
        sites = self.sites(backbone)
        n_bare = sum(bias_of(backbone.module(site), site) is None for site in sites)
        if not n_bare or not self.shift:
            return []
        return [
            f"{n_bare} of {len(sites)} places of ssf in {backbone.name} have no bias to take up a shift, so it stays "
            f"attached; `shift=False` can be merged"
        ]


@torch.no_grad()
def unit_of(norm: nn.Module) -> float:
    """1 for a norm that multiplies by 1 + w (Gemma), 0 for one that multiplies by w: what is left of x at w = 0."""
    own = dict(norm.named_parameters())
    x = torch.ones_like(own["weight"])
    x[::2] = -1  # mean 0 and mean square 1: normalised already
    inputs = (x[None],) * len(inspect.signature(norm.forward).parameters)  # some take a gate beside it
    left: Tensor = torch.func.functional_call(norm, {name: torch.zeros_like(p) for name, p in own.items()}, inputs)
    return float(left.any())
