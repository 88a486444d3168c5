"""Metrics of robustness: by hand, by simulation of their intervals, and against statsmodels."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy.stats import t as student
from scipy.stats import ttest_ind

from deltaproof.errors import DataError, RecordError
from deltaproof.robustness.metrics import (
    contrast_consistency,
    drop_at_equal_accuracy,
    drop_between,
    flip_rate,
    matched_flips,
    pair_consistency,
    ratio_interval,
    robust_curve,
    robustness,
    share_interval,
    worst_case,
)
from deltaproof.stats import mean_interval

CLEAN = np.array([[1, 1, 1, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 1, 0]], dtype=float)
PERTURBED = np.array([[1, 0, 1, 0, 0, 1, 1, 0], [1, 0, 1, 0, 0, 0, 0, 0]], dtype=float)


def test_drop_relative_robustness_and_attack_success_by_hand():
    found = robustness(CLEAN, PERTURBED)
    assert (found.clean.mean, found.perturbed.mean) == (10 / 16, 6 / 16)
    assert found.drop.mean == pytest.approx(4 / 16)
    assert found.relative.mean == pytest.approx(6 / 10)
    assert found.attack_success.mean == pytest.approx(5 / 10), "one wrong answer that became right is no success"
    assert found.drop == mean_interval(CLEAN - PERTURBED)


def test_an_attack_succeeds_among_the_right_answers_alone():
    """With one seed the interval is that of the mean over the examples that were right when clean."""
    clean, perturbed = CLEAN[:1], PERTURBED[:1]
    found = robustness(clean, perturbed).attack_success
    wanted = mean_interval(1 - perturbed[:, clean[0] == 1])
    assert (found.mean, found.low, found.high) == pytest.approx((wanted.mean, max(0, wanted.low), min(1, wanted.high)))
    assert found.standard_error == pytest.approx(wanted.standard_error)


def test_no_success_among_few_right_answers_proves_little():
    clean = np.array([[1] * 10 + [0] * 990], dtype=float)
    assert robustness(clean, clean).attack_success.high == pytest.approx(1 - 0.025 ** (1 / 10)), "10 trials, not 1000"


def test_scores_that_are_not_right_or_wrong_have_no_attack_success():
    found = robustness([[0.5, 0.2, 0.9]], [[0.4, 0.2, 0.3]])
    assert found.attack_success is None
    assert found.relative.mean == pytest.approx(0.9 / 1.6)
    nothing_right = robustness([[0, 0, 0]], [[1, 0, 0]])
    assert nothing_right.relative is None
    assert nothing_right.attack_success is None


def test_answers_flip_whether_right_or_wrong():
    assert flip_rate([[0, 1, 2, 2]], [[0, 2, 1, 2]]).mean == 0.5


def test_intervals_of_ratios_hold_the_truth_as_often_as_they_say():
    random = np.random.default_rng(0)
    held = []
    for _ in range(600):
        clean = (random.random((1, 150)) < 0.8).astype(float)
        wrong = (random.random((1, 150)) < 0.3).astype(float)
        found = robustness(clean, clean * (1 - wrong))
        held.append(
            (found.attack_success.low < 0.3 < found.attack_success.high, found.relative.low < 0.7 < found.relative.high)
        )
    assert np.all(np.mean(held, axis=0) > 0.925)
    assert np.all(np.mean(held, axis=0) < 0.975)


def test_seeds_that_differ_widen_the_interval():
    random = np.random.default_rng(0)
    clean = np.ones((4, 200))
    rates = np.array([0.1, 0.3, 0.5, 0.7])
    seeds_differ = (random.random((4, 200)) > rates[:, None]).astype(float)
    seeds_agree = (random.random((4, 200)) > 0.4).astype(float)
    wide, narrow = (robustness(clean, after).attack_success for after in (seeds_differ, seeds_agree))
    assert wide.standard_error > 4 * narrow.standard_error
    assert (wide.low, wide.high) == (0.0, pytest.approx(0.774, abs=0.001)), "a share lies in 0..1"


def test_examples_of_one_group_count_as_one_unit():
    clean, perturbed = np.repeat(CLEAN[:1], 20, axis=1), np.repeat(PERTURBED[:1], 20, axis=1)
    groups = [f"g{at // 20}" for at in range(160)]
    alone, grouped = robustness(clean, perturbed), robustness(clean, perturbed, groups)
    plain = robustness(CLEAN[:1], PERTURBED[:1])
    assert grouped.drop.mean == alone.drop.mean
    assert (grouped.drop.low, grouped.attack_success.low) == pytest.approx((plain.drop.low, plain.attack_success.low))
    assert alone.drop.standard_error < grouped.drop.standard_error / 4


def test_matched_flips_by_hand():
    a, b = np.array([[1, 1, 1, 0, 1]]), np.array([[1, 1, 1, 1, 0]])
    a_after, b_after = np.array([[0, 0, 1, 0, 0]]), np.array([[0, 1, 1, 0, 0]])
    found = matched_flips((a, b), (a_after, b_after))
    assert found.n_examples == 3
    assert (found.first.mean, found.second.mean, found.difference.mean) == pytest.approx((2 / 3, 1 / 3, 1 / 3))
    assert matched_flips((a, 1 - a), (a_after, b_after)) is None


def test_matching_takes_away_what_clean_accuracy_alone_explains():
    """Two methods equally fragile at each difficulty; the second also has the harder ones right when clean."""
    random = np.random.default_rng(0)
    hard = random.random(4000) < 0.5
    a, b = np.where(hard, 0.0, 1.0), np.ones(4000)
    flips = random.random((2, 4000)) < np.where(hard, 0.8, 0.1)
    a_after, b_after = a * ~flips[0], b * ~flips[1]
    plain = robustness([b], [b_after]).attack_success.mean - robustness([a], [a_after]).attack_success.mean
    matched = matched_flips(([a], [b]), ([a_after], [b_after]))
    assert plain > 0.3
    assert matched.difference.low < 0 < matched.difference.high


def test_several_draws_of_a_perturbation_count_with_their_mean():
    """Of three draws on the four right answers, 1 + 0 + 3 + 0 are wrong: 4 of 12."""
    clean, mean_right = np.array([[1, 1, 1, 1, 0]]), np.array([[2 / 3, 1, 0, 1, 1 / 3]])
    assert robustness(clean, mean_right).attack_success.mean == pytest.approx(4 / 12)
    found = matched_flips((clean, clean), (mean_right, clean))
    assert (found.first.mean, found.second.mean) == (pytest.approx(4 / 12), 0)
    with pytest.raises(DataError, match="or shares of right ones"):
        matched_flips((clean, clean), (2 * mean_right, clean))
    assert share_interval([[0.5, 0.0, 1.0, 0.5]]).mean == 0.5


def test_a_drop_between_other_rows_is_welchs_difference_of_two_samples():
    random = np.random.default_rng(0)
    clean, other = (random.random((1, 400)) < 0.9).astype(float), (random.random((1, 150)) < 0.6).astype(float)
    found = mean_interval(drop_between(clean, other))
    wanted = ttest_ind(clean[0], other[0], equal_var=False)
    assert found.mean == pytest.approx(clean.mean() - other.mean())
    assert found.standard_error == pytest.approx(wanted._standard_error, rel=0.005)
    assert (found.low, found.high) == pytest.approx(wanted.confidence_interval(), abs=0.002)


def test_a_drop_between_other_rows_keeps_what_seeds_differ_in():
    clean, other = np.ones((3, 50)), np.repeat([[0.2], [0.5], [0.8]], 40, axis=1)
    found = drop_between(clean, other)
    assert found.mean(axis=1) == pytest.approx([0.8, 0.5, 0.2])
    assert mean_interval(found).standard_error == pytest.approx(0.3 / np.sqrt(3))
    with pytest.raises(RecordError, match="both sides must share seeds, got 3 and 2"):
        drop_between(clean, other[:2])


def test_a_ratio_of_nothing_is_none():
    assert ratio_interval([[0, 0]], [[0, 0]]) is None


def test_the_curve_goes_from_weak_to_strong():
    curve = robust_curve({0.4: [[0, 0, 1]], 0.0: [[1, 1, 1]], 0.1: [[1, 0, 1]]})
    assert list(curve) == [0.0, 0.1, 0.4]
    assert [point.mean for point in curve.values()] == pytest.approx([1, 2 / 3, 1 / 3])


def test_the_worst_case_is_right_only_where_all_are():
    assert worst_case({"a": [[1, 1, 0]], "b": [[1, 0, 1]]}).tolist() == [[1, 0, 0]]


def test_a_contrast_set_counts_when_all_of_it_is_right():
    found = contrast_consistency([[1, 1, 0, 1, 1], [1, 0, 1, 1, 1]], ["x", "x", "y", "y", "z"])
    assert found.mean == pytest.approx(np.mean([[1, 0, 1], [0, 1, 1]]))


def test_a_pair_is_consistent_when_the_answer_changes_as_the_label_does():
    found = pair_consistency([[0, 1, 0, 1]], [[1, 1, 0, 0]], [0, 1, 0, 1], [1, 0, 0, 1])
    assert found.mean == 0.5, "yes, no, yes, no"


def checkpoints(seed=0, gap=0.05, n_seeds=4):
    random = np.random.default_rng(seed)
    rows = []
    for method, extra in (("full", 0.0), ("lora", gap), ("ia3", 0.0)):
        for run in range(n_seeds):
            own = random.normal(0, 0.01)
            for clean in np.linspace(0.6, 0.9, 6) + random.normal(0, 0.01, 6):
                rows.append((method, run, clean, 0.05 + 0.3 * clean + extra + own + random.normal(0, 0.01)))
    return pd.DataFrame(rows, columns=["method", "run", "clean", "drop"])


def test_the_drop_at_equal_clean_accuracy_is_statsmodels_regression_clustered_by_run():
    table = checkpoints()
    found = drop_at_equal_accuracy(table.clean, table["drop"], list(table.method), list(table.run), "full")
    clusters = (table.method + "/" + table.run.astype(str)).astype("category").cat.codes
    wanted = smf.ols("Q('drop') ~ clean + C(method, Treatment('full'))", table).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}
    )
    for name, interval in {"clean": found.slope, **found.differences}.items():
        key = name if name == "clean" else f"C(method, Treatment('full'))[T.{name}]"
        assert interval.mean == pytest.approx(wanted.params[key])
        assert interval.standard_error == pytest.approx(wanted.bse[key])
        reach = student.ppf(0.975, 12 - 4) * wanted.bse[key]
        assert (interval.low, interval.high) == pytest.approx((interval.mean - reach, interval.mean + reach))
    assert (found.n_checkpoints, found.n_runs) == (72, 12)
    assert found.differences["lora"].low > 0
    assert found.differences["ia3"].low < 0 < found.differences["ia3"].high


def test_its_interval_holds_the_truth_about_as_often_as_it_says():
    held = []
    for seed in range(300):
        table = checkpoints(seed, n_seeds=5)
        found = drop_at_equal_accuracy(table.clean, table["drop"], list(table.method), list(table.run), "full")
        held.append(found.differences["lora"].low < 0.05 < found.differences["lora"].high)
    assert 0.90 < np.mean(held) < 0.99


def test_too_few_runs_and_clean_scores_that_stand_still_are_refused():
    with pytest.raises(DataError, match="at least 4 runs are needed for 2 methods, got 2"):
        drop_at_equal_accuracy([0.5, 0.6, 0.7, 0.8], [0, 0, 0, 0], ["a", "a", "b", "b"], [0, 0, 0, 0], "a")
    with pytest.raises(DataError, match="clean scores must vary"):
        drop_at_equal_accuracy([0.5] * 4, [0, 0.1, 0, 0.2], ["a"] * 4, [0, 1, 2, 3], "a")
    with pytest.raises(DataError, match="did you mean `lora`"):
        drop_at_equal_accuracy([0.5] * 4, [0] * 4, ["lora"] * 4, [0, 1, 2, 3], "lra")


def test_rows_that_are_not_paired_are_refused():
    with pytest.raises(RecordError, match="pair them by id"):
        robustness([[1, 0, 1]], [[1, 0]])
    with pytest.raises(DataError, match="put one seed into a list"):
        flip_rate([1, 0, 1], [1, 0, 1])
    with pytest.raises(RecordError, match="each example needs its group"):
        robustness([[1, 0, 1]], [[1, 0, 1]], ["a"])
    with pytest.raises(DataError, match=r"right \(1\) or wrong \(0\)"):
        contrast_consistency([[0.5, 1]], ["a", "a"])


def test_the_metrics_need_no_torch():
    script = "import deltaproof.robustness.metrics, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
