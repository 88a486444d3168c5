"""Roles and layers of a checkpoint's tensors by name, read off its configuration: no weight is loaded for it."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from deltaproof.backbones.head import modules_on_top
from deltaproof.backbones.load import family_of
from deltaproof.backbones.locate import base_path, find_sites
from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.sites import Site
from deltaproof.errors import DeltaproofError

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


def skeleton_of_model(model: nn.Module, sites: tuple[Site, ...] | list[Site]) -> Skeleton:
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
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        with quiet(), torch.device("meta"):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        family, _ = family_of(model)
        return skeleton_of_model(model, find_sites(model, family, modules_on_top(model)))
    except (DeltaproofError, ValueError, OSError, KeyError, AttributeError, ImportError, RuntimeError):
        return None
