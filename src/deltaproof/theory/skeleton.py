"""Roles and layers of a checkpoint's tensors by name, read off its configuration: no weight is loaded for it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from deltaproof.backbones.locate import base_path
from deltaproof.backbones.sites import Site
from deltaproof.errors import DeltaproofError
from deltaproof.methods.counting import backbone_without_weights

_TWICE = ("attention_norm", "ffn_norm")
"""Roles that name again what has the role `norm`."""


@dataclass(frozen=True)
class Skeleton:
    """Sites by module, below the base model's prefix: `bert.encoder…` and `encoder…` are one name here."""

    prefix: str = ""
    """Name of the base model inside of the whole, such as `bert`."""
    sites: dict[str, list[Site]] = field(default_factory=dict)
    """By path without the prefix; several where roles share a weight."""

    def short(self, name: str) -> str:
        """A tensor's or module's name without the prefix, and in today's words for a norm's weight and bias."""
        name = name.removeprefix(f"{self.prefix}.") if self.prefix else name
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")

    def sites_of(self, name: str) -> list[Site]:
        """The sites whose weight or bias has this short name."""
        path, _, last = name.rpartition(".")
        return self.sites.get(path, []) if last in ("weight", "bias") else []


def skeleton_of_model(model: nn.Module, sites: Iterable[Site]) -> Skeleton:
    """Of a model whose sites are known."""
    skeleton = Skeleton(base_path(model))
    for site in sites:
        if site.has_weight and site.role not in _TWICE:
            skeleton.sites.setdefault(skeleton.short(site.path), []).append(site)
    return skeleton


def skeleton_of(folder: Path) -> Skeleton | None:
    """Of a folder with config.json: the model is built without memory for its weights.

    None where transformers has no such classifier or its parts cannot be found; code that comes with a model is
    never run.
    """
    try:
        backbone = backbone_without_weights(folder)
    except (DeltaproofError, ValueError, OSError, KeyError, AttributeError, ImportError, RuntimeError):
        return None
    return skeleton_of_model(backbone.model, backbone.all_sites)
