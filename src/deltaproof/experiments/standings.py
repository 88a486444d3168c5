"""What every contestant reached and cost, and what can be said of it, as data."""

from dataclasses import asdict, dataclass
from typing import Any

from deltaproof.experiments.gates import Gate
from deltaproof.experiments.recommendation import Recommendation
from deltaproof.experiments.row import Row
from deltaproof.metrics import Metric


@dataclass(frozen=True)
class Standings:
    """The result of an experiment, however it is shown."""

    metric: Metric
    reference: str
    margin: float
    alpha: float
    rows: tuple[Row, ...]
    baselines: tuple[Row, ...]
    recommendation: Recommendation
    gates: tuple[Gate, ...]
    experiment: dict[str, Any]
    """What stands in `experiment.json`."""
    folder: str

    def row(self, name: str) -> Row:
        for row in (*self.rows, *self.baselines):
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def failures(self) -> list[str]:
        """Contestants that an error of the program ended, each with it; divergence and want of memory are results."""
        return [f"{row.name}: {row.error}" for row in self.rows if row.status == "failed"]

    @property
    def is_gate_failed(self) -> bool:
        return any(not gate.holds for gate in self.gates)

    def to_json(self) -> dict[str, Any]:
        """Plain data: what `--json` prints."""
        return {
            "metric": self.metric.name,
            "higher_is_better": self.metric.higher_is_better,
            "reference": self.reference,
            "margin": self.margin,
            "alpha": self.alpha,
            "recommendation": self.recommendation.sentence,
            "recommended": self.recommendation.name,
            "recommendation_basis": self.recommendation.basis,
            "methods": [row.to_json(self.metric) for row in self.rows],
            "baselines": [row.to_json(self.metric) for row in self.baselines],
            "gates": [asdict(gate) for gate in self.gates],
            "data": self.experiment["data"],
            "model": self.experiment["model"],
            "folder": self.folder,
        }
