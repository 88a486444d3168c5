"""The tuning trials of one contestant: each to its end, or to a rung first and on from there only if it may win."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from deltaproof.experiments.halving import Dropped, Rung, Standing, dropped
from deltaproof.experiments.wording import duration
from deltaproof.metrics import Metric, per_unit
from deltaproof.records.record import Record
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store, read_predictions

RunOne = Callable[[Spec, str | None], Record]
"""The record of a run; the key names the run that it is the beginning of, if it is one."""
SideBySide = Callable[[Callable[[float], Record], list[float]], list[Record]]


@dataclass(frozen=True)
class Trial:
    """How one learning rate did."""

    record: Record
    """Of the whole run; of its first part where it was stopped, diverged or ran out of memory there."""
    stopped: Dropped | None = None


class Trials:
    """Runs trials of one contestant; with a rung, all of a batch rest there and are compared, earlier ones included."""

    def __init__(
        self, spec_at: Callable[[float], Spec], run_one: RunOne, find: Callable[[Spec], Record | None],
        side_by_side: SideBySide, store: Store, metric: Metric, rung: Rung | None, risk: float, n_trials: int,
    ) -> None:  # fmt: skip
        self._spec_at, self._run_one, self._find, self._side_by_side = spec_at, run_one, find, side_by_side
        self._store, self._metric = store, metric
        self._rung, self._risk, self._n_trials = rung, risk, n_trials
        self._standings: dict[float, Standing] = {}

    def run(self, rates: Sequence[float]) -> dict[float, Trial]:
        """Trials at these learning rates, side by side."""
        if self._rung is None:
            records = self._side_by_side(self._whole, list(rates))
            return {rate: Trial(record) for rate, record in zip(rates, records, strict=True)}
        fresh = [rate for rate in rates if self._find(self._spec_at(rate)) is None]  # else there is nothing to save
        beginnings = dict(zip(fresh, self._side_by_side(self._to_rung, fresh), strict=True))
        resting = {rate: record for rate, record in beginnings.items() if record.status == "done"}
        passed = {rate: record for rate in set(rates) - set(fresh) if (record := self._rung_on_disk(rate)) is not None}
        self._standings |= {rate: self._standing(record) for rate, record in {**passed, **resting}.items()}
        gone = dropped(self._standings, self._rung, self._risk, self._n_trials)
        out = {rate: reason for rate, reason in gone.items() if rate in resting}
        ended = [rate for rate in fresh if rate not in resting]
        on = [rate for rate in rates if rate not in out and rate not in ended]
        whole = dict(zip(on, self._side_by_side(self._whole, on), strict=True))
        # a trial that was to win but came to no end cannot be the reason to drop another
        back = [
            rate for rate, why in out.items() if why.better_rate in whole and whole[why.better_rate].status != "done"
        ]
        whole |= dict(zip(back, self._side_by_side(self._whole, back), strict=True))
        for rate in out.keys() - whole.keys():
            shutil.rmtree(self._store.folder / "checkpoints" / self._spec_at(rate).key, ignore_errors=True)
        return {rate: Trial(whole[rate]) if rate in whole else Trial(beginnings[rate], out.get(rate)) for rate in rates}

    def _whole(self, rate: float) -> Record:
        return self._run_one(self._spec_at(rate), None)

    def _to_rung(self, rate: float) -> Record:
        return self._run_one(self._part(rate), self._spec_at(rate).key)

    def _rung_on_disk(self, rate: float) -> Record | None:
        """How a trial that has come to its end since stood at its rung: what was decided then is decided again."""
        found = self._store.find(self._part(rate).key)
        return found if found is not None and found.status == "done" else None

    def _part(self, rate: float) -> Spec:
        """A trial's way to its rung."""
        assert self._rung is not None
        spec = self._spec_at(rate)
        return replace(spec, stage="rung", training={**spec.training, "rung_step": self._rung.step})

    def _standing(self, record: Record) -> Standing:
        key, sign = record.spec.key, 1 if self._metric.higher_is_better else -1
        remedy = "delete its record and run again"
        start, scores = (
            sign * per_unit(self._metric, read_predictions(self._store.rung_path(key, moment), remedy))
            for moment in ("start", "rung")
        )
        return Standing(scores, start)


def stopping(trial: Trial, rung: Rung) -> dict[str, Any]:
    """What the document says of a trial that was stopped."""
    assert trial.stopped is not None
    left = (rung.n_steps - rung.step) / rung.step
    seconds = trial.record.cost.train_seconds * left if trial.record.cost else 0.0
    return {"step": rung.step, "n_steps": rung.n_steps, **asdict(trial.stopped), "saved_seconds": seconds}


def savings(name: str, trials: Sequence[dict[str, Any]], risk: float) -> str:
    """In a sentence, which of a contestant's trials were stopped, why, and what that saved; empty where none was."""
    stopped = [trial for trial in trials if trial.get("stopped")]
    if not stopped:
        return ""
    first = stopped[0]["stopped"]
    rates = ", ".join(f"{trial['learning_rate']:g}" for trial in stopped)
    leaders = " and ".join(f"{rate:g}" for rate in sorted({trial["stopped"]["better_rate"] for trial in stopped}))
    saved = duration(sum(trial["stopped"]["saved_seconds"] for trial in stopped))
    return (
        f"{name}: {len(stopped)} of {len(trials)} trials stopped at step {first['step']} of {first['n_steps']} "
        f"(learning rate {rates}), too far behind {leaders} to win, which is wrong with a chance of at most "
        f"{risk:.0%}; about {saved} of training saved"
    )
