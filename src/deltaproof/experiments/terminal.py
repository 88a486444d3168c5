"""Progress on a terminal, or as plain lines where there is none."""

import sys
import time
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from deltaproof.experiments import wording
from deltaproof.experiments.announcement import announcement
from deltaproof.experiments.estimate import Estimate
from deltaproof.experiments.reporter import Reporter
from deltaproof.experiments.table import Table
from deltaproof.records.record import Record
from deltaproof.records.spec import Spec


class Terminal(Reporter):
    """A line per run on stderr; on a terminal bars too, with the time left for the whole and for the run at hand."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.console = Console(file=stream or sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._bars: _Bars | None = None

    def say(self, text: str) -> None:
        self.console.print(f"{text} …", style="dim")

    def planned(self, experiment: dict[str, Any]) -> None:
        self.console.print(announcement(experiment))
        if self.console.is_terminal:
            self._bars = _Bars(self.console, experiment["estimated_seconds"])

    def run_started(self, spec: Spec, estimate: Estimate) -> None:
        if self._bars is not None:
            self._bars.begin(_run_name(spec), _expected(spec, estimate))

    def progress(self, spec: Spec, step: int, n_steps: int, values: dict[str, float]) -> None:
        if self._bars is not None:
            self._bars.step(step, n_steps, values.get("train_loss"))

    def run_ended(self, record: Record, estimate: Estimate, from_disk: bool) -> None:
        took = "from disk" if from_disk else wording.duration(record.seconds)
        self.console.print(f"{_run_name(record.spec)}: {_result(record)}, {took}")
        if self._bars is not None:
            self._bars.end(_expected(record.spec, estimate), None if from_disk else record.seconds)

    def finished(self, table: Table) -> None:
        self.close()
        told, came = table.experiment["estimated_seconds"], table.experiment["measured_seconds"]
        if told and came:
            error = f"{came / told - 1:+.0%}".replace("%", " %").replace("-", "−")
            self.console.print(
                f"trainings took {wording.duration(came)}, estimated were {wording.duration(told)} ({error})\n"
            )

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class _Bars:
    """Two bars at the bottom of the terminal. They vanish when the experiment ends."""

    def __init__(self, console: Console, estimated_seconds: float) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            transient=True,
        )
        self._whole: TaskID = self._progress.add_task("whole experiment", total=max(estimated_seconds, 1.0), left="")
        self._run: TaskID = self._progress.add_task("", total=1, left="")
        self._total, self._done, self._pace = estimated_seconds, 0.0, 1.0
        self._started = time.monotonic()
        self._expected, self._loss = 0.0, float("nan")
        self._progress.start()

    def begin(self, name: str, expected_seconds: float) -> None:
        self._started, self._expected = time.monotonic(), expected_seconds
        self._progress.update(self._run, description=name, completed=0, total=1, left="")

    def step(self, step: int, n_steps: int, loss: float | None) -> None:
        self._loss = self._loss if loss is None else loss
        elapsed = time.monotonic() - self._started
        left = wording.duration(elapsed / step * (n_steps - step))
        self._progress.update(
            self._run, completed=step, total=n_steps, left=f"{left} left, training loss {self._loss:.3f}"
        )
        self._show_whole(self._done + min(elapsed, self._expected))

    def end(self, expected_seconds: float, seconds: float | None) -> None:
        """A run has ended after `seconds`; None for one that was read from disk, which says nothing about the pace."""
        self._done += expected_seconds
        if seconds is not None and expected_seconds > 0:
            self._pace = 0.8 * self._pace + 0.2 * seconds / expected_seconds
        self._show_whole(self._done)

    def _show_whole(self, done: float) -> None:
        left = wording.duration(max(0.0, self._total - done) * self._pace)
        self._progress.update(self._whole, completed=done, left=f"{left} left")

    def stop(self) -> None:
        self._progress.stop()


def _expected(spec: Spec, estimate: Estimate) -> float:
    return estimate.final_seconds if spec.stage == "final" else estimate.trial_seconds


def _run_name(spec: Spec) -> str:
    if spec.stage == "tuning":
        return f"{spec.contestant}, learning rate {spec.training['learning_rate']:g}"
    return f"{spec.contestant}, seed {spec.seed}"


def _result(record: Record) -> str:
    scores, split = (record.test, "test") if record.test else (record.validation, "validation")
    if record.status != "done" or not scores:
        return record.status.replace("_", " ")
    name = record.spec.task["metrics"][0]
    return f"{split} {name.replace('_', ' ')} {scores[name]:.4f}"
