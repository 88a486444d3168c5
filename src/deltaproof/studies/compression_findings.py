"""What compressed models answer, held against the uncompressed ones: what is retained, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deltaproof.metrics import Metric, per_unit
from deltaproof.records.record import Predictions
from deltaproof.stats import Array, Comparison, compare, mean_interval

PRUNED, STC = "pruned", "global:auto"
"""Beside the ternary points the kept entries with their own values. One threshold and the mean of the kept magnitudes
for all tensors is what is called STC (Sattler et al., 2019, arXiv:1903.02891, as it is meant)."""
BEFORE, WITHOUT, BASE = "before", "without", "base"
"""The update as tuned; nothing of it but what is kept whole; nothing of it but the tuned head."""
Answers = Mapping[str, Sequence[Predictions]]
"""Of one contestant, by what stood in the model: one per kept model, in the order of their seeds."""


def retained(after: Array, before: Array) -> dict[str, float] | None:
    """Score after over score before, with a 95 % interval over seeds and examples.

    R = mean(after) / mean(before), and to first order R moves as mean(after - R before) / mean(before), whose values
    are paired by seed and example. None where there is nothing to retain.

    Args:
        after, before: (seeds, units).

    >>> before = np.array([[1.0, 1.0, 1.0, 0.0] * 25])
    >>> found = retained(before * np.array([1.0, 1.0, 0.0, 1.0] * 25), before)
    >>> round(found["mean"], 3), found["low"] < 0.667 < found["high"]
    (0.667, True)
    """
    whole = float(before.mean())
    if whole <= 0:
        return None
    ratio = float(after.mean()) / whole
    spread = mean_interval(after - ratio * before)
    half = (spread.high - spread.mean) / whole
    return {"mean": ratio, "low": ratio - half, "high": ratio + half}


def gain_retained(after: Array, before: Array, start: Array, sign: int) -> dict[str, float] | None:
    """Share of the gain over the start that is left; None where no gain is shown.

    A share of a gain that may be nothing says nothing.
    """
    gain = sign * (before - start)
    return None if mean_interval(gain).low <= 0 else retained(sign * (after - start), gain)


def of_contestant(
    metric: Metric, margin: float, alpha: float, answers: Answers, densities: Sequence[str], start: str
) -> dict[str, Any]:
    """Test scores, differences to the uncompressed models with verdicts, and what is retained, at each density.

    Args:
        answers: `before`, those at the ends, and those at each density.
        densities: which of them are of densities; the verdicts are corrected over these.
        start: which of them gains are counted from.
    """
    values = {name: np.stack([per_unit(metric, one) for one in found]) for name, found in answers.items()}
    scores = {
        name: [float(metric.score(one.targets, np.asarray(one.outputs))) for one in found]
        for name, found in answers.items()
    }
    sign = 1 if metric.higher_is_better else -1
    compared: dict[str, Comparison] = {}
    if densities:
        asked = {"before": values["before"], **{name: values[name] for name in densities}}
        compared = compare(asked, "before", margin, alpha, metric.higher_is_better, metric.unit)
    is_score = metric.higher_is_better
    return {
        "scores": scores,
        "intervals": {name: _interval(found) for name, found in values.items()},
        "gain": _interval(sign * (values["before"] - values[start])) if start in values else None,
        "densities": {
            name: {
                "difference": compared[name].difference, "low": compared[name].low, "high": compared[name].high,
                "verdict": compared[name].verdict, "note": compared[name].note, "n_seeds": compared[name].n_seeds,
                "n_units": compared[name].n_units,
                "retained": retained(values[name], values["before"]) if is_score else None,
                "gain_retained": gain_retained(values[name], values["before"], values[start], sign)
                if start in values else None,
            }
            for name in densities
        },
    }  # fmt: skip


def _interval(values: Array) -> dict[str, float]:
    found = mean_interval(values)
    return {"mean": found.mean, "low": found.low, "high": found.high}
