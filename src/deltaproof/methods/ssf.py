"""SSF: a learned scale and shift of features, behind every linear map and norm."""

from collections.abc import Iterator

import pydantic
import torch
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site, bias_of
from deltaproof.methods.base import LINEAR_ROLES, LinearMethod, method
from deltaproof.methods.edits import Context, Edit, OutputEdit, WeightEdit


class ScaleShift(WeightEdit):
    """y' = g * y + t, so W' = diag(g) W and b' = g * b + t; where a norm ends in w * n + b, w' = g * w."""

    def __init__(self, site: Site, spread: float) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(site.d_out)), nn.Parameter(torch.zeros(site.d_out))
        self.spread = spread

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        _draw(self.gain, self.shift, self.spread, generator)

    def delta(self, weight: Tensor) -> Tensor:
        return (self.gain - 1 if weight.ndim == 1 else (self.gain - 1)[:, None]) * weight

    def delta_bias(self, bias: Tensor | None) -> Tensor:
        return self.shift if bias is None else (self.gain - 1) * bias + self.shift

    def contribution(self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return (self.gain - 1).to(output.dtype) * output + self.shift.to(output.dtype)


class ScaleShiftOutput(OutputEdit):
    """y' = g * y + t behind a norm without a bias: t has nowhere to be folded into, and some families (Gemma) multiply
    by 1 + w instead of w."""

    def __init__(self, site: Site, spread: float) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(site.d_out)), nn.Parameter(torch.zeros(site.d_out))
        self.spread = spread

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        _draw(self.gain, self.shift, self.spread, generator)

    def forward(self, h: Tensor, context: Context) -> Tensor:
        return self.gain * h + self.shift


def _draw(gain: Tensor, shift: Tensor, spread: float, generator: torch.Generator) -> None:
    if spread:
        nn.init.normal_(gain, mean=1.0, std=spread, generator=generator)
        nn.init.normal_(shift, std=spread, generator=generator)


@method("ssf")
class SSF(LinearMethod):
    """y' = g * y + t behind linear maps and norms, g and t vectors."""

    idea = "Scale and shift the features behind every linear map and norm."
    equation = "y' = g * y + t, which is W' = diag(g) W, b' = g * b + t"
    paper = "Lian et al., 2022, arXiv:2210.08823"
    trains = "2 d_out per linear map, 2 d per norm"
    advice = "Small, and free at inference where the maps have biases (BERT, GPT-2): it then merges into the base."
    learning_rate = 3e-3  # between the two rates, 1e-3 and 1e-2, of the study of arXiv:2409.16434
    start = "g = 1 and t = 0, which is the base; with `spread` drawn around them"
    where = "behind every linear map of `roles` and every norm, the embeddings' and the last one included"
    differences = (
        "starts as the base, where the paper draws g from N(1, 0.02) and t from N(0, 0.02) (`spread=0.02`): nothing "
        "needs a random start, for every g and t has a gradient of its own; embeddings get none beyond their norm"
    )

    roles: tuple[str, ...] = (*LINEAR_ROLES, "norm")
    """Roles whose outputs are scaled and shifted."""
    spread: float = pydantic.Field(default=0.0, ge=0)
    """Standard deviation of the start values around g = 1 and t = 0; the paper has 0.02."""

    @property
    def is_base_at_start(self) -> bool:
        return self.spread == 0

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        for site in self.sites(backbone):
            is_bare_norm = site.role == "norm" and bias_of(backbone.module(site), site) is None
            yield site, (ScaleShiftOutput if is_bare_norm else ScaleShift)(site, self.spread)

    def notes(self, backbone: Backbone) -> list[str]:
        sites = self.sites(backbone)
        n_bare = sum(bias_of(backbone.module(site), site) is None for site in sites)
        if not n_bare:
            return []
        return [f"{n_bare} of {len(sites)} places of ssf in {backbone.name} have no bias: it cannot be merged there"]
