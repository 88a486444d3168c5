"""Who is told how an experiment goes: nobody, a terminal, a tracker."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from deltaproof.experiments import wording
from deltaproof.experiments.estimate import Estimate
from deltaproof.metrics import METRICS
from deltaproof.records.record import Record
from deltaproof.records.spec import Spec


class Reporter:
    """Is told what happens; does nothing with it."""

    def say(self, text: str) -> None:
        """A sentence about what is being done."""

    def planned(self, experiment: dict[str, Any]) -> None:
        """The estimate stands; training is about to begin."""

    def run_started(self, spec: Spec, estimate: Estimate) -> None:
        """A run begins, or is read from disk."""

    def progress(self, spec: Spec, step: int, n_steps: int, values: dict[str, float]) -> None:
        """A run has taken a step."""

    def run_ended(self, record: Record) -> None:
        """A run's record stands."""

    def finished(self, table: Any) -> None:
        """The experiment is over, or the dry run is."""


Silent = Reporter


class Several(Reporter):
    """Tells several reporters."""

    def __init__(self, *reporters: Reporter) -> None:
        self.reporters = reporters

    def say(self, text: str) -> None:
        for reporter in self.reporters:
            reporter.say(text)

    def planned(self, experiment: dict[str, Any]) -> None:
        for reporter in self.reporters:
            reporter.planned(experiment)

    def run_started(self, spec: Spec, estimate: Estimate) -> None:
        for reporter in self.reporters:
            reporter.run_started(spec, estimate)

    def progress(self, spec: Spec, step: int, n_steps: int, values: dict[str, float]) -> None:
        for reporter in self.reporters:
            reporter.progress(spec, step, n_steps, values)

    def run_ended(self, record: Record) -> None:
        for reporter in self.reporters:
            reporter.run_ended(record)

    def finished(self, table: Any) -> None:
        for reporter in self.reporters:
            reporter.finished(table)


class Tracking(Reporter):
    """Sends the curves to a tracker."""

    def __init__(self, tracker: Any) -> None:
        self.tracker = tracker

    def planned(self, experiment: dict[str, Any]) -> None:
        self.tracker.start(experiment["name"], experiment["plan"])

    def progress(self, spec: Spec, step: int, n_steps: int, values: dict[str, float]) -> None:
        self.tracker.log(f"{spec.contestant} {spec.stage} lr={spec.training['learning_rate']:g} seed={spec.seed}", step, values)

    def run_ended(self, record: Record) -> None:
        name = f"{record.spec.contestant} {record.spec.stage} lr={record.spec.training['learning_rate']:g} seed={record.spec.seed}"
        if record.test and record.history:
            self.tracker.log(name, record.history[-1]["step"], {f"test_{key}": value for key, value in record.test.items()})

    def finished(self, table: Any) -> None:
        self.tracker.finish()


class Terminal(Reporter):
    """Bars with the time left, for the whole experiment and for the run at hand, on stderr; plain lines where it is no terminal."""

    def __init__(self, stream: Any = None) -> None:
        self.console = Console(file=stream or sys.stderr, highlight=False)
        self.is_live = self.console.is_terminal
        self.bars: Progress | None = None
        self._whole: TaskID | None = None
        self._run: TaskID | None = None
        self._done = self._total = 0.0
        self._pace = 1.0
        self._started = 0.0
        self._expected = 0.0
        self._last: dict[str, float] = {}

    def say(self, text: str) -> None:
        if self.bars is None:
            self.console.print(f"[dim]{text} …[/dim]" if self.is_live else f"{text} …", markup=self.is_live)

    def planned(self, experiment: dict[str, Any]) -> None:
        self.console.print(plan_text(experiment), markup=False)
        self._total = experiment["estimated_seconds"]
        self.bars = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TextColumn("{task.fields[left]}", markup=False),
            console=self.console, transient=True, disable=not self.is_live,
        )  # fmt: skip
        self._whole = self.bars.add_task("whole experiment", total=max(self._total, 1.0), left="")
        self._run = self.bars.add_task("", total=1, left="")
        self.bars.start()

    def run_started(self, spec: Spec, estimate: Estimate) -> None:
        self._started = time.monotonic()
        self._expected = estimate.final_seconds if spec.stage == "final" else estimate.trial_seconds
        if self.bars is not None and self._run is not None:
            self.bars.update(self._run, description=_run_name(spec), completed=0, total=1, left="")

    def progress(self, spec: Spec, step: int, n_steps: int, values: dict[str, float]) -> None:
        self._last |= values
        if not self.is_live or self.bars is None or self._whole is None or self._run is None:
            return
        elapsed = time.monotonic() - self._started
        left = elapsed / step * (n_steps - step)
        shown = f"{wording.duration(left)} left, loss {self._last.get('train_loss', float('nan')):.3f}"
        self.bars.update(self._run, completed=step, total=n_steps, left=shown)
        done = self._done + min(elapsed, self._expected)
        remaining = max(0.0, self._total - done) * self._pace
        self.bars.update(self._whole, completed=done, left=f"{wording.duration(remaining)} left")

    def run_ended(self, record: Record) -> None:
        took = time.monotonic() - self._started
        self._done += self._expected
        if took > 0.2 * self._expected and self._expected > 0:  # not one that was read from disk
            self._pace = 0.8 * self._pace + 0.2 * took / self._expected
        scores = record.test or record.validation
        split = "test" if record.test else "validation"
        result = f"{split} {next(iter(scores))} {next(iter(scores.values())):.4f}" if scores else record.status.replace("_", " ")
        line = f"{_run_name(record.spec)}: {result}, {wording.duration(took)}"
        self.console.print(line, markup=False)

    def finished(self, table: Any) -> None:
        if self.bars is not None:
            self.bars.stop()


def _run_name(spec: Spec) -> str:
    rate = f"{spec.training['learning_rate']:g}"
    return f"{spec.contestant}, learning rate {rate}" if spec.stage == "tuning" else f"{spec.contestant}, seed {spec.seed}"


def plan_text(experiment: dict[str, Any]) -> str:
    """What will be done and how long it will take, in a few lines."""
    data, plan, rows = experiment["data"], experiment["plan"], experiment["data"]["rows"]
    n_runs = len(experiment["contestants"]) * (plan["trials"] + plan["seeds"])
    task = experiment["task"]
    lines = [
        f"model     {experiment['model']['name']} ({wording.count(experiment['model']['n_parameters'])} parameters)",
        f"data      {data['name']}: {rows['train']} rows to train, {rows['validation']} to choose on, {rows['test']} sealed to test on",
        f"question  is any contestant as good as {experiment['reference']}, within {wording.amount(experiment['margin'], _unit(task))} of {task['metrics'][0]}?",
        f"protocol  {plan['trials']} learning rates each, chosen on validation; then {plan['seeds']} seeds each; {n_runs} trainings",
        f"machine   {experiment['device']}, {experiment['precision']}",
    ]
    if data["truncated_fraction"]:
        lines.append(f"note      {wording.share(data['truncated_fraction'])} of the rows are longer than {task['max_length']} tokens and were cut")
    lines += [f"note      {note}" for note in (*data["notes"], *experiment["model"]["notes"])]
    width = max(len(entry["name"]) for entry in experiment["contestants"])
    lines.append("estimate  " + "contestant".ljust(max(width, 10)) + "      time   memory  trainable")
    for entry in experiment["contestants"]:
        estimate = entry["estimate"]
        memory = wording.size(estimate["peak_device_memory_bytes"] or estimate["peak_memory_bytes"])
        fits = "" if estimate["fits"] else "  does not fit into memory"
        lines.append(
            f"          {entry['name'].ljust(max(width, 10))} {wording.duration(estimate['seconds']):>10} {memory:>8} "
            f"{wording.count(estimate['n_trainable']):>10}{fits}"
        )
    lines.append(f"          in all about {wording.duration(experiment['estimated_seconds'])}")
    return "\n".join(lines)


def _unit(task: dict[str, Any]) -> str:


    return METRICS[task["metrics"][0]].unit
