"""Runs in lanes: several jobs of one model and data set, trained side by side over one copy of the base."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from torch import nn

from deltaproof.backbones.sharing import move_together, own, sharing_copy, started_from
from deltaproof.experiments.environment import environment
from deltaproof.experiments.jobs import Job, LaneReport, LaneRequest, Probe
from deltaproof.experiments.memory_plan import most_in_one_pass, predicted_bytes
from deltaproof.experiments.run import Ground, Trained, attached, before_attaching, ground_for, measure, run_on
from deltaproof.memory import PeakMemory, free_device_bytes
from deltaproof.methods.edits import ModelEdit, WeightEdit
from deltaproof.methods.tuned import Tuned
from deltaproof.records.record import Measurements
from deltaproof.records.store import Store
from deltaproof.tasks.batches import epoch_batches
from deltaproof.tasks.text import padded
from deltaproof.training.lanes.together import Lanes, why_alone, why_none
from deltaproof.training.lanes.trial import Trial, try_lanes
from deltaproof.training.loop import Run, go
from deltaproof.training.precision import pick_device

WORTH = 1.05
"""Lanes that are hardly faster than runs alone are not taken where there is a choice: alone, a run's peak memory is its
own, and a crash takes nobody along."""
SIZES = (1, 4)
"""How many lanes in one pass are tried where as many as memory holds gain little."""
USUAL = 0.75
"""Share of the batches of which as many lanes go through in one pass as are the fastest for a middling one."""
ASTRAY = "its gradient in lanes is not its own"
NOTE = "trained in lanes beside others: its seconds are its share of the time, its memory that of its probe, alone"

LaneProgress = Callable[[str, int, int, dict[str, float]], None]
"""Called with the run's key, the steps taken, the steps there are, and values by name."""


@dataclass(eq=False)
class _Lane:
    """One of the jobs, ready to be trained."""

    job: Job
    run: Run
    before: Measurements
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def run_lanes(request: LaneRequest, progress: LaneProgress = lambda key, step, n_steps, values: None) -> LaneReport:
    """Train and score what can be trained side by side, store the records, and say what has to be run alone.

    A batch is taken both ways first: a run whose gradient is not the one it has alone is left out, and where the
    number of lanes is open, so is everything if lanes do not pay.
    """
    store, clock = Store(request.jobs[0].folder), time.perf_counter()
    with ExitStack() as locks:
        for key in sorted(job.spec.key for job in request.jobs):
            locks.enter_context(store.lock(key))
        jobs = [job for job in request.jobs if _is_open(store, job)]
        if len(jobs) < 2:
            return LaneReport(tuple((job.spec.key, "it is the only one") for job in jobs))
        memory = PeakMemory(pick_device(jobs[0].device))
        device_bytes = free_device_bytes(pick_device(jobs[0].device))
        ground = ground_for(jobs[0], store)
        lanes, alone = _ready(jobs, ground, store, progress)
        if len(lanes) < 2:
            return LaneReport((*alone, *((lane.job.spec.key, "no other goes beside it") for lane in lanes)))
        usual, widest = _widths(ground)
        share, places = usual / widest, min(request.places or len(lanes), len(lanes))
        all_jobs, first, waiting = [lane.job for lane in lanes], lanes[:places], lanes[places:]
        most = most_in_one_pass(all_jobs, request.memory_bytes, device_bytes, share, places)
        wanted = min(most, request.side_by_side or most)
        together = Lanes(ground.backbone, [lane.run.tuned for lane in first], wanted, usual)
        trial = _tried(together, first, request, most)
        strays = [first[at] for at in trial.strays]
        strays += _astray_later(ground, [lane for lane in first if lane not in strays], waiting, together)
        alone += [(lane.job.spec.key, ASTRAY) for lane in strays]
        fit, waiting = ([lane for lane in some if lane not in strays] for some in (first, waiting))
        if len(fit) + len(waiting) < 2:
            left = [(lane.job.spec.key, "no other goes beside it") for lane in (*fit, *waiting)]
            return LaneReport((*alone, *left))
        gain = trial.gain if trial.seconds else None
        if request.may_decline and gain is not None and gain < WORTH:
            alone += [(lane.job.spec.key, "lanes do not pay here") for lane in (*fit, *waiting)]
            return LaneReport(tuple(alone), gain=gain)
        if trial.seconds:
            together.side_by_side = min(trial.side_by_side, places)
        facts = {
            "lanes": min(places, len(fit) + len(waiting)),
            "seeds": sorted({lane.job.spec.seed for lane in (*fit, *waiting)}),
            "side_by_side": together.side_by_side,
            "gain": gain,
            "predicted_memory_bytes": predicted_bytes(all_jobs, together.side_by_side, share, places),
        }
        seconds_each = (time.perf_counter() - clock) / (len(fit) + len(waiting))
        finish = _Finish(ground, store, (*fit, *waiting), facts, memory, seconds_each)
        _train(together, fit, waiting, places, finish)
        n_lanes = len(fit) + len(waiting)
        return LaneReport(
            tuple(alone), n_lanes, together.side_by_side, gain, memory.host_bytes(), memory.device_bytes()
        )


def _is_open(store: Store, job: Job) -> bool:
    found = store.find(job.spec.key)
    return found is None or found.status == "failed"


def _ready(
    jobs: Sequence[Job], ground: Ground, store: Store, progress: LaneProgress
) -> tuple[list[_Lane], list[tuple[str, str]]]:
    """The jobs that can be lanes, each with a model of its own over the ground's weights, and why others cannot."""
    found, alone, nobody = [], [], why_none(ground.backbone)
    starts = {seed: started_from(ground.backbone, seed) for seed in {job.spec.seed for job in jobs}}
    for job in jobs:
        start = starts[job.spec.seed]
        # each on a copy: what is moved for a moment would leave the storage that it shares
        before = before_attaching(job.spec, store, replace(ground, backbone=sharing_copy(start)))
        tuned = attached(job.spec, store, sharing_copy(start))
        if (reason := nobody or why_alone(ground.backbone, tuned)) is None:
            own(parameter for parameter in tuned.backbone.model.parameters() if parameter.requires_grad)
            found.append((job, tuned, before))
        else:
            alone.append((job.spec.key, reason))
    move_together(ground.backbone.model, [tuned for _, tuned, _ in found], ground.accelerator.device)
    lanes = []
    for job, tuned, before in found:

        def told(step: int, n_steps: int, values: dict[str, float], key: str = job.spec.key) -> None:
            progress(key, step, n_steps, values)

        lanes.append(_Lane(job, run_on(ground, tuned, job, store, told), before))
    return lanes, alone


def _widths(ground: Ground) -> tuple[int, int]:
    """The usual width of batches, up to which all lanes of a pass go through it, and that of the widest."""
    lengths, most = ground.train_rows.lengths, ground.task.max_length
    batches = epoch_batches(lengths, ground.settings.batch_size, 0, 0)
    widths = np.array([padded(int(lengths[rows].max()), most) for rows in batches])
    return int(np.quantile(widths, USUAL, method="higher")), int(widths.max())


def _tried(together: Lanes, lanes: Sequence[_Lane], request: LaneRequest, most: int) -> Trial:
    """A batch both ways; timed where it is open how many go through in one pass, at most `most`."""
    runs = [lane.run for lane in lanes]
    rows_of = _typical_rows(runs)
    if request.side_by_side is not None:
        return try_lanes(together, runs, rows_of, (together.side_by_side,), is_timed=False)
    of_one_seed = max(Counter(run.seed for run in runs).values())  # in passes of so many nothing is filled up
    sizes = [most, *(n for n in (of_one_seed, *SIZES) if n < most)]
    return try_lanes(together, runs, rows_of, tuple(dict.fromkeys(sizes)), is_timed=True)


def _typical_rows(runs: Sequence[Run]) -> list[np.ndarray]:
    """A batch of middling length; where seeds differ one for each, as unlike in length as their batches will be."""
    lengths, size = runs[0].train_rows.lengths, runs[0].settings.batch_size
    by_length = np.argsort(lengths, kind="stable")
    seeds = sorted({run.seed for run in runs})
    starts = [max(0, len(lengths) - size) * (2 * number + 1) // (2 * len(seeds)) for number in range(len(seeds))]
    batches = {seed: by_length[start : start + size] for seed, start in zip(seeds, starts, strict=True)}
    return [batches[run.seed] for run in runs]


def _astray_later(ground: Ground, fit: Sequence[_Lane], waiting: Sequence[_Lane], together: Lanes) -> list[_Lane]:
    """Those that are to enter later, and the one beside whom they are tried, whose gradient then is not their own.

    Tried before anything begins, some at a time, as what is under way must not be disturbed.
    """
    strays: list[_Lane] = []
    size = max(1, len(together.tuned) - 1)
    for at in range(0, len(waiting), size):
        some = [*fit[:1], *waiting[at : at + size]]
        lanes = Lanes(ground.backbone, [lane.run.tuned for lane in some], together.side_by_side, together.usual_width)
        runs = [lane.run for lane in some]
        found = try_lanes(lanes, runs, _typical_rows(runs), (lanes.side_by_side,), is_timed=False).strays
        strays += [some[number] for number in found]
    return strays


def _train(together: Lanes, fit: Sequence[_Lane], waiting: Sequence[_Lane], places: int, finish: "_Finish") -> None:
    """Train them, each from where it stands: at its first step, or after a kill further on.

    Args:
        together: the lanes that have been tried, `fit` among them.
        waiting: enter one by one where a place is free.
        places: how many there are.
    """
    to_come = deque(waiting)
    live = [lane.run for lane in fit]
    stop_after = (*fit, *waiting)[0].job.spec.training.get("rung_step")  # trials rest there to be compared
    for run in live:
        run.begin()
    while live or to_come:
        if to_come and len(live) < places:
            entering = [to_come.popleft() for _ in range(min(places - len(live), len(to_come)))]
            tuned = [*(run.tuned for run in live), *(lane.run.tuned for lane in entering)]
            together = Lanes(finish.ground.backbone, tuned, together.side_by_side, together.usual_width)
            for lane in entering:
                lane.run.begin()
                live.append(lane.run)
        under_way, live = live, go(live, together, finish, stop_after, until_one_ends=bool(to_come)) if live else []
        for run in under_way:
            if run not in live:
                finish.once(run)


def _merged_into(tuned: Tuned) -> Iterator[nn.Parameter]:
    """The parameters that merging changes."""
    for site, edit in tuned.placed():
        if isinstance(edit, ModelEdit):
            yield from tuned.backbone.model.parameters()
        elif isinstance(edit, WeightEdit) and site is not None:
            yield from tuned.backbone.module(site).parameters(recurse=False)


class _Finish:
    """Measures a lane that is over, as a run of its own is measured, and stores its record."""

    def __init__(
        self, ground: Ground, store: Store, lanes: Sequence[_Lane], facts: dict[str, Any], memory: PeakMemory,
        seconds_each: float,
    ) -> None:  # fmt: skip
        self.ground, self.store, self.facts, self.memory = ground, store, facts, memory
        self.by_run = {id(lane.run): lane for lane in lanes}
        self.facts["contestants"] = [lane.job.spec.contestant for lane in lanes]
        self.seconds_each = seconds_each
        """A lane's share of what went before the first step."""

    def once(self, run: Run) -> None:
        """For a run that rests and has not come to its end."""
        if id(run) in self.by_run:
            self(run)

    def __call__(self, run: Run) -> None:
        lane, clock = self.by_run.pop(id(run)), time.perf_counter()
        job, tuned = lane.job, run.tuned
        if job.spec.stage == "final" and tuned.mergeable:  # it is merged to be measured, which changes weights
            own(parameter for parameter in _merged_into(tuned) if not parameter.requires_grad)
        made = Trained(self.ground, tuned.method, tuned, run.outcome, lane.before)
        probe = job.probe or Probe()
        record, predictions = measure(
            job, self.store, made, probe.peak_memory_bytes or None, probe.peak_device_memory_bytes
        )
        seconds = self.seconds_each + run.outcome.train_seconds + run.outcome.evaluation_seconds
        lanes = {**self.facts, "peak_memory_bytes": self.memory.host_bytes()}
        record = replace(
            record,
            started=lane.started,
            seconds=seconds + time.perf_counter() - clock,
            environment={**environment(), "lanes": lanes},
            notes=[*record.notes, NOTE],
        )
        self.store.write(record, predictions)
        if run.checkpoint is not None and job.begins is None:
            run.checkpoint.clear()
        self._let_go(run)

    @staticmethod
    def _let_go(run: Run) -> None:
        """Free what only this lane held: others go on beside it, and its model may still be one of the lanes."""
        run.optimizer.state.clear()
        run.best.values.clear()
        for parameter in run.tuned.parameters():
            parameter.data = parameter.data.new_empty(0)
