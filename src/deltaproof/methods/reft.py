"""Representation fine-tuning: edits of rank r of the residual stream, at a few tokens of the prompt.

Every form reads Phi(h) = h + P (W h + b - P^T h), P (d, r), with parts left out:

    form            P             Phi(h) - h                    in the authors' code
    full            orthonormal   R^T (W h + b - R h), LoReFT   LoreftIntervention
    bias            orthonormal   R^T b                         LobireftIntervention
    constant        orthonormal   R^T (b - R h)                 ConsreftIntervention
    direct          orthonormal   R^T (W h + b)                 DireftIntervention
    unconstrained   free          W2^T (W1 h + b - W2 h)        NoreftIntervention
    direft          free          W2^T (W1 h + b), DiReFT       NodireftIntervention

Beware of the names: the paper's DiReFT is `NodireftIntervention`, and `DireftIntervention` is the paper's ablation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError
from deltaproof.methods.base import Method
from deltaproof.methods.bottleneck import ACTIVATIONS, Activation
from deltaproof.methods.edits import Context, Edit, OutputEdit
from deltaproof.methods.lora import check_rank
from deltaproof.methods.orthonormal import orthonormal
from deltaproof.methods.positions import Positions


@dataclass(frozen=True)
class Form:
    """Which parts of P (W h + b - P^T h) there are."""

    orthonormal: bool
    """Whether P has orthonormal columns; it is then R^T, otherwise W2^T."""
    reads: bool
    """Whether W h is there."""
    subtracts: bool
    """Whether P^T h is there."""


FORMS = {
    "full": Form(orthonormal=True, reads=True, subtracts=True),
    "bias": Form(orthonormal=True, reads=False, subtracts=False),
    "constant": Form(orthonormal=True, reads=False, subtracts=True),
    "direct": Form(orthonormal=True, reads=True, subtracts=False),
    "unconstrained": Form(orthonormal=False, reads=True, subtracts=True),
    "direft": Form(orthonormal=False, reads=True, subtracts=False),
}


class ReftMethod(Method):
    """The settings that LoReFT and DiReFT share."""

    rank: int = pydantic.Field(default=4, ge=1)
    """Rank r of the edit."""
    positions: str = "f3+l3"
    """Tokens of the prompt that are edited: `fN` the first N, `lN` the last N, `fN+lM` both, `all` every one. A text
    to classify is all prompt."""
    tied: bool = True
    """Whether first and last tokens share one edit per layer; otherwise there are two."""
    layers: tuple[int, ...] | None = None
    """Numbers of the transformer layers whose output is edited, from 0; all when left out."""
    act: Literal[Activation, "linear"] = "linear"
    """The non-linearity on W h + b."""
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share that is dropped in training, of what `dropout_on` names."""
    dropout_on: Literal["edit", "state"] = "edit"
    """`edit`: drop parts of Phi(h) - h. `state`: of Phi(h), the state itself too, as the authors' code does."""
    identity_start: bool = False
    """Start as the base, which the papers do not: LoReFT with W = R and b = 0, DiReFT with W2 = 0."""

    @pydantic.field_validator("positions")
    @classmethod
    def _readable(cls, text: str) -> str:
        Positions.parse(text)
        return text

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "ReftMethod":
        form = self.shape
        if self.act != "linear" and not form.reads:
            raise ConfigError(f"`act` stands on W h + b, which `{self.label}` lacks; leave `act` at `linear`")
        if self.identity_start and form.subtracts and not (form.reads and self.act == "linear"):
            remedy = "`act='linear'`" if form.reads else "`identity_start=False`"
            raise ConfigError(
                f"`identity_start` needs an edit that can leave h as it is, `{self.label}` cannot; choose {remedy}"
            )
        return self

    @property
    def is_base_at_start(self) -> bool:
        return self.identity_start

    @property
    def shape(self) -> Form:
        """The form of the edit."""
        raise NotImplementedError

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        positions = Positions.parse(self.positions)
        for site in backbone.sites(["layer"], self.layers):
            check_rank(self.rank, site)
            for part in [slice(None)] if self.tied else positions.parts:
                yield site, Reft(site.d_out, self.shape, positions, part, self)


class Reft(OutputEdit):
    """h' = Phi(h) at the chosen tokens of the prompt, h' = h at all others; reckoned in fp32."""

    def __init__(self, width: int, form: Form, positions: Positions, part: slice, settings: ReftMethod) -> None:
        super().__init__()
        self.form, self.positions, self.part, self.settings = form, positions, part, settings
        self.basis = nn.Parameter(torch.empty(width, settings.rank))
        """What P is made of: itself, or a matrix whose orthonormal factor it is."""
        self.w = nn.Parameter(torch.empty(settings.rank, width)) if form.reads else None
        self.bias = nn.Parameter(torch.empty(settings.rank))
        """b, under the name by which transformers' trainer spares it weight decay."""
        self.act: Callable[[Tensor], Tensor] = ACTIVATIONS.get(settings.act, lambda x: x)
        self.dropout = nn.Dropout(settings.dropout)

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        """R^T uniform among matrices with orthonormal columns; W, W1, W2 and b as `nn.Linear` starts."""
        bound = len(self.basis) ** -0.5
        if self.form.orthonormal:
            nn.init.orthogonal_(self.basis, generator=generator)
        else:
            nn.init.uniform_(self.basis, -bound, bound, generator=generator)
        if self.w is None:
            nn.init.uniform_(self.bias, 0, 1, generator=generator)  # as the authors' code has it where b is alone
        else:
            nn.init.uniform_(self.w, -bound, bound, generator=generator)
            nn.init.uniform_(self.bias, -bound, bound, generator=generator)
        if self.settings.identity_start:
            self._start_as_base()

    @torch.no_grad()
    def _start_as_base(self) -> None:
        nn.init.zeros_(self.bias)
        if self.w is None:
            return
        if self.form.subtracts:
            self.w.copy_(self.p().mT)
        else:
            nn.init.zeros_(self.w if self.form.orthonormal else self.basis)

    def p(self) -> Tensor:
        """P = R^T or W2^T, (d, r), in fp32 or wider."""
        return orthonormal(self.basis) if self.form.orthonormal else _wide(self.basis)

    def forward(self, h: Tensor, context: Context) -> Tensor:
        if not context.sees_prompt:
            return h
        columns, counts = (each[:, self.part] for each in self.positions.columns(context, h))
        rows = torch.arange(len(h), device=h.device)[:, None]
        counts = counts[..., None]
        there = h[rows, columns].masked_fill(~counts, 0)  # what padding holds may be no number
        change = torch.where(counts, self.change(there), 0).to(h.dtype)
        return h.index_put((rows, columns), change, accumulate=True)  # what does not count adds 0 somewhere

    def change(self, h: Tensor) -> Tensor:
        """Phi(h) - h, (..., d), in fp32 under autocast too."""
        with torch.autocast(h.device.type, enabled=False):
            p = self.p()
            h, b = h.to(p.dtype), _wide(self.bias)
            aim = b if self.w is None else self.act(F.linear(h, _wide(self.w), b))
            if self.form.subtracts:
                aim = aim - h @ p
            change: Tensor = (aim @ p.mT).expand_as(h)
            drops_state = self.settings.dropout_on == "state"
            dropped: Tensor = self.dropout(h + change) - h if drops_state else self.dropout(change)
            return dropped

    def reachable_dimension(self) -> int:
        """Dimension of the maps h -> Phi(h): turning P, W and b alike changes nothing where all is linear.

        R^T b is any vector; R^T (b - R h) a subspace and a vector of it; each other form's affine map is one of rank
        r, r (2 d - r), with a vector of its range, r. A non-linearity leaves only what orthonormality takes.
        """
        d, r = self.basis.shape
        if self.w is None:
            return r * (d - r) + r if self.form.subtracts else d
        if self.settings.act == "linear":
            return r * (2 * d - r) + r
        return 2 * r * d + r - (r * (r + 1) // 2 if self.form.orthonormal else 0)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
