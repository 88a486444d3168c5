"""Curves of an experiment to a tracker."""

from typing import Any

from deltaproof.experiments.reporter import Reporter
from deltaproof.records.record import Record
from deltaproof.records.spec import Spec
from deltaproof.trackers import Tracker


class Tracking(Reporter):
    """One tracked run per run: loss and learning rate by step, validation scores, and the test scores at the end."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def planned(self, experiment: dict[str, Any]) -> None:
        self.tracker.start(experiment["name"], experiment["plan"])

    def progress(self, spec: Spec, step: int, n_steps: int, values: dict[str, float]) -> None:
        self.tracker.log(_name(spec), step, values)

    def run_ended(self, record: Record, from_disk: bool) -> None:
        if record.test and record.history and not from_disk:
            scores = {f"test_{name}": value for name, value in record.test.items()}
            self.tracker.log(_name(record.spec), record.history[-1]["step"], scores)

    def close(self) -> None:
        self.tracker.finish()


def _name(spec: Spec) -> str:
    return f"{spec.contestant} {spec.stage} lr={spec.training['learning_rate']:g} seed={spec.seed}"
