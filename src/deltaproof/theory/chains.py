"""A transformer read as the chain of maps that the capacity theorem speaks of.

Formally: the theorem needs layers with a largest slope, and a transformer has none, since neither attention (Kim et
al., 2021, arXiv:2006.04710) nor the division of a norm is Lipschitz on all inputs. Here a block is its linear maps one
after another, 1 + L M with the stream beside them; attention's averaging and a norm's division count 1. What comes out
is the theorem's right-hand side with this model's numbers in it, and no guarantee.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.locate import is_linear, is_norm
from deltaproof.backbones.roles import ATTENTION, FFN
from deltaproof.backbones.sites import Site, bias_of, weight_of
from deltaproof.methods.ssf import unit_of
from deltaproof.theory.bounds import STEEPEST, Block, Map, activation_lipschitz
from deltaproof.theory.deltas import Deltas
from deltaproof.theory.skeleton import skeleton_of_model
from deltaproof.theory.spectra import spectrum, spectrum_of_factors

FORMALLY = (
    "the theorem's right-hand side with this model's spectral norms: attention's softmax and the norms have no largest "
    "slope and count as 1, so it is evaluated formally and guarantees nothing; it bounds how far the answer moves, for "
    "full fine-tuning as for any other change of weights, and says nothing of what a method can express"
)


@torch.no_grad()
def sizes_of_changes(deltas: Deltas) -> dict[str, float]:
    """By name: the spectral norm of a matrix's change, the length of a bias's, the largest entry of a norm's gain's."""
    sizes = {}
    for name, delta in deltas.items():
        if not bool(delta.change.any()):
            continue
        if not delta.is_matrix:
            is_gain = delta.role == "norm" and name.endswith("weight")
            sizes[name] = float(delta.change.abs().max() if is_gain else delta.change.double().norm())
        else:
            factors = delta.factors
            sizes[name] = (spectrum(delta.change) if factors is None else spectrum_of_factors(*factors)).norm_2
    return sizes


class Chain:
    """The base's blocks; `changed` puts the sizes of an update beside those of the base."""

    def __init__(self, base: Backbone, known: dict[str, float] | None = None) -> None:
        """`known` takes up sizes inside of the layers: bases that differ in their heads alone may share one."""
        self.base = base
        self.skeleton = skeleton_of_model(base.model, base.all_sites)
        self._known = {} if known is None else known

    def changed(self, changes: Mapping[str, float], n_passes: int = 1) -> tuple[list[Block], list[str]]:
        """The blocks from the first layer's input to the logits, and the changes that have no place among them.

        Args:
            changes: from `sizes_of_changes`. Changes before the first layer are no part of the chain, but of how far
                its input moved.
            n_passes: how often the model goes through its layers (ALBERT repeats one).
        """
        placed: set[str] = set()

        def step(path: str, site: Site | None = None) -> Map:
            return self._step(path, site, changes, placed)

        layers = [block for layer in self._layers() for block in self._blocks_of(layer, step)]
        tail = [Block((step(path),)) for path in self._tail()]
        missing = sorted(name for name in changes if name not in placed and not self._is_before_the_layers(name))
        return [*layers * n_passes, *tail], missing

    def _layers(self) -> list[int]:
        return sorted({site.layer for site in self.base.all_sites if site.layer is not None})

    def _blocks_of(self, layer: int, step: Callable[..., Map]) -> list[Block]:
        """Attention and feed-forward block, the norm in front of each, or behind its sum in a post-norm model."""
        here = {site.role: site for site in self.base.all_sites if site.layer == layer}
        norms = [site for site in self.base.all_sites if site.layer == layer and site.role == "norm"]
        is_post = "attention_norm" in here
        half = len(norms) // 2
        blocks = []
        for roles, own, role in ((ATTENTION, norms[:half], "attention_norm"), (FFN, norms[half:], "ffn_norm")):
            before = () if is_post else tuple(step(site.path) for site in own)
            maps = tuple(step(here[role].path, here[role]) for role in roles if role in here)
            blocks.append(Block((*before, *maps), self._slope(here, roles), is_residual=True))
            if is_post and role in here:
                blocks.append(Block((step(here[role].path),)))
        return blocks

    def _slope(self, here: Mapping[str, Site], roles: tuple[str, ...]) -> float:
        if roles != FFN:
            return 1.0
        if "activation" not in here:
            return STEEPEST
        activation: Any = self.base.module(here["activation"])
        return self._once(here["activation"].path, lambda: activation_lipschitz(activation))

    def _tail(self) -> list[str]:
        """Norms and linear maps behind the layers: the last norm, a pooler, the head."""
        model = self.base.model
        inside = tuple(site.path for site in self.base.all_sites if site.role == "layer")
        paths = [path for path, module in model.named_modules() if is_linear(module) or is_norm(module)]
        outside = [path for path in paths if not path.startswith(inside)]
        return [path for path in outside if not self._is_before_the_layers(self.skeleton.short(path))]

    @staticmethod
    def _is_before_the_layers(name: str) -> bool:
        return any("embed" in part or part in ("wte", "wpe") for part in name.lower().split("."))

    def _step(self, path: str, site: Site | None, changes: Mapping[str, float], placed: set[str]) -> Map:
        module = self.base.module(path)
        ending = f"[{site.role}]" if site is not None and site.rows else ""
        names = [self.skeleton.short(f"{path}.{part}") + ending for part in ("weight", "bias")]
        placed.update(names)
        weight, bias = self._weight(module, site), self._bias(module, site)
        size = _size(module, weight) if site is None else self._once(names[0], lambda: _size(module, weight))
        length = 0.0 if bias is None else float(bias.double().norm())
        return Map(size, changes.get(names[0], 0.0), length, changes.get(names[1], 0.0))

    @staticmethod
    def _weight(module: nn.Module, site: Site | None) -> Tensor:
        weight = module.weight if site is None else weight_of(module, site)
        assert isinstance(weight, Tensor)
        return weight.detach()

    @staticmethod
    def _bias(module: nn.Module, site: Site | None) -> Tensor | None:
        bias = getattr(module, "bias", None) if site is None else bias_of(module, site)
        return bias.detach() if isinstance(bias, Tensor) else None

    def _once(self, name: str, measure: Callable[[], float]) -> float:
        if name not in self._known:
            self._known[name] = measure()
        return self._known[name]


@torch.no_grad()
def _size(module: nn.Module, weight: Tensor) -> float:
    """Spectral norm of a map, or the largest gain of a norm, whose matrix is diagonal."""
    if weight.ndim == 1:
        return float((weight + unit_of(module)).abs().max())
    return spectrum(weight).norm_2
