"""How far tuning moved the answers, measured; and how far the capacity theorem says that it may have.

Per kept model and validation example: |f(x) - f0(x)| of the logits, f0 being the base under the same head; per layer
the relative change of its output; the theorem's bound and how tight it is; and how steep base and tuned model are where
the example lies, which is what a largest slope over all inputs stands in for.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.errors import BackboneError, ConfigError
from deltaproof.methods.tuned import Tuned
from deltaproof.robustness.local_lipschitz import LocalLipschitz, local_lipschitz
from deltaproof.seeding import generator
from deltaproof.stats import mean_interval
from deltaproof.studies.kept_models import Bed, KeptModel, kept_models
from deltaproof.studies.movement import Displacement, measure_displacement
from deltaproof.studies.quantiles import QUANTILES
from deltaproof.studies.same_head import SAME_HEAD, base_with_head, below_the_head
from deltaproof.tasks.text import Encoded
from deltaproof.theory.bounds import Reach
from deltaproof.theory.chains import FORMALLY, Chain, sizes_of_changes
from deltaproof.theory.in_memory import deltas_of

Say = Callable[[str], None]
N_LIPSCHITZ = 32
"""Examples at which slopes are measured: each costs a backward pass per logit."""
MANY_LOGITS, N_ITERATIONS = 16, 10
"""Above so many logits, the slope comes from power iteration in place of the whole Jacobian."""


def log10_bounds(
    tuned: Tuned, base: Backbone, moved: Displacement, known: dict[str, float]
) -> tuple[np.ndarray, list[str]]:
    """The theorem's bound for each example, as log10, and the names of changes that it leaves out.

    Raises:
        ConfigError: the method is no change of weights, so the theorem does not speak of it.
    """
    if not tuned.mergeable:
        raise ConfigError(
            f"`{tuned.method.label}` changes more than weights, of which alone the theorem speaks; its displacement is "
            f"measured"
        )
    changes = sizes_of_changes(deltas_of(tuned, below_the_head(base)))
    n_layers = sum(site.role == "layer" for site in base.all_sites)
    blocks, missing = Chain(base, known).changed(changes, max(1, moved.layers.shape[1] // max(1, n_layers)))
    return Reach.at(moved.size, moved.shift).past(blocks).log10_shift, missing


def displacement(
    bed: Bed, contestants: Sequence[str] = (), seed: int = 0, say: Say = lambda text: None
) -> dict[str, Any]:
    """Measured displacement, bound and local slopes of every kept model, on the validation rows.

    Args:
        seed: which examples the slopes are measured at.
    Raises:
        RecordError: nothing was kept.
    """
    by_label: dict[str, list[dict[str, Any]]] = {}
    known: dict[str, float] = {}
    n_rows = len(bed.dataset.validation)
    chosen = torch.randperm(n_rows, generator=generator(seed, "displacement"))[:N_LIPSCHITZ].sort().values.numpy()
    models = kept_models(bed.store, contestants)
    for kept in models:
        say(f"how far {kept.label}, seed {kept.seed}, moved from the base")
        by_label.setdefault(kept.label, []).append(_of_one(bed, kept, chosen, known))
    return {
        "format": 1,
        "n_examples": n_rows,
        "head": SAME_HEAD,
        "bound": FORMALLY,
        "quantiles": list(QUANTILES),
        "n_lipschitz_examples": len(chosen),
        "methods": [_summary(label, found) for label, found in by_label.items()],
    }


def _of_one(bed: Bed, kept: KeptModel, chosen: np.ndarray, known: dict[str, float]) -> dict[str, Any]:
    tuned, task = kept.load()
    base = base_with_head(kept)
    tuned.to(bed.device)
    encoded = task.encode(tuned.backbone.tokenizer, bed.dataset.validation)
    pad, batch_size = tuned.backbone.tokenizer.pad_token_id, 2 * kept.record.spec.training["batch_size"]
    moved = measure_displacement(tuned, base, encoded, pad, batch_size)
    found: dict[str, Any] = {"key": kept.key, "moved": moved, "bounds": None, "missing": [], "why_no_bound": ""}
    try:
        found["bounds"], found["missing"] = log10_bounds(tuned, base, moved, known)
    except ConfigError as error:
        found["why_no_bound"] = str(error)
    few = encoded.take(chosen)
    for name, model in (("tuned", tuned), ("base", base.model)):
        found[name] = _slopes(model, few, pad, task.n_outputs)
    return found


def _slopes(model: nn.Module, few: Encoded, pad_token_id: int, n_outputs: int) -> LocalLipschitz | None:
    """None for a model without a token embedding (CANINE hashes characters)."""
    n_iterations = N_ITERATIONS if n_outputs > MANY_LOGITS else None
    try:
        return local_lipschitz(model, few, pad_token_id, n_iterations=n_iterations, batch_size=8)
    except BackboneError:
        return None


def _summary(label: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One contestant over its seeds."""
    moved: list[Displacement] = [each["moved"] for each in found]
    logits = np.stack([each.logits for each in moved])
    relative = np.stack([each.logits / np.maximum(each.base_logits, np.finfo(float).tiny) for each in moved])
    interval = mean_interval(logits)
    return {
        "label": label,
        "keys": [each["key"] for each in found],
        "displacement": {
            "mean": interval.mean, "low": max(0.0, interval.low), "high": interval.high,
            "by_seed": logits.mean(axis=1).tolist(), "quantiles": np.quantile(logits, QUANTILES).tolist(),
        },
        "relative_displacement": float(np.median(relative)),
        "layers": np.stack([each.layers for each in moved]).mean(axis=(0, 1)).tolist(),
        "bound": _bound(found, logits),
        "why_no_bound": next((each["why_no_bound"] for each in found if each["why_no_bound"]), ""),
        "not_in_bound": sorted({name for each in found for name in each["missing"]}),
        "slopes": _slope_summary(found),
    }  # fmt: skip


def _bound(found: Sequence[dict[str, Any]], logits: np.ndarray) -> dict[str, Any] | None:
    """Medians over seeds and examples; None where there is no bound, or nothing moved and it says zero."""
    if any(each["bounds"] is None for each in found):
        return None
    bounds = np.stack([each["bounds"] for each in found])
    if not (np.isfinite(bounds).all() and (logits > 0).all()):
        return None
    tightness = np.log10(logits) - bounds
    return {
        "log10": float(np.median(bounds)),
        "log10_low": float(bounds.min()),
        "log10_high": float(bounds.max()),
        "log10_tightness": float(np.median(tightness)),
        "log10_tightness_high": float(tightness.max()),
    }


def _slope_summary(found: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Local Lipschitz constants and margin / (sqrt(2) constant) of both models, at the same examples."""
    if any(each[name] is None for each in found for name in ("tuned", "base")):
        return None
    result: dict[str, Any] = {}
    for name in ("tuned", "base"):
        each: list[LocalLipschitz] = [entry[name] for entry in found]
        result[name] = {
            "lipschitz": _quantiles([one.lipschitz for one in each]),
            "radius": _quantiles([one.radius for one in each]),
            "relative_radius": _quantiles([one.relative_radius for one in each]),
        }
    ratios = [entry["tuned"].lipschitz / entry["base"].lipschitz for entry in found]
    result["ratio"] = _quantiles(ratios)
    return result


def _quantiles(values: Sequence[np.ndarray]) -> list[float] | None:
    """At QUANTILES over seeds and examples; None where there is no margin, or a model is flat."""
    joined = np.concatenate(list(values))
    return [float(value) for value in np.quantile(joined, QUANTILES)] if np.isfinite(joined).all() else None
