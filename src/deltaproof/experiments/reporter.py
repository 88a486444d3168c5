"""Who is told how an experiment goes; a reporter of your own is a subclass."""

from typing import TYPE_CHECKING, Any

from deltaproof.records.record import Record
from deltaproof.records.spec import Spec

if TYPE_CHECKING:
    from deltaproof.experiments.table import Table


class Reporter:
    """Is told what happens, and does nothing with it."""

    def say(self, text: str) -> None:
        """A few words about what is being done now."""

    def planned(self, experiment: dict[str, Any]) -> None:
        """The estimate stands; training is about to begin."""

    def progress(self, spec: Spec, step: int, n_steps: int, values: dict[str, float]) -> None:
        """A run has taken a step; runs may go side by side."""

    def run_ended(self, record: Record, from_disk: bool) -> None:
        """A run's record stands; `from_disk` if it stood there before."""

    def finished(self, table: "Table") -> None:
        """The experiment has come to its end."""

    def close(self) -> None:
        """Nothing more will come, whether the experiment ended well or not."""


class Several(Reporter):
    """Tells several reporters, one after the other."""

    def __init__(self, *reporters: Reporter) -> None:
        self.reporters = reporters

    def say(self, text: str) -> None:
        for reporter in self.reporters:
            reporter.say(text)

    def planned(self, experiment: dict[str, Any]) -> None:
        for reporter in self.reporters:
            reporter.planned(experiment)

    def progress(self, spec: Spec, step: int, n_steps: int, values: dict[str, float]) -> None:
        for reporter in self.reporters:
            reporter.progress(spec, step, n_steps, values)

    def run_ended(self, record: Record, from_disk: bool) -> None:
        for reporter in self.reporters:
            reporter.run_ended(record, from_disk)

    def finished(self, table: "Table") -> None:
        for reporter in self.reporters:
            reporter.finished(table)

    def close(self) -> None:
        for reporter in self.reporters:
            reporter.close()
