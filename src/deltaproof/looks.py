"""Planned looks: how small a p-value must be at each of a few looks, so that all together err no more often than one.

Looking again after more seeds is another chance to be wrong. Alpha spending divides the error rate among the looks
beforehand, by the share of the information that each has: alpha ln(1 + (e - 1) t) is spent at share t. Source: Lan and
DeMets, 1983, doi:10.1093/biomet/70.3.659, Pocock's form.

A look's level is what it newly spends. The usual boundaries are wider, as they reckon with how far looks agree; but
that holds for normal statistics, and with few seeds ours follow t-distributions whose degrees of freedom change from
look to look. In simulation those boundaries erred more often than stated where seeds vary much. The sum of the levels
bounds the error whatever the looks have in common.
"""

import itertools
import math
from dataclasses import dataclass

from deltaproof.errors import ConfigError

LEAST_SEEDS = 3
"""Of a look: fewer say next to nothing of other seeds."""
MOST_LOOKS = 3


@dataclass(frozen=True)
class Look:
    """A planned look at the results."""

    n_seeds: int
    level: float
    """A p-value, corrected for several comparisons, at or below this gives a verdict here."""


def planned_looks(n_seeds: int, n_looks: int, alpha: float) -> list[Look]:
    """The looks of an experiment, at even distances, the last after all seeds.

    Raises:
        ConfigError: the first look would have fewer than three seeds.

    >>> [(look.n_seeds, round(look.level, 4)) for look in planned_looks(9, 3, 0.05)]
    [(3, 0.0226), (6, 0.0155), (9, 0.0118)]
    """
    at = [math.ceil(n_seeds * look / n_looks) for look in range(1, n_looks + 1)]
    if n_looks > 1 and (at[0] < LEAST_SEEDS or n_looks > MOST_LOOKS):
        raise ConfigError(
            f"`looks` must be 1 to {MOST_LOOKS}, the first with at least {LEAST_SEEDS} seeds, got {n_looks} with "
            f"{n_seeds} seeds in all; give `seeds = {LEAST_SEEDS * n_looks}`, or fewer looks"
        )
    shares = [0.0, *(n / n_seeds for n in at)]
    levels = [spent(alpha, now) - spent(alpha, before) for before, now in itertools.pairwise(shares)]
    return [Look(n, level) for n, level in zip(at, levels, strict=True)]


def spent(alpha: float, share: float) -> float:
    """Error rate that is used up when this share of the information is in.

    >>> round(spent(0.05, 0.5), 4), round(spent(0.05, 1.0), 4)
    (0.031, 0.05)
    """
    return alpha * math.log(1 + (math.e - 1) * share)
