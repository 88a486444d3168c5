"""What an experiment asks of an engine: to look at a model, to probe and run jobs, wherever that may be.

An engine decides where and in what company a run takes place, never what it measures: nothing of it enters a spec, so
that records of one engine stand for those of another.
"""

from collections.abc import Callable
from typing import Protocol

from deltaproof.experiments.engines.slots import Slots
from deltaproof.experiments.jobs import Facts, Job, Probe, Question
from deltaproof.records.record import Record

OnProgress = Callable[[int, int, dict[str, float]], None]
"""Is told the step, the number of steps and named values."""
Say = Callable[[str], None]
"""Is told in words what the engine does that a user should know."""


def ignore(step: int, n_steps: int, values: dict[str, float]) -> None:
    """For errands whose progress nobody follows."""


class Stopped(Exception):  # noqa: N818 - somebody asked for it
    """The engine was stopped while the errand was under way."""


class Engine(Protocol):
    """Takes jobs to where they run. All but `start`, `open_slots` and `close` may be called from several threads."""

    def start(self) -> None:
        """Get ready while the caller does something else.

        Raises:
            DeltaproofError: the engine cannot work here.
        """

    def slots(self, device: str, n_workers: int | None) -> Slots:
        """How many runs side by side, and with how many threads each.

        Args:
            device: where runs take place, such as `cpu` or `cuda`.
            n_workers: what the plan wants; None leaves it to the engine.
        """

    def memory_bytes(self) -> float:
        """Host memory that runs on one machine, the largest of several, may fill together by what is foretold."""

    def workers_in_memory(self, peak_memory_bytes: int, most: int) -> int:
        """How many runs of such a peak, at least one and at most `most`, the memory holds at once."""

    def open_slots(self, n_workers: int) -> None:
        """Let so many jobs run at once from now on; to be called while none runs."""

    def look(self, question: Question) -> Facts:
        """What model, methods and machine are; raises the user's errors."""

    def probe(self, job: Job) -> Probe:
        """A few measured steps of the job; raises the user's errors."""

    def run(self, job: Job, on_progress: OnProgress = ignore) -> Record:
        """The job's record, which stands in the job's folder then, and its predictions and tuned model with it.

        A run that fails or does not fit into memory has a record too, of that status.

        Raises:
            DeltaproofError: what a user has to put right. Stopped: the engine was stopped.
        """

    def stop(self) -> None:
        """End every job under way; the threads that wait for them get `Stopped`."""

    def close(self) -> None:
        """Let go of what the engine holds, once no job is under way."""
