"""The search for a learning rate, on curves whose peak is known."""

import math

import numpy as np
import pytest

from deltaproof.experiments.tuning import best_rate, first_rates, next_rate


def searched(score, n_first: int, n_trials: int, centre: float = 1e-3) -> float:
    """The score of the rate that is chosen after `n_trials`."""
    scores = {rate: score(rate) for rate in first_rates(centre, n_first)}
    while len(scores) < n_trials:
        rate = next_rate(scores)
        scores[rate] = score(rate)
    return scores[best_rate(scores)]


@pytest.mark.parametrize("peak", np.linspace(-5, -1, 17))
def test_three_trials_that_begin_with_two_find_no_worse_a_rate_than_a_grid_of_three(peak):
    """On every curve with one peak; above the grid they find a better one."""

    def score(rate):
        return -abs(math.log10(rate) - peak)

    begun_with_two, grid = searched(score, 2, 3), searched(score, 3, 3)
    assert begun_with_two >= grid - 1e-12
    if peak > -2.2:  # nearer to the next rate above the grid than to its highest
        assert begun_with_two > grid + 0.05
