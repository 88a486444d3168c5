"""Where an edit can go: one role's weight in one layer, also where a model fuses or transposes weights."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class Site:
    """One role's weight: the module that holds it, and its rows where several roles share that module.

    An embedding is the linear map of one-hot tokens, so its `d_in` counts tokens and it is stored transposed.
    A norm, an activation, an attention and a layer have `d_in == d_out`, their width.
    """

    path: str
    """Dotted path of the module in the model."""
    role: str
    layer: int | None
    """Which layer, from 0; None outside of the layers (embeddings, last norm, head)."""
    d_in: int
    d_out: int
    rows: tuple[int, int] | None = None
    """First row and the row after the last, in (out, in) orientation; None: the whole weight."""
    transposed: bool = False
    """Whether the module stores (in, out), as GPT-2's `Conv1D` does."""
    stack: Literal["encoder", "decoder"] = "encoder"
    attention: Literal["self", "cross"] = "self"

    @property
    def has_weight(self) -> bool:
        return self.role not in WITHOUT_WEIGHT

    @property
    def name(self) -> str:
        """Unique and stable: the path, with the role in brackets where roles share the module."""
        return self.path if self.rows is None else f"{self.path}[{self.role}]"


WITHOUT_WEIGHT = ("layer", "attention", "activation")
"""Roles of places that hold no weight of their own."""


def weight_of(module: nn.Module, site: Site) -> Tensor:
    """The site's part of its module's weight, as a view: writing into it (under `no_grad`) changes the module.

    Args:
        module: the module at `site.path`.
    Returns:
        (d_out, d_in), however the module stores it; for a norm (d_out,).
    """
    weight = module.weight
    assert isinstance(weight, Tensor)
    return _rows(weight.T if site.transposed else weight, site)


def bias_of(module: nn.Module, site: Site) -> Tensor | None:
    """The site's part of its module's bias, (d_out,), as a view; None where the module has none."""
    bias = getattr(module, "bias", None)
    return _rows(bias, site) if isinstance(bias, Tensor) else None


def _rows(tensor: Tensor, site: Site) -> Tensor:
    return tensor if site.rows is None else tensor[site.rows[0] : site.rows[1]]
