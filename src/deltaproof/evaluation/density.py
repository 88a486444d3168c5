"""How many units of the feed-forward blocks are active, and what work a kernel that skips zeros would save.

Nothing here is a timing: zeros strewn over a matrix make no dense product faster (`benchmarks/density.py` measures it).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.evaluation.predict import autocast, in_evaluation
from deltaproof.methods.context import Context
from deltaproof.methods.density import activation_sites, real_tokens
from deltaproof.tasks.batches import evaluation_batches
from deltaproof.tasks.text import Encoded, collate

THRESHOLD = 0.01
"""Magnitude above which an activation counts as large; ours: what GELU makes of an input of -2.7 and below is less."""


@dataclass(frozen=True)
class Density:
    """Shares of active units, each the mean over real tokens of an example, then over examples."""

    exact: tuple[float, ...]
    """Per layer: the share that is not zero (-0 is zero), in the precision of the run."""
    above: tuple[float, ...]
    """Per layer: the share whose magnitude is above `threshold`."""
    threshold: float
    skippable: float
    """Share of the feed-forward blocks' multiplications that the zeros make needless: the second matrix's, and in gated
    blocks also those of the map that the zero is multiplied with, if the gate is reckoned first."""

    @property
    def mean_exact(self) -> float:
        return float(np.mean(self.exact))

    @property
    def mean_above(self) -> float:
        return float(np.mean(self.above))

    def to_json(self) -> dict[str, float | list[float]]:
        """By the names that records use."""
        above = f"activations_above_{self.threshold:g}"
        return {
            "activation_density_fraction": self.mean_exact,
            f"{above}_fraction": self.mean_above,
            "skippable_feed_forward_fraction": self.skippable,
            "activation_density_by_layer": list(self.exact),
            f"{above}_by_layer": list(self.above),
        }


@torch.inference_mode()
def activation_density(
    model: nn.Module, backbone: Backbone, encoded: Encoded, batch_size: int = 64, precision: str = "fp32",
    threshold: float = THRESHOLD,
) -> Density:  # fmt: skip
    """The density of every feed-forward block's non-linearity on these rows; in gated blocks before the product.

    Args:
        model: a `Tuned`, or the plain model: what is called.
        backbone: whose sites are watched.
    Raises:
        ConfigError: this model's non-linearities cannot be watched.
    """
    sites = activation_sites(backbone)

    def measure(size: int, device: torch.device) -> list[np.ndarray]:
        watched = [Watched(backbone.module(site), threshold) for site in sites]
        reader = Context()
        handles: list[Any] = [
            top.register_forward_pre_hook(lambda _, inputs, arguments: reader.read(arguments), with_kwargs=True)
            for top in dict.fromkeys((model, backbone.model))
        ]
        handles += [one.module.register_forward_hook(one.hook(reader)) for one in watched]
        try:
            for rows in evaluation_batches(encoded.lengths, size):
                batch = collate(encoded, rows, backbone.tokenizer.pad_token_id)
                with autocast(device, precision):
                    model(**{key: value.to(device) for key, value in batch.items()})
        finally:
            for handle in handles:
                handle.remove()
        return [one.shares() for one in watched]

    shares = in_evaluation(model, batch_size, measure)
    exact = tuple(float(share[0]) for share in shares)
    above = tuple(float(share[1]) for share in shares)
    return Density(exact, above, threshold, _skippable(backbone, exact))


class Watched:
    """One non-linearity and what was seen of it."""

    def __init__(self, module: nn.Module, threshold: float) -> None:
        self.module, self.threshold = module, threshold
        self.sums: list[Tensor] = []
        self.n_examples = 0

    def hook(self, reader: Context) -> Any:
        def see(module: nn.Module, inputs: Any, o: Tensor) -> None:
            real = real_tokens(o, reader)
            active = torch.stack([(o != 0).sum(-1), (o.abs() > self.threshold).sum(-1)]).view(2, *real.shape)
            shares = (active * real).sum(-1).double() / (real.sum(-1).clamp(min=1) * o.shape[-1])
            self.sums.append(shares.sum(-1))
            self.n_examples += len(real)

        return see

    def shares(self) -> np.ndarray:
        """(2,): exact, above the threshold."""
        return np.asarray(torch.stack(self.sums).sum(0).cpu()) / self.n_examples


def _skippable(backbone: Backbone, density: tuple[float, ...]) -> float:
    """Multiplications that zeros make needless over all that the feed-forward blocks have."""
    saved = total = 0.0
    for site, share in zip(activation_sites(backbone), density, strict=True):
        sizes = {
            other.role: other.d_in * other.d_out
            for other in backbone.all_sites
            if other.layer == site.layer and other.role in ("ffn_in", "ffn_gate", "ffn_out")
        }
        total += sum(sizes.values())
        saved += (1 - share) * (sizes.get("ffn_out", 0) + (sizes.get("ffn_gate", 0) if "ffn_in" in sizes else 0))
    return saved / max(1.0, total)
