"""Equal tuning: every contestant gets the same number of trials, over learning rates, judged on validation."""

import math

FACTOR = math.sqrt(10)
"""Between neighbours of the grid. A rate that is half a step off costs little; the grid is to find the right order."""


def first_rates(centre: float, n_rates: int) -> list[float]:
    """The learning rates tried first: three around the centre, or fewer from it upwards.

    >>> [f"{rate:.0e}" for rate in first_rates(1e-3, 3)]
    ['3e-04', '1e-03', '3e-03']
    """
    return {1: [centre], 2: [centre, centre * FACTOR]}.get(n_rates, [centre / FACTOR, centre, centre * FACTOR])


def next_rate(scores: dict[float, float]) -> float:
    """The rate to try next, from rates and their scores (higher is better, minus infinity for a failed trial).

    Beyond the edge if the best is at one, so that the grid grows to where the method works; otherwise halfway, on the
    logarithmic scale, between the best and the better of its neighbours.
    """
    rates = sorted(scores)
    best = max(rates, key=lambda rate: (scores[rate], -rate))
    at = rates.index(best)
    if at == 0:
        return best / FACTOR
    if at == len(rates) - 1:
        return best * FACTOR
    neighbour = max((rates[at - 1], rates[at + 1]), key=lambda rate: scores[rate])
    return math.sqrt(best * neighbour)


def is_at_edge(scores: dict[float, float], chosen: float) -> bool:
    """Whether the chosen rate is the lowest or highest that was tried, so that a better one may lie beyond.

    >>> is_at_edge({1e-4: 0.7, 1e-3: 0.8, 1e-2: 0.6}, 1e-3)
    False
    """
    return len(scores) > 1 and chosen in (min(scores), max(scores))


def best_rate(scores: dict[float, float]) -> float:
    """The rate with the best score; of equal ones the lowest, which is the safer."""
    return max(sorted(scores), key=lambda rate: scores[rate])


def rounded(rate: float) -> float:
    """Two digits: a rate that a person can read and type.

    >>> rounded(0.000316227766)
    0.00032
    """
    return float(f"{rate:.2g}")
