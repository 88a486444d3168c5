"""How long it will take and how much memory, from a few measured steps of each contestant."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deltaproof.errors import ConfigError
from deltaproof.evaluation.efficiency import N_CALLS, N_WARM_UP
from deltaproof.experiments.budget import Budget
from deltaproof.experiments.engines.engine import Engine
from deltaproof.experiments.jobs import Job, Probe
from deltaproof.experiments.memory_plan import alone_bytes
from deltaproof.methods.base import cost_fields
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store, read_json, write_json

AROUND_A_RUN = 0.3
"""Seconds to start a process, count operations and write a record."""
LATENCY_CALLS = 2 * (N_CALLS + N_WARM_UP)
"""Single-example calls that a final run times, attached and merged."""


@dataclass(frozen=True)
class Rows:
    """Rows per split."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Estimate:
    """What one contestant is expected to take."""

    trial_seconds: float
    final_seconds: float
    peak_memory_bytes: int
    peak_device_memory_bytes: int | None
    n_trainable: int
    fits: bool

    def seconds(self, n_trials: int, n_seeds: int) -> float:
        """Of a whole contestant; one that does not fit into memory ends with its first trial."""
        if not self.fits:
            return self.trial_seconds
        return n_trials * self.trial_seconds + n_seeds * self.final_seconds

    def to_json(self, n_trials: int, n_seeds: int) -> dict[str, Any]:
        return {"seconds": self.seconds(n_trials, n_seeds), **asdict(self)}


def estimate_from(probe: Probe, rows: Rows) -> Estimate:
    """Scale the measured steps up to whole runs."""
    train = probe.load_seconds + AROUND_A_RUN + probe.n_steps * probe.step_seconds
    trial = train + probe.n_evaluations * rows.validation * probe.evaluation_seconds_per_row
    final = trial + (rows.test + LATENCY_CALLS) * probe.evaluation_seconds_per_row
    return Estimate(
        trial_seconds=trial,
        final_seconds=final,
        peak_memory_bytes=alone_bytes(probe),
        peak_device_memory_bytes=probe.peak_device_memory_bytes,
        n_trainable=probe.n_trainable,
        fits=not probe.out_of_memory,
    )


def probe_once(engine: Engine, job: Job) -> Probe:
    """The job's probe, from disk where it stands already.

    It is measured once per folder, so that an experiment that goes on keeps the number of trials that its budget
    gave it, and once for all contestants that cost the same.
    """
    path = probe_path(job)
    with Store(job.folder).lock(f"probe-{path.stem}"):
        if path.exists():
            facts = read_json(path)
            return Probe(**{**facts, "notes": tuple(facts["notes"])})
        probe = engine.probe(job)
        write_json(path, asdict(probe))
        return probe


def probe_path(job: Job) -> Path:
    return job.folder / "probes" / f"{cost_key(job.spec)}.json"


def cost_key(spec: Spec) -> str:
    """Names all that can decide what a run costs: specs that differ in learning rate, seed or a factor share it."""
    training = {**spec.training, "learning_rate": 0.0}
    method = cost_fields(spec.method)
    return replace(spec, contestant="", method=method, training=training, seed=0, stage="probe", parents=()).key


def wall_seconds(estimates: list[Estimate], n_trials: int, n_seeds: int, n_workers: int) -> float:
    """Of the whole experiment: shared evenly, but no less than any contestant's trials, which follow one another, and
    its seeds, which go side by side."""
    rounds = math.ceil(n_seeds / n_workers)
    total = sum(estimate.seconds(n_trials, n_seeds) for estimate in estimates)
    return max([total / n_workers, *(estimate.seconds(n_trials, rounds) for estimate in estimates)])


def largest_peak_bytes(estimates: list[Estimate]) -> int:
    """Of the contestants that fit into memory, what the hungriest takes; 0 where none does."""
    return max([estimate.peak_memory_bytes for estimate in estimates if estimate.fits], default=0)


def trials_in_budget(estimates: list[Estimate], n_seeds: int, budget: Budget, most: int, n_workers: int = 1) -> int:
    """The largest number of trials per contestant, up to `most`, that the budget's minutes hold."""
    if budget.minutes is None:
        return most

    def minutes(n_trials: int) -> float:
        return wall_seconds(estimates, n_trials, n_seeds, n_workers) / 60

    fitting = [n_trials for n_trials in range(1, most + 1) if minutes(n_trials) <= budget.minutes]
    if not fitting:
        raise ConfigError(
            f"the budget must hold one trial and {n_seeds} seeds of each contestant, about {minutes(1):.1f} minutes "
            f"here, got {budget.minutes:g}; take fewer methods, examples or seeds, or more minutes"
        )
    return fitting[-1]
