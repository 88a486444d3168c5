"""Halving: tuning trials that can no longer win are stopped part of the way, at a stated risk.

All trials of a contestant train to a rung, an evaluation part of the way; those that cannot become the best are
dropped, the rest go on. Let x(s) be a trial's expected score at the rung, x(0) the untrained model's, and A(s), A the
learning rates summed up to the rung and over the whole schedule, for a peak rate of 1. Trial i with peak rate r_i is
dropped where some trial j shows both of

1. r_i A <= r_j A(s): all of i's training is no longer, counted in summed learning rate, than what j has had. A higher
   rate is never dropped: it may be unsteady until the schedule calms it, and win then.
2. the lower confidence bound of x_j(s) - x_i(s) - k (x_i(s) - x_i(0)), with k = (A - A(s)) / A(s), is above zero.

The second holds the best that i can still do against what j has already. The best: a curve that is concave in summed
learning rate gains at most k times what it has gained so far. What j has is kept, since the rung is an evaluation and
a training keeps its best one. The bound is of paired scores of validation units, by Student's t, over all pairs of
trials (Bonferroni), and its standard error is widened by the square root of 2, because the final scores that decide
are read off the same units with errors of their own. So where curves are concave, the chance to drop the trial that
would have scored best on validation is at most the risk. A curve that lies flat for long and then rises breaks the
assumption.

Successive halving: Jamieson and Talwalkar, 2016, arXiv:1502.07943. Theirs keeps a fixed share of the trials at each
rung, whatever the evidence; this keeps all that may win.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from deltaproof.training.loop import number_of_steps
from deltaproof.training.schedules import factor
from deltaproof.training.settings import Training

Array = NDArray[np.float64]
SHARE = 0.25
"""The rung is the first evaluation after at least this share of the steps."""


@dataclass(frozen=True)
class Rung:
    """Where trials rest and are compared."""

    step: int
    n_steps: int
    done: float
    """Learning rates summed up to the rung, for a peak of 1."""
    whole: float
    """The same over all steps."""

    @property
    def gain(self) -> float:
        """The most that a concave curve can still gain, as a multiple of what it has gained."""
        return (self.whole - self.done) / self.done


@dataclass(frozen=True)
class Standing:
    """A trial at its rung: scores per validation unit, higher is better."""

    scores: Array
    """(n,) of the model as it is trained so far."""
    start: Array
    """(n,) of the model before training, in the same order."""


@dataclass(frozen=True)
class Dropped:
    """Why a trial was dropped."""

    better_rate: float
    """Learning rate of the trial that it cannot catch up with."""
    lead: float
    """That trial's score at the rung minus this one's."""
    can_gain: float
    """The most that this one can still gain."""
    lower_bound: float
    """Of lead minus gain; above zero."""


def with_rung(settings: Training, n_rows: int) -> Training:
    """The settings, scored often enough for a rung after `SHARE` of the steps, unless they say how often."""
    if "evaluations_per_epoch" in settings.model_fields_set:
        return settings
    n_epochs = number_of_steps(n_rows, settings) / math.ceil(n_rows / settings.batch_size)
    often = max(1, math.ceil(1 / (SHARE * n_epochs)))
    return Training(**settings.model_dump(exclude_unset=True), evaluations_per_epoch=often)


def rung_for(n_rows: int, n_steps: int, settings: Training, every: int) -> Rung | None:
    """Where trials of this length rest; None where no evaluation comes between `SHARE` of the steps and the end.

    Args:
        every: steps between evaluations.
    """
    steps = [step for step in range(every, n_steps, every) if step >= SHARE * n_steps]
    if not steps:
        return None
    rates = [factor(settings.schedule, step, n_steps, settings.warmup_fraction) for step in range(n_steps)]
    return Rung(steps[0], n_steps, sum(rates[: steps[0]]), sum(rates))


def dropped(standings: Mapping[float, Standing], rung: Rung, risk: float, n_trials: int) -> dict[float, Dropped]:
    """The trials that cannot win, by learning rate.

    Args:
        standings: learning rate to standing, all over the same units.
        risk: the most chance, in 0..1, to drop the trial that would have scored best.
        n_trials: trials that the contestant has in all, those still to come included.
    """
    found: dict[float, Dropped] = {}
    for rate, trial in standings.items():
        against = [
            _held_against(trial, other_rate, other, rung, risk / max(1, n_trials - 1))
            for other_rate, other in standings.items()
            if rate * rung.whole <= other_rate * rung.done
        ]
        worst = max(against, key=lambda each: each.lower_bound, default=None)
        if worst is not None and worst.lower_bound > 0:
            found[rate] = worst
    return found


def _held_against(trial: Standing, other_rate: float, other: Standing, rung: Rung, risk: float) -> Dropped:
    differences = other.scores - trial.scores - rung.gain * (trial.scores - trial.start)
    n = len(differences)
    error = np.sqrt(2) * differences.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    lead, can_gain = float(np.mean(other.scores - trial.scores)), float(np.mean(trial.scores - trial.start)) * rung.gain
    bound = float(differences.mean() - stdtrit(max(1, n - 1), 1 - risk) * error)
    return Dropped(other_rate, lead, can_gain, bound)
