"""Progress on a terminal, or as plain lines where there is none."""

import sys
import time
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from deltaproof.experiments import wording
from deltaproof.experiments.announcement import announcement
from deltaproof.experiments.reporter import Reporter
from deltaproof.experiments.table import Table
from deltaproof.records.record import Record
from deltaproof.records.spec import Spec


class Terminal(Reporter):
    """A line per run on stderr; on a terminal bars too, with the time left for the whole and for each run under way."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.console = Console(file=stream or sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._bars: _Bars | None = None

    def say(self, text: str) -> None:
        self.console.print(f"{text} …", style="dim")

    def planned(self, experiment: dict[str, Any]) -> None:
        self.console.print(announcement(experiment))
        if self.console.is_terminal:
            self._bars = _Bars(self.console, experiment)

    def progress(self, spec: Spec, step: int, n_steps: int, values: dict[str, float]) -> None:
        if self._bars is not None:
            self._bars.step(spec, step, n_steps, values.get("train_loss"))

    def run_ended(self, record: Record, from_disk: bool) -> None:
        took = "from disk" if from_disk else wording.duration(record.seconds)
        self.console.print(f"{_run_name(record.spec)}: {_result(record)}, {took}")
        if self._bars is not None:
            self._bars.end(record.spec, None if from_disk else record.seconds)

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
    """Bars at the bottom of the terminal: the whole experiment, and each run under way. They vanish at the end."""

    def __init__(self, console: Console, experiment: dict[str, Any]) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            transient=True,
        )
        self._estimates = {entry["name"]: entry["estimate"] for entry in experiment["contestants"]}
        self._total = sum(estimate["seconds"] for estimate in self._estimates.values())
        self._share = experiment["estimated_seconds"] / max(self._total, 1e-9)
        """Wall time per second of a run, below 1 where runs go side by side."""
        self._whole = self._progress.add_task("whole experiment", total=max(self._total, 1.0), left="")
        self._runs: dict[str, tuple[TaskID, float]] = {}
        self._done, self._pace = 0.0, 1.0
        self._progress.start()

    def step(self, spec: Spec, step: int, n_steps: int, loss: float | None) -> None:
        if spec.key not in self._runs:
            self._runs[spec.key] = self._progress.add_task(_run_name(spec), total=n_steps, left=""), time.monotonic()
        task, started = self._runs[spec.key]
        left = wording.duration((time.monotonic() - started) / step * (n_steps - step))
        shown = f"{left} left" if loss is None else f"{left} left, training loss {loss:.3f}"
        self._progress.update(task, completed=step, left=shown)
        self._show_whole()

    def end(self, spec: Spec, seconds: float | None) -> None:
        """A run has ended after `seconds`; None for one that was read from disk, which says nothing about the pace."""
        if spec.key in self._runs:
            self._progress.remove_task(self._runs.pop(spec.key)[0])
        expected = self._expected(spec)
        self._done += expected
        if seconds is not None and expected > 0:
            self._pace = 0.8 * self._pace + 0.2 * seconds / expected
        self._show_whole()

    def _expected(self, spec: Spec) -> float:
        """Seconds that the run was estimated to take."""
        if spec.stage == "rung":
            return 0.0  # part of a trial, which counts as a whole when it ends
        kind = "final_seconds" if spec.stage == "final" else "trial_seconds"
        return float(self._estimates[spec.contestant][kind])

    def _show_whole(self) -> None:
        left = wording.duration(max(0.0, self._total - self._done) * self._share * self._pace)
        self._progress.update(self._whole, completed=self._done, left=f"{left} left")

    def stop(self) -> None:
        self._progress.stop()


def _run_name(spec: Spec) -> str:
    if spec.stage in ("tuning", "rung"):
        part = f", to step {spec.training['rung_step']}" if spec.stage == "rung" else ""
        return f"{spec.contestant}, learning rate {spec.training['learning_rate']:g}{part}"
    return f"{spec.contestant}, seed {spec.seed}"


def _result(record: Record) -> str:
    scores, split = (record.test, "test") if record.test else (record.validation, "validation")
    if record.status != "done" or not scores:
        return record.status.replace("_", " ")
    name = record.spec.task["metrics"][0]
    return f"{split} {name.replace('_', ' ')} {scores[name]:.4f}"
