"""A record is what one run measured: frozen, JSON, readable without torch."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from deltaproof.errors import RecordError
from deltaproof.records.spec import Spec

Status = Literal["done", "diverged", "out_of_memory", "failed"]
Measurements = dict[str, float | list[float]]
"""Numbers by name, or lists with one number per layer, `…_by_layer`. `…_fraction` is a share in 0..1."""


@dataclass(frozen=True)
class Cost:
    """What a run took; None where it was not measured."""

    n_trainable: int
    """Parameters that training may change, the head included."""
    n_total: int
    """Parameters of the model with the method attached."""
    reachable_dimension: int
    """Dimension of the set of models that training can reach: r (m + n - r) for a rank-r update of m x n."""
    train_seconds: float
    examples_per_second: float
    train_flops: float
    """Floating-point operations of the whole training, counted on one batch and scaled by tokens."""
    stored_bytes: int
    """What one more task adds on disk."""
    peak_memory_bytes: int | None = None
    """Host memory: peak of the run's own process minus what it held before the model was loaded."""
    peak_device_memory_bytes: int | None = None
    """Accelerator memory allocated at the peak."""
    latency_seconds: float | None = None
    """Median time to answer one example with the method attached."""
    merged_latency_seconds: float | None = None
    """The same after merging into the base weights; None for a method that cannot be merged."""


@dataclass(frozen=True)
class Record:
    """What one run measured. A run that diverged or did not fit is a result too."""

    spec: Spec
    status: Status
    validation: dict[str, float] = field(default_factory=dict)
    """Metric to score on the validation split, at the checkpoint that was kept."""
    test: dict[str, float] = field(default_factory=dict)
    """Metric to score on the sealed test split; empty but for final runs."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry per evaluation: epoch, step, train_loss, learning_rate and validation scores."""
    cost: Cost | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions of libraries, hardware, precision in force."""
    notes: list[str] = field(default_factory=list)
    """What the run had to do that a reader should know, such as halving its micro-batch."""
    error: str | None = None
    started: str = ""
    """UTC, ISO 8601."""
    seconds: float = 0.0
    """Wall time of the whole run, loading and evaluation included."""
    measurements: Measurements = field(default_factory=dict)
    """What the method asked to have measured on the validation split; `base_…`: the same before it was attached."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Record":
        try:
            spec = Spec(**{**data["spec"], "parents": tuple(data["spec"]["parents"])})
            cost = Cost(**data["cost"]) if data.get("cost") else None
            return cls(**{**data, "spec": spec, "cost": cost})
        except (KeyError, TypeError) as error:
            raise RecordError(
                f"a record needs the fields of this version, got {error}; run the experiment anew"
            ) from None


@dataclass(frozen=True)
class Predictions:
    """What one run answered for each example of a split."""

    ids: list[str]
    groups: list[str] | None
    """Examples with one group name belong together; None where each stands alone."""
    targets: np.ndarray
    """(n, 1) class index or value; (n, labels) of 0 and 1 for multi-label."""
    outputs: np.ndarray
    """(n, classes) probabilities; (n, 1) value; (n, labels) probabilities for multi-label."""
