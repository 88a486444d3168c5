"""What `deltaproof scale` stores, from planted curves: the fits are the study's own, the scores are invented."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from deltaproof.fits import crossover, growth, power_law
from deltaproof.stats import mean_interval

SIZES = (64, 256, 1024, 4096, 16384)
PER_RANK = 1_000


def parameters_study(
    level: Callable[[float], float],
    ranks: Sequence[int] = (1, 2, 4, 8, 16, 32),
    others: dict[str, float] | None = None,
    metric: str = "accuracy",
    at_edge: Sequence[int] = (),
    noise: float = 0.0,
) -> dict[str, Any]:
    """A sweep over ranks whose mean score at p trained parameters is `level(p)`."""
    curve = {float(PER_RANK * rank): _scores(level(PER_RANK * rank), noise, rank) for rank in ranks}
    points = [
        {"rank": rank, "label": f"lora(rank={rank})", "n_trained": float(PER_RANK * rank),
         **_point(curve[float(PER_RANK * rank)], 1e-3 / rank**0.5, rank in at_edge)}
        for rank in ranks
    ]  # fmt: skip
    return {
        "format": 1, "by": "parameters", "metric": metric, "method": "lora", "points": points,
        "others": [{"label": name, **_point(_scores(mean, noise, 90 + at), 1e-4, False)}
                   for at, (name, mean) in enumerate((others or {}).items())],
        "growth": asdict(growth(curve)) if len(curve) > 2 else None,
    }  # fmt: skip


def examples_study(
    levels: dict[str, Callable[[float], float]],
    sizes: Sequence[int] = SIZES,
    reference: str = "full",
    metric: str = "accuracy",
    noise: float = 0.0,
    at_edge: Sequence[tuple[str, int]] = (),
) -> dict[str, Any]:
    """A sweep over sizes whose mean score with n examples is each method's `level(n)`."""
    curves = {
        name: {float(n): _scores(level(n), noise, at) for n in sizes} for at, (name, level) in enumerate(levels.items())
    }
    methods = [
        {
            "label": name,
            "points": [
                {"n_examples": int(n), **_point(curve[n], 1e-3, (name, int(n)) in at_edge)} for n in sorted(curve)
            ],
            "power_law": asdict(power_law(curve, n_draws=20)) if metric == "accuracy" and len(sizes) > 3 else None,
            "growth": asdict(growth(curve)) if len(sizes) > 2 else None,
        }
        for name, curve in curves.items()
    ]
    crossovers = [
        {"one": one, "other": other, **asdict(crossover({one: curves[one], other: curves[other]}, n_draws=50))}
        for one, other in combinations(curves, 2)
        if reference in (one, other)
    ]
    return {
        "format": 1, "by": "examples", "equal": "epochs", "metric": metric, "methods": methods, "crossovers": crossovers
    }  # fmt: skip


def _scores(level: float, noise: float, seed: int) -> np.ndarray:
    """(seeds, units) with exactly this mean, and units that differ by as much as `noise` asks."""
    wobble = np.random.default_rng(seed).normal(size=(3, 80)) * noise
    return np.full((3, 80), level) + wobble - wobble.mean()


def _point(scores: np.ndarray, rate: float, is_edge: bool) -> dict[str, Any]:
    found = mean_interval(scores)
    return {
        "mean": found.mean, "low": found.low, "high": found.high, "learning_rate": rate, "at_edge": is_edge,
        "keys": ["0123456789abcdef"] * len(scores),
    }  # fmt: skip
