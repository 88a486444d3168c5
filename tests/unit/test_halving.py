"""Halving: how seldom the winner is dropped, over planted learning curves, and what is dropped where it is plain."""

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import beta

from deltaproof.experiments.halving import Rung, Standing, dropped, rung_for
from deltaproof.training.settings import Training

RISK, N_UNITS, N_SIMULATIONS = 0.05, 300, 1500
RATES = [1e-4, 1e-3, 1e-2]


def rung(share=0.5, **settings):
    found = rung_for(160, 100, Training(**settings), round(100 * share))
    assert found is not None
    return found


def drawn(random, expected, difficulty):
    """Right and wrong answers whose expectation is `expected`; units share their difficulty, as validation rows do."""
    own = random.normal(size=N_UNITS)
    level = ndtri(min(max(expected, 1e-6), 1 - 1e-6)) * np.sqrt(
        2
    )  # `norm.ppf` without its checks, which take most of the time
    return (level + difficulty + own > 0).astype(float)


def simulated(curves, place, seed, n_simulations=N_SIMULATIONS):
    """For each simulation: the rates that are dropped, and the final validation scores of all.

    Args:
        curves: rate to expected score at (start, rung, end).
    """
    random = np.random.default_rng(seed)
    for _ in range(n_simulations):
        difficulty = random.normal(size=N_UNITS)
        start = drawn(random, next(iter(curves.values()))[0], difficulty)
        at_rung = {rate: Standing(drawn(random, curve[1], difficulty), start) for rate, curve in curves.items()}
        ends = {rate: drawn(random, curve[2], difficulty).mean() for rate, curve in curves.items()}
        finals = {rate: max(ends[rate], at_rung[rate].scores.mean()) for rate in curves}
        yield dropped(at_rung, place, RISK, len(curves)), finals


def upper_bound(n_errors, n_trials):
    return beta.ppf(0.95, n_errors + 1, n_trials - n_errors)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize("edge", [0.0, 0.01, 0.03])
def test_the_trial_that_would_have_won_is_dropped_no_more_often_than_stated(schedule, share, edge):
    """The hardest case that the rule allows: low rates gain at a constant pace to the very end, and pass a leader that
    gains nothing more by `edge`."""
    place = rung(share, schedule=schedule)
    start, leader = 0.5, 0.75
    at_end = leader + edge
    at_rung = start + (at_end - start) * place.done / place.whole
    curves = {1e-4: (start, at_rung, at_end), 1e-3: (start, at_rung, at_end), 1e-2: (start, leader, leader)}
    wrong = 0
    for gone, finals in simulated(curves, place, seed=[3, int(100 * share), int(100 * edge)]):
        best = max(finals.values())
        wrong += any(finals[rate] == best for rate in gone)
    bound = upper_bound(wrong, N_SIMULATIONS)
    print(f"\n{schedule}, rung at {share:.0%}, edge {edge}: winner dropped {wrong / N_SIMULATIONS:.2%}, <= {bound:.2%}")
    assert bound <= RISK + 0.01


def test_curves_drawn_at_random_lose_their_winner_no_more_often_than_stated():
    """Saturating curves with speeds and ceilings of their own, concave in summed learning rate."""
    random, place, wrong, n_dropped, n = np.random.default_rng(0), rung(0.34), 0, 0, 0
    for at in range(300):
        curves = {}
        for rate in RATES:
            speed, ceiling = 10 ** random.uniform(-1.5, 1.5), random.uniform(0.55, 0.9)
            shape = [1 - np.exp(-speed * time) for time in (0, place.done / place.whole, 1)]
            curves[rate] = tuple(0.5 + (ceiling - 0.5) * value for value in shape)
        for gone, finals in simulated(curves, place, seed=[7, at], n_simulations=5):
            wrong += any(finals[rate] == max(finals.values()) for rate in gone)
            n_dropped, n = n_dropped + len(gone), n + 1
    print(f"\nrandom curves: winner dropped {wrong / n:.2%}, {n_dropped / n:.2f} of {len(RATES)} trials dropped")
    assert upper_bound(wrong, n) <= RISK
    assert n_dropped / n > 0.25


def test_a_trial_that_learns_nothing_beside_one_that_learns_is_dropped():
    curves = {1e-4: (0.5, 0.5, 0.5), 1e-3: (0.5, 0.52, 0.53), 1e-2: (0.5, 0.8, 0.85)}
    found = [set(gone) for gone, _ in simulated(curves, rung(0.34), seed=1, n_simulations=200)]
    assert sum({1e-4, 1e-3} == gone for gone in found) > 190


def test_a_higher_rate_is_never_dropped_however_far_behind_it_is():
    ones, zeros = np.ones(N_UNITS), np.zeros(N_UNITS)
    standings = {1e-3: Standing(ones, zeros), 1e-2: Standing(zeros, zeros)}
    assert dropped(standings, rung(0.5), RISK, 2) == {}


def test_a_lower_rate_whose_whole_training_is_longer_than_the_leader_has_had_is_kept():
    place = Rung(50, 100, done=40.0, whole=60.0)
    ones, zeros = np.ones(N_UNITS), np.zeros(N_UNITS)
    for rate, is_dropped in ((0.66, True), (0.67, False)):
        found = dropped({rate: Standing(zeros, zeros), 1.0: Standing(ones, zeros)}, place, RISK, 2)
        assert bool(found) == is_dropped


def test_what_is_left_to_gain_is_the_area_left_under_the_schedule():
    constant = rung(0.25, schedule="constant", warmup_fraction=0.0)
    assert constant.gain == pytest.approx(3)
    linear = rung(0.5, schedule="linear", warmup_fraction=0.0)
    assert linear.gain == pytest.approx(1 / 3, rel=0.02), "a triangle cut in its middle: 1/4 to 3/4"


def test_a_rung_is_an_evaluation_before_the_end_and_may_be_missing():
    assert [rung_for(160, 30, Training(), every).step for every in (10, 5, 3)] == [10, 10, 9]
    assert rung_for(160, 30, Training(), 30) is None


def test_the_reason_names_who_leads_by_how_much_and_what_could_still_be_gained():
    random = np.random.default_rng(0)
    low = Standing((random.random(N_UNITS) < 0.55).astype(float), np.zeros(N_UNITS))
    high = Standing(np.ones(N_UNITS), np.zeros(N_UNITS))
    place = Rung(90, 100, done=90.0, whole=100.0)
    (reason,) = dropped({1e-3: low, 1e-2: high}, place, RISK, 2).values()
    assert reason.better_rate == 1e-2
    assert reason.lead == pytest.approx(1 - low.scores.mean())
    assert reason.can_gain == pytest.approx(low.scores.mean() / 9)
    assert 0 < reason.lower_bound < reason.lead - reason.can_gain
