"""How long it will take and how much memory, from a few measured steps of each contestant."""

from dataclasses import dataclass

from deltaproof.experiments.run import Probe
from deltaproof.training.loop import number_of_steps
from deltaproof.training.settings import Training

AROUND_A_RUN = 0.5
"""Seconds to start a process, write a record and count operations."""
LATENCY_CALLS = 44
"""Single-example calls that a final run times."""


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

    def seconds(self, trials: int, seeds: int) -> float:
        """Of a whole contestant; one that does not fit into memory ends after its first step."""
        return trials * self.trial_seconds + seeds * self.final_seconds


def estimate_from(probe: Probe, rows: Rows, settings: Training) -> Estimate:
    """Scale the measured steps up to whole runs."""
    n_steps = number_of_steps(rows.train, settings)
    per_epoch = max(1, round(rows.train / settings.batch_size / settings.evaluations_per_epoch))
    n_evaluations = max(1, -(-n_steps // per_epoch))
    train = probe.load_seconds + AROUND_A_RUN + n_steps * probe.step_seconds
    trial = train + n_evaluations * rows.validation * probe.evaluation_seconds_per_row
    final = trial + (rows.test + LATENCY_CALLS) * probe.evaluation_seconds_per_row
    return Estimate(
        trial, final, probe.peak_memory_bytes, probe.peak_device_memory_bytes, probe.n_trainable, not probe.out_of_memory
    )
