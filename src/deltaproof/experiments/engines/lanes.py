"""The engine of lanes: runs of one model and data set that are asked for together train over one base.

What cannot be a lane is run by the local engine, which this one is otherwise.
"""

import contextlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from deltaproof.experiments.engines.engine import OnProgress, Say, Stopped, ignore
from deltaproof.experiments.engines.local import LocalEngine
from deltaproof.experiments.jobs import Job, LaneReport, LaneRequest
from deltaproof.experiments.memory_plan import n_fitting
from deltaproof.records.record import Record
from deltaproof.records.store import Store

GATHER_SECONDS = 0.3
"""How long a run waits for others to go beside it: contestants ask for theirs at the same moment."""
MOST = 16
"""Lanes of one process, whatever memory there is: the gain has levelled off then, and a crash takes fewer along."""


_Company: TypeAlias = tuple[tuple[str, ...], int]
"""Contestants that go side by side, sorted, and how many seeds they are of."""


@dataclass(eq=False)
class _Ticket:
    """A run that waits for its turn."""

    job: Job
    on_progress: OnProgress
    is_taken: bool = False
    over: threading.Event = field(default_factory=threading.Event)


class LanesEngine(LocalEngine):
    """Runs jobs side by side in one process where they can be; may be called from several threads.

    Args:
        may_decline: run them alone where a few measured steps say that lanes gain too little.
        say: is told what was measured and chosen.
        memory: bytes that runs may fill together; a share of what is free when left out.
    """

    def __init__(self, may_decline: bool, say: Say, memory: int | None = None) -> None:
        super().__init__(memory=memory)
        self.may_decline, self.say = may_decline, say
        self._waiting: list[_Ticket] = []
        self._taking = threading.Lock()
        self._n_busy = 0
        self._chosen: dict[_Company, int] = {}
        """How many in one pass were found the fastest; 0 where alone was as fast."""
        self._told: set[str] = set()

    def run(self, job: Job, on_progress: OnProgress = ignore) -> Record:
        if (reason := why_no_lane(job)) is not None:
            self._say_once(f"{job.spec.contestant} goes alone: {reason}")
            return super().run(job, on_progress)
        ticket = _Ticket(job, on_progress)
        with self._taking:
            self._waiting.append(ticket)
        time.sleep(GATHER_SECONDS)
        while not ticket.over.is_set():
            if self._is_stopped:
                raise Stopped
            if not ticket.is_taken and self._queue.acquire(timeout=0.1):
                try:
                    self._take_turn(ticket)
                finally:
                    self._queue.release()
            ticket.over.wait(0.1)
        if self._is_stopped:
            raise Stopped
        found = Store(job.folder).find(job.spec.key)
        return found if found is not None and found.status != "failed" else super().run(job, on_progress)

    def _take_turn(self, ticket: _Ticket) -> None:
        """Start what goes with the run at the head of the queue, once a slot is free."""
        if not self._slots.acquire(timeout=0.1):
            return
        slots = self._slots
        group = self._group_of(ticket)
        if len(group) < 2:
            slots.release()
            for each in group:
                each.over.set()
            return
        self._n_busy += 1

        def work() -> None:
            try:
                with contextlib.suppress(Stopped):  # those who wait for these runs find out for themselves
                    self._run_group(group)
            finally:
                with self._taking:
                    self._n_busy -= 1
                slots.release()
                for each in group:
                    each.over.set()

        threading.Thread(target=work, daemon=True).start()

    def _group_of(self, ticket: _Ticket) -> list[_Ticket]:
        """The run and what waits and can go beside it: a fair share for each free slot."""
        with self._taking:
            if ticket.is_taken:
                return []
            key = _common(ticket.job)
            fitting = [other for other in self._waiting if _common(other.job) == key]
            fitting.sort(key=lambda other: _rank(other.job))
            n_free = max(1, self._n_slots - self._n_busy)
            share = min(MOST, -(-len(fitting) // n_free))
            first = min(fitting.index(ticket) // share * share, max(0, len(fitting) - share))
            group = fitting[first : first + share]
            # those that share most with the run come first, where memory does not hold all at a time
            group.sort(key=lambda other: (other is not ticket, other.job.spec.seed != ticket.job.spec.seed))
            while len(group) > 1 and self._n_at_a_time(group) == 1:
                group.pop()
            for taken in group:
                taken.is_taken = True
                self._waiting.remove(taken)
            return group

    @property
    def _memory_of_a_group(self) -> float:
        return self.memory_bytes() / self._n_slots

    def _n_at_a_time(self, group: Sequence[_Ticket]) -> int:
        """How many of a group train at a time, while the others wait for a place."""
        return n_fitting([ticket.job for ticket in group], self._memory_of_a_group)

    def _run_group(self, group: Sequence[_Ticket]) -> None:
        names = tuple(sorted(ticket.job.spec.contestant for ticket in group))
        company = names, len({ticket.job.spec.seed for ticket in group})
        chosen = self._chosen.get(company)
        if chosen == 0:
            return
        by_key = {ticket.job.spec.key: ticket for ticket in group}
        request = LaneRequest(
            tuple(ticket.job for ticket in group),
            chosen,
            places=self._n_at_a_time(group),
            memory_bytes=self._memory_of_a_group,
            may_decline=self.may_decline,
        )

        def told(key: str, step: int, n_steps: int, values: dict[str, float]) -> None:
            by_key[key].on_progress(step, n_steps, values)

        kind, value = self._supervised("lanes", request, told)
        if kind == "result":
            self._note(names, value)
            if value.gain is not None:
                self._chosen[company] = value.side_by_side
        elif not self._is_stopped:
            cause = str(value).strip().splitlines()[-1] if value else kind  # of a traceback, the error itself
            self.say(f"lanes of {', '.join(names)} ended early ({cause}); what is open of them is run alone")

    def _say_once(self, text: str) -> None:
        with self._taking:
            is_new = text not in self._told
            self._told.add(text)
        if is_new:
            self.say(text)

    def _note(self, names: tuple[str, ...], report: LaneReport) -> None:
        if report.gain is not None:
            self.say(said_of(names, report))
        for reason in sorted({reason for _, reason in report.alone}) if report.n_lanes or report.gain is None else ():
            self.say(f"{sum(why == reason for _, why in report.alone)} of {len(names)} runs go alone: {reason}")


def why_no_lane(job: Job) -> str | None:
    """Why its settings keep a run from being a lane; None where they do not."""
    if job.restore:
        return "it is trained again, for the bits that it had"
    if job.spec.training["precision"] == "fp16":
        return "fp16 scales the loss of each run in its own way"
    if job.spec.training["gradient_checkpointing"]:
        return "what gradient checkpointing computes again cannot be split among lanes"
    if job.spec.training.get("feature_extraction", False):
        return "with feature extraction a run keeps features for itself"
    return None


def _common(job: Job) -> str:
    """What lanes must have in common: all but the seed that decides which rows they see."""
    spec = asdict(job.spec)
    training = {key: value for key, value in spec["training"].items() if key != "learning_rate"}
    facts = [spec["model"], spec["task"], spec["data"], training, spec["stage"]]
    return json.dumps([*facts, job.device, str(job.folder), job.trust_remote_code], sort_keys=True)


def _rank(job: Job) -> tuple[int, str, float]:
    """Runs of one seed stand together: they share most."""
    return job.spec.seed, job.spec.contestant, job.spec.training["learning_rate"]


def said_of(names: Sequence[str], report: LaneReport) -> str:
    """What was measured and chosen, in a sentence."""
    counted = ", ".join(f"{names.count(name)} of {name}" for name in dict.fromkeys(names))
    chosen = f"{report.n_lanes} lanes, {report.side_by_side} in one pass" if report.n_lanes else "each alone"
    return f"a step in lanes is {report.gain:.2f} times as fast as alone ({counted}): {chosen}"
