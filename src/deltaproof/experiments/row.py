"""One line of the answer: what a contestant reached and what it cost."""

from dataclasses import dataclass, field
from typing import Any

from deltaproof.metrics import Metric
from deltaproof.records.record import Measurements
from deltaproof.stats import Comparison, Interval

COST_FIELDS = (
    "n_trainable",
    "n_total",
    "reachable_dimension",
    "train_seconds",
    "examples_per_second",
    "train_flops",
    "stored_bytes",
    "peak_memory_bytes",
    "peak_device_memory_bytes",
    "latency_seconds",
    "merged_latency_seconds",
)


@dataclass(frozen=True)
class Row:
    """One contestant or baseline."""

    name: str
    status: str
    """`done`; or how it ended: `diverged`, `out_of_memory`, `failed`; or `missing` while its runs are not all there."""
    scores: dict[str, Interval] = field(default_factory=dict)
    """Metric to mean over seeds and units, with its 95 % interval."""
    comparison: Comparison | None = None
    """Against the reference, on the deciding metric."""
    cost: dict[str, float | None] = field(default_factory=dict)
    """Mean over the final runs."""
    measurements: Measurements = field(default_factory=dict)
    """What the method asked to have measured, mean over the final runs."""
    learning_rate: float | None = None
    at_edge: bool = False
    """Whether the chosen learning rate is the lowest or highest of those tried, so that a better one may lie beyond."""
    keys: tuple[str, ...] = ()
    """Records of the final runs, in the order of their seeds."""
    notes: tuple[str, ...] = ()
    error: str = ""
    """Why it did not come through, in a line; the whole stands in the record."""

    @property
    def verdict(self) -> str | None:
        return self.comparison.verdict if self.comparison else None

    def to_json(self, metric: Metric) -> dict[str, Any]:
        """Plain data, with `metric` as the one that decides."""
        main = self.scores.get(metric.name)
        comparison = self.comparison
        return {
            "name": self.name,
            "status": self.status,
            "mean": main.mean if main else None,
            "low": main.low if main else None,
            "high": main.high if main else None,
            "verdict": self.verdict,
            "note": comparison.note if comparison else "",
            "difference": comparison.difference if comparison else None,
            "difference_low": comparison.low if comparison else None,
            "difference_high": comparison.high if comparison else None,
            "p_difference": comparison.p_difference_holm if comparison else None,
            "p_equivalence": comparison.p_equivalence_holm if comparison else None,
            "detectable_difference": comparison.detectable_difference if comparison else None,
            "shown_margin": comparison.shown_margin if comparison else None,
            "n_seeds": len(self.keys),
            "learning_rate": self.learning_rate,
            "learning_rate_at_edge": self.at_edge,
            "scores": {name: interval.mean for name, interval in self.scores.items()},
            "cost": self.cost,
            "measurements": self.measurements,
            "notes": list(self.notes),
            "error": self.error,
        }
