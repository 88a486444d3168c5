"""Fits of curves on planted ones: known exponents, known bends, known crossings, and error rates."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from deltaproof.errors import DataError
from deltaproof.fits import crossover, growth, power_law

SIZES = (64.0, 256.0, 1024.0, 4096.0, 16384.0)


def answers(accuracy: float, draw: np.random.Generator, n_seeds: int = 3, n_units: int = 2000, seed_sd: float = 0.0):
    """Right and wrong answers of some seeds on a test set."""
    rates = np.clip(accuracy + seed_sd * draw.standard_normal(n_seeds), 0, 1)
    return (draw.random((n_seeds, n_units)) < rates[:, None]).astype(float)


def planted(law, draw, sizes=SIZES, **options):
    return {x: answers(law(x), draw, **options) for x in sizes}


def test_a_planted_power_law_lies_in_its_intervals():
    draw = np.random.default_rng(1)
    fit = power_law(planted(lambda x: 1 - (0.08 + 1.5 * x**-0.45), draw, n_units=20_000), n_draws=300)
    assert fit.floor.low <= 0.08 <= fit.floor.high
    assert fit.scale.low <= 1.5 <= fit.scale.high
    assert fit.exponent.low <= 0.45 <= fit.exponent.high
    assert fit.exponent.high - fit.exponent.low < 0.3
    assert not fit.is_at_edge


def test_the_fit_is_that_of_scipys_least_squares():
    draw = np.random.default_rng(2)
    errors = np.array([0.05 + 2 * x**-0.6 for x in SIZES]) + 0.003 * draw.standard_normal(len(SIZES))
    (floor, scale, exponent), _ = curve_fit(
        lambda x, c, a, b: c + a * x**-b, SIZES, errors, p0=(0.05, 2, 0.6), bounds=(0, [1, 100, 4])
    )
    ours = power_law({x: np.full((1, 2), 1 - error) for x, error in zip(SIZES, errors, strict=True)}, n_draws=2)
    assert ours.floor.value == pytest.approx(floor, abs=1e-4)
    assert ours.scale.value == pytest.approx(scale, rel=1e-3)
    assert ours.exponent.value == pytest.approx(exponent, rel=1e-3)


def test_an_exponent_that_the_data_do_not_determine_is_marked():
    flat = power_law({x: np.full((1, 2), 0.9 + (0.05 if x > 64 else 0)) for x in SIZES}, n_draws=2)
    assert flat.is_at_edge


def test_returns_that_diminish_are_told_from_steady_and_growing_ones():
    draw = np.random.default_rng(3)
    steps = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    saturating = planted(lambda x: 0.9 - 0.4 * x**-0.9, draw, steps, n_units=5000)
    accelerating = planted(lambda x: 0.5 + 0.012 * np.log2(x) ** 2, draw, steps, n_units=5000)
    found = growth(saturating)
    assert found.verdict == "diminishing"
    assert found.aicc_concave < found.aicc_linear
    assert found.gains[0].value > found.gains[-1].value
    assert growth(accelerating).verdict == "not diminishing"


def test_the_bend_of_a_parabola_is_twice_its_coefficient_wherever_the_points_lie():
    x = (1.0, 2.0, 8.0, 16.0, 128.0)
    curve = {at: np.full((1, 2), 0.5 - 0.01 * np.log2(at) ** 2) for at in x}
    assert growth(curve).bend.value == pytest.approx(-0.02)


def test_a_straight_line_is_called_bent_no_more_often_than_the_level_allows():
    """Steady gains per doubling: a bend below zero is claimed in about one case in forty."""
    wrong = 0
    for seed in range(80):
        draw = np.random.default_rng(seed)
        line = planted(lambda x: 0.6 + 0.02 * np.log2(x), draw, (1.0, 2.0, 4.0, 8.0, 16.0), n_units=400)
        wrong += growth(line).verdict == "diminishing"
    assert wrong <= 8  # 3.6 standard errors above 2.5 % of 80


@pytest.mark.parametrize("n_seeds", [2, 3])
def test_seeds_that_scatter_are_not_taken_for_a_bend(n_seeds):
    """Nothing grows here; a point's height is the luck of few seeds: one bend in twenty is claimed, not one in four."""
    claimed = {"bend": 0, "bend_in_x": 0}
    for seed in range(200):
        draw = np.random.default_rng(seed)
        found = growth(planted(lambda x: 0.8, draw, (1.0, 2.0, 4.0, 8.0), n_seeds=n_seeds, n_units=400, seed_sd=0.05))
        for name in claimed:
            bend = getattr(found, name)
            claimed[name] += bend.is_negative or bend.is_positive
    assert max(claimed.values()) <= 21, "3.6 standard errors above 5 % of 200"


def test_a_planted_crossing_lies_in_its_interval():
    """Errors 0.1 + 3.2 x^-0.5 and 0.2 + 0.8 x^-0.5 are equal at x = 576."""
    draw = np.random.default_rng(4)
    full = planted(lambda x: 0.9 - 3.2 * x**-0.5, draw, n_units=20_000)
    lora = planted(lambda x: 0.8 - 0.8 * x**-0.5, draw, n_units=20_000)
    found = crossover({"full": full, "lora": lora}, n_draws=300)
    assert (found.verdict, found.ahead_before, found.ahead_after) == ("crossover", "lora", "full")
    assert 256 < found.at.low <= found.at.value <= found.at.high < 1024
    assert found.at.value == pytest.approx(576, rel=0.15)  # straight lines between points bend it a little


def test_curves_that_stay_apart_do_not_cross():
    draw = np.random.default_rng(5)
    full = planted(lambda x: 0.9 - 0.5 * x**-0.5, draw)
    head = planted(lambda x: 0.7 - 0.5 * x**-0.5, draw)
    found = crossover({"full": full, "head": head}, n_draws=300)
    assert found.verdict == "no crossover in range"
    assert found.at is None


def test_equal_methods_are_not_said_to_cross():
    verdicts = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        pair = {name: planted(lambda x: 0.9 - 0.5 * x**-0.5, draw, n_units=300) for name in ("one", "other")}
        verdicts.append(crossover(pair, n_draws=200).verdict)
    assert verdicts.count("crossover") <= 1


def test_the_same_seed_gives_the_same_interval():
    curve = planted(lambda x: 0.9 - x**-0.5, np.random.default_rng(6))
    assert power_law(curve, n_draws=50) == power_law(curve, n_draws=50)


def test_too_few_points_and_other_test_sets_are_refused():
    draw = np.random.default_rng(7)
    with pytest.raises(DataError, match="a power law needs at least 4 points, got 3; measure more sizes"):
        power_law(planted(lambda x: 0.9, draw, SIZES[:3]))
    mixed = {64.0: answers(0.8, draw, n_units=10), 128.0: answers(0.8, draw, n_units=20), 256.0: answers(0.8, draw)}
    with pytest.raises(DataError, match="scored on one test set, got sets of"):
        growth(mixed)
