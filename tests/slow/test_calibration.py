"""Do verdicts err as seldom, and find as often, as they say? Simulated experiments in which the truth is known.

An answer is right where a threshold model says so: an example's difficulty (the same for all), a seed's own shift, and
what seed and example do jointly, each normal. Every contestant has seeds of its own, so under one accuracy for all this
is an A/A comparison with disjoint sub-seeds.
"""

import numpy as np
import pytest
from scipy.stats import beta, norm

from deltaproof.looks import planned_looks
from deltaproof.metrics import METRICS
from deltaproof.stats import compare, mean_interval

pytestmark = pytest.mark.slow

N_SIMULATIONS = 4000
N_EXAMPLES = 500
N_CONTESTANTS = 4
DIFFICULTY, JOINT = 2.0, 1.0
SEED_SHIFTS = {"none": 0.0, "small": 0.1, "large": 0.5}
"""Standard deviation of a seed's shift: 0, about 1, about 5 points of accuracy."""
ACCURACY = 0.85


def level(accuracy, seed_shift):
    """The model's constant that gives this accuracy on average."""
    return norm.ppf(accuracy) * np.sqrt(DIFFICULTY**2 + JOINT**2 + seed_shift**2)


def outcomes(random, accuracies, n_seeds, seed_shift):
    """(contestants, seeds, examples) of right and wrong."""
    shape = (len(accuracies), n_seeds, N_EXAMPLES)
    levels = np.array([level(accuracy, seed_shift) for accuracy in accuracies])[:, None, None]
    shift = seed_shift * random.normal(size=shape[:2])[:, :, None]
    return (levels + DIFFICULTY * random.normal(size=N_EXAMPLES) + shift + JOINT * random.normal(size=shape)) > 0


def named(scores):
    return {f"contestant {position}": values.astype(float) for position, values in enumerate(scores)}


def verdicts(accuracies, n_seeds, seed_shift, margin, n_simulations=N_SIMULATIONS, seed=0):
    """One list of Comparison per simulated experiment; the first contestant is the reference."""
    random = np.random.default_rng([seed, n_seeds, int(1000 * seed_shift)])
    for _ in range(n_simulations):
        scores = named(outcomes(random, accuracies, n_seeds, seed_shift))
        yield list(compare(scores, "contestant 0", margin).values())


def upper_bound(n_errors, n_trials):
    """One-sided 95 % bound of an error rate. Source: Clopper and Pearson, 1934, doi:10.1093/biomet/26.4.404."""
    return beta.ppf(0.95, n_errors + 1, n_trials - n_errors)


settings = pytest.mark.parametrize(("n_seeds", "spread"), [(n, spread) for n in (3, 5) for spread in SEED_SHIFTS])


@settings
def test_equal_contestants_are_seldom_called_better_or_worse(n_seeds, spread):
    accuracies = [ACCURACY] * (1 + N_CONTESTANTS)
    tables = verdicts(accuracies, n_seeds, SEED_SHIFTS[spread], margin=1e-9)
    errors = sum(any(row.verdict in ("better", "worse") for row in rows) for rows in tables)
    bound = upper_bound(errors, N_SIMULATIONS)
    print(f"\nA/A, {n_seeds} seeds, {spread} seed variance: {errors / N_SIMULATIONS:.2%}, at most {bound:.2%}")
    assert bound <= 0.06


@pytest.mark.parametrize("n_seeds", [3, 5])
@pytest.mark.parametrize("name", ["macro_f1", "mcc"])
def test_equal_contestants_are_seldom_told_apart_by_pseudo_values(name, n_seeds):
    random = np.random.default_rng([7, n_seeds])
    errors, n_simulations = 0, 2000
    for _ in range(n_simulations):
        right = outcomes(random, [ACCURACY] * (1 + N_CONTESTANTS), n_seeds, SEED_SHIFTS["small"])
        targets = (random.random((N_EXAMPLES, 1)) < 0.15).astype(float)
        scores = np.array([[_pseudo_values(name, targets, seed) for seed in contestant] for contestant in right])
        rows = compare(named(scores), "contestant 0", margin=1e-9).values()
        errors += any(row.verdict in ("better", "worse") for row in rows)
    bound = upper_bound(errors, n_simulations)
    print(f"\nA/A of {name}, {n_seeds} seeds: {errors / n_simulations:.2%}, at most {bound:.2%}")
    assert bound <= 0.06


def _pseudo_values(name, targets, right):
    answer = np.where(right, targets[:, 0], 1 - targets[:, 0]).astype(int)
    return METRICS[name].per_example(targets, np.eye(2)[answer])


@settings
def test_contestants_worse_by_the_margin_are_seldom_called_equivalent(n_seeds, spread):
    margin = 0.03
    accuracies = [ACCURACY] + [ACCURACY - margin] * N_CONTESTANTS
    tables = verdicts(accuracies, n_seeds, SEED_SHIFTS[spread], margin, seed=1)
    errors = sum(any(row.verdict == "equivalent" for row in rows) for rows in tables)
    bound = upper_bound(errors, N_SIMULATIONS)
    rate = errors / N_SIMULATIONS
    print(f"\nTOST at the margin, {n_seeds} seeds, {spread} seed variance: {rate:.2%}, at most {bound:.2%}")
    assert bound <= 0.06


def detectable(others, n_seeds, shift):
    """The true difference equal to what experiments with that very difference report as detectable.

    Reports vary with the estimated standard error; their root mean square is the one for the true standard error.
    """
    planted = 0.0
    for _ in range(4):
        accuracies = [ACCURACY, ACCURACY - planted] + [ACCURACY] * others
        pilot = verdicts(accuracies, n_seeds, shift, margin=1e-9, n_simulations=500, seed=2)
        planted = float(np.sqrt(np.mean([rows[0].detectable_difference ** 2 for rows in pilot])))
    return planted


FLIPPING = (
    "where three seeds hardly differ, the degrees of freedom flip between 2 and many from one experiment to the next, "
    "and under Holm the detectable difference with them: their average promises more power than the half with 2 has"
)


def power_setting(n_seeds, spread, others):
    marks = [pytest.mark.xfail(strict=True, reason=FLIPPING)] if (n_seeds, spread, others) == (3, "none", 3) else []
    return pytest.param(n_seeds, spread, others, marks=marks)


@pytest.mark.parametrize(
    ("n_seeds", "spread", "others"),
    [
        power_setting(n_seeds, spread, others)
        for n_seeds in (3, 5)
        for spread in SEED_SHIFTS
        for others in (0, N_CONTESTANTS - 1)
    ],
)
def test_a_planted_difference_of_the_detectable_size_is_found_about_as_often_as_stated(n_seeds, spread, others):
    shift, n_simulations = SEED_SHIFTS[spread], 2000
    planted = detectable(others, n_seeds, shift)
    accuracies = [ACCURACY, ACCURACY - planted] + [ACCURACY] * others
    tables = verdicts(accuracies, n_seeds, shift, margin=1e-9, n_simulations=n_simulations, seed=3)
    found = sum(rows[0].verdict == "worse" for rows in tables) / n_simulations
    size = f"{100 * planted:.1f} points planted beside {others} equals"
    print(f"\npower, {n_seeds} seeds, {spread} seed variance, {size}: {found:.1%}")
    # By the noncentral t-distribution the power for one comparison is 77 % at 2 degrees of freedom, 79 % at 4, 80 %
    # beyond; standard errors that err on the large side, and degrees of freedom that vary, move it both ways.
    assert 0.70 <= found <= 0.95


@settings
def test_intervals_of_a_mean_score_hold_the_true_accuracy(n_seeds, spread):
    random = np.random.default_rng([5, n_seeds, int(1000 * SEED_SHIFTS[spread])])
    missed = 0
    for _ in range(N_SIMULATIONS):
        interval = mean_interval(outcomes(random, [ACCURACY], n_seeds, SEED_SHIFTS[spread])[0])
        missed += not interval.low <= ACCURACY <= interval.high
    print(f"\ninterval, {n_seeds} seeds, {spread} seed variance: {1 - missed / N_SIMULATIONS:.2%} hold the truth")
    assert upper_bound(missed, N_SIMULATIONS) <= 0.07


@pytest.mark.parametrize("spread", SEED_SHIFTS)
@pytest.mark.parametrize("n_looks", [2, 3])
def test_equal_contestants_are_seldom_told_apart_at_any_of_several_looks(spread, n_looks):
    """Counts a wrong verdict at any look, also where an experiment would have stopped before or gone on after."""
    shift, n_simulations = SEED_SHIFTS[spread], N_SIMULATIONS
    random = np.random.default_rng([11, n_looks, int(1000 * shift)])
    looks, errors = planned_looks(3 * n_looks, n_looks, 0.05), 0
    for _ in range(n_simulations):
        scores = named(outcomes(random, [ACCURACY] * (1 + N_CONTESTANTS), 3 * n_looks, shift))
        found = False
        for look in looks:
            seen = {name: values[: look.n_seeds] for name, values in scores.items()}
            rows = compare(seen, "contestant 0", margin=1e-9, level=look.level).values()
            found |= any(row.verdict in ("better", "worse") for row in rows)
        errors += found
    bound = upper_bound(errors, n_simulations)
    print(f"\nA/A in {n_looks} looks, {spread} seed variance: {errors / n_simulations:.2%}, at most {bound:.2%}")
    assert bound <= 0.06


@pytest.mark.parametrize("spread", SEED_SHIFTS)
def test_contestants_worse_by_the_margin_are_seldom_called_equivalent_at_any_look(spread):
    shift, n_simulations, margin = SEED_SHIFTS[spread], 2000, 0.03
    random = np.random.default_rng([12, int(1000 * shift)])
    looks, errors = planned_looks(9, 3, 0.05), 0
    for _ in range(n_simulations):
        scores = named(outcomes(random, [ACCURACY, *[ACCURACY - margin] * N_CONTESTANTS], 9, shift))
        found = False
        for look in looks:  # even where an experiment would have stopped before
            seen = {name: values[: look.n_seeds] for name, values in scores.items()}
            rows = compare(seen, "contestant 0", margin, level=look.level).values()
            found |= any(row.verdict == "equivalent" for row in rows)
        errors += found
    bound = upper_bound(errors, n_simulations)
    print(f"\nTOST at the margin in 3 looks, {spread} seed variance: {errors / n_simulations:.2%}, at most {bound:.2%}")
    assert bound <= 0.06
