"""Verdicts against scipy and statsmodels, and against what must hold whatever the numbers."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_ztest
from statsmodels.stats.weightstats import ttost_paired

from deltaproof.errors import ConfigError, DataError, DeltaproofError, RecordError
from deltaproof.stats import VERDICTS, compare, holm, mcnemar_exact, mean_interval, two_proportion_z_test


def pair(difference, seed=0):
    """Scores of a contestant and a reference that differ by the given (S, n) values."""
    base = np.random.default_rng(seed).normal(size=np.shape(difference))
    return {"full": base, "lora": base + difference}


def noise(n_seeds=3, n_units=40, seed_spread=0.3, seed=0):
    random = np.random.default_rng(seed)
    of_seeds, of_units = seed_spread * random.normal(size=(n_seeds, 1)), random.normal(size=n_units)
    return of_seeds + of_units + random.normal(size=(n_seeds, n_units))


def mean_squares(difference):
    """Seed and unit mean squares by statsmodels' analysis of variance."""
    seeds, units = np.indices(difference.shape)
    frame = pd.DataFrame({"value": difference.ravel(), "seed": seeds.ravel(), "unit": units.ravel()})
    table = anova_lm(ols("value ~ C(seed) + C(unit)", frame).fit())
    squares = table["sum_sq"] / table["df"]
    return squares["C(seed)"], squares["C(unit)"]


@pytest.mark.parametrize("seed_spread", [0.0, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_the_standard_error_is_made_of_the_mean_squares_of_an_analysis_of_variance(n_seeds, seed_spread):
    difference = noise(n_seeds, seed_spread=seed_spread)
    of_seeds, of_units = mean_squares(difference)
    row = compare(pair(difference), "full", margin=0.1)["lora"]
    assert row.standard_error**2 == pytest.approx((of_seeds + of_units) / difference.size)
    satterthwaite = (of_seeds + of_units) ** 2 / (of_seeds**2 / (n_seeds - 1) + of_units**2 / (difference.shape[1] - 1))
    expected = n_seeds - 1 if of_seeds > of_units / 2 else satterthwaite
    assert row.degrees_of_freedom == pytest.approx(expected)


def test_both_rules_for_degrees_of_freedom_occur():
    few = compare(pair(noise(3, seed_spread=2.0)), "full", margin=0.1)["lora"].degrees_of_freedom
    many = compare(pair(np.tile(noise(1), (3, 1)) + 1e-3 * noise(3)), "full", margin=0.1)["lora"].degrees_of_freedom
    assert few == 2
    assert 30 < many <= 39.1


def test_with_one_seed_the_tests_are_the_paired_t_test_and_the_paired_tost():
    scores = pair(noise(1, 50) * 0.1 + 0.02)
    row = compare(scores, "full", margin=0.05)["lora"]
    ours, theirs = scores["lora"][0], scores["full"][0]
    expected = scipy.stats.ttest_rel(ours, theirs)
    assert row.p_difference == pytest.approx(expected.pvalue)
    assert (row.low, row.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert row.p_equivalence == pytest.approx(ttost_paired(ours, theirs, -0.05, 0.05)[0])
    assert row.note == "one seed: says nothing of other seeds"


def test_where_units_do_not_differ_the_test_is_a_t_test_over_seeds():
    by_seed = np.array([0.1, 0.25, 0.17, 0.3])
    row = compare(pair(np.repeat(by_seed[:, None], 30, axis=1)), "full", margin=0.1)["lora"]
    expected = scipy.stats.ttest_1samp(by_seed, 0)
    assert row.degrees_of_freedom == 3
    assert row.p_difference == pytest.approx(expected.pvalue)
    assert (row.low, row.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_the_mean_interval_of_one_seed_is_the_t_interval_over_units():
    scores = noise(1, 30)
    interval = mean_interval(scores, confidence=0.9)
    expected = scipy.stats.ttest_1samp(scores[0], 0).confidence_interval(0.9)
    assert (interval.low, interval.high) == pytest.approx(tuple(expected))
    assert interval.mean == pytest.approx(scores.mean())
    assert interval.standard_error == pytest.approx(scipy.stats.sem(scores[0]))


def test_the_detectable_difference_is_two_quantiles_of_standard_errors_at_the_hardest_step_of_holm():
    scores = pair(noise())
    row = compare({**scores, "ia3": scores["lora"] + noise(seed=1)}, "full", margin=0.1)["lora"]
    t = scipy.stats.t(row.degrees_of_freedom)
    assert row.detectable_difference == pytest.approx((t.ppf(1 - 0.05 / 4) + t.ppf(0.8)) * row.standard_error)


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_that_of_statsmodels(seed):
    p_values = np.random.default_rng(seed).random(7) ** 3
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1])


def test_holm_of_nothing_is_nothing_and_of_nan_an_error():
    assert holm([]).size == 0
    with pytest.raises(DataError, match=r"p-values must lie in 0\.\.1"):
        holm([0.1, np.nan])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_that_of_statsmodels(answers):
    a, b = np.array(answers).T
    table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
    expected = min(1.0, mcnemar(table, exact=True).pvalue)
    assert mcnemar_exact(a, b) == pytest.approx(expected if np.isfinite(expected) else 1.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000), st.floats(0, 1), st.floats(0, 1))
def test_the_two_proportion_test_is_that_of_statsmodels(n_a, n_b, share_a, share_b):
    a, b = round(share_a * n_a), round(share_b * n_b)
    assume(0 < a + b < n_a + n_b)
    assert two_proportion_z_test(a, n_a, b, n_b) == pytest.approx(proportions_ztest([a, b], [n_a, n_b])[1], abs=1e-12)


def test_two_proportions_that_are_both_all_or_nothing_show_no_difference():
    assert two_proportion_z_test(10, 10, 5, 5) == 1
    assert two_proportion_z_test(0, 10, 0, 5) == 1


def table_of(verdict_of_interest):
    """A difference that leads to each verdict at a margin of 0.1."""
    quiet = 0.01 * noise(3, 40, seed_spread=0)
    return {
        "better": 0.5 + quiet,
        "worse": -0.5 + quiet,
        "equivalent": quiet - quiet.mean(),
        "cannot tell": 20 * noise(3, 40),
    }[verdict_of_interest]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_verdict_can_be_reached(verdict):
    assert compare(pair(table_of(verdict)), "full", margin=0.1)["lora"].verdict == verdict


def test_a_certain_but_small_difference_is_equivalent_and_the_note_says_so():
    difference = 0.008 + 0.0005 * noise(3, 40, seed_spread=0)
    difference += 0.008 - difference.mean()
    row = compare(pair(difference), "full", margin=0.03, unit="fraction")["lora"]
    assert row.verdict == "equivalent"
    assert row.note == "significantly higher by 0.8 points"
    losses = compare(pair(-difference), "full", margin=0.03, higher_is_better=False, unit="nats")["lora"]
    assert losses.difference > 0
    assert losses.note == "significantly lower by 0.008 nats"


def test_a_difference_that_only_holm_takes_back_is_said_to_be_significant_on_its_own():
    scores = pair(0.25 + noise(1, 60) - noise(1, 60).mean())
    alone = compare(scores, "full", margin=1e-6)["lora"]
    scores["lora"] += 2.2 * alone.standard_error - alone.difference
    crowd = {**scores, **{f"other {i}": scores["full"] + noise(1, 60, seed=i) for i in range(4)}}
    row = compare(crowd, "full", margin=1e-6)["lora"]
    assert row.p_difference <= 0.05 < row.p_difference_holm
    assert row.verdict == "cannot tell"
    assert "significant on its own, but not among this many comparisons" in row.note


@pytest.mark.parametrize(("n_units", "verdict"), [(100, "cannot tell"), (298, "cannot tell"), (299, "equivalent")])
def test_identical_answers_are_equivalent_where_chance_could_not_hide_the_margin(n_units, verdict):
    scores = np.ones((3, n_units))  # 0.99^299 < 0.05 < 0.99^298: the rule of three at a margin of one point
    row = compare({"full": scores, "lora": scores.copy()}, "full", margin=0.01)["lora"]
    assert row.verdict == verdict
    assert row.difference == 0
    assert row.high == -row.low == pytest.approx(1 - 0.025 ** (1 / n_units))
    assert row.shown_margin == pytest.approx(1 - 0.05 ** (1 / n_units))
    assert (row.p_difference, row.p_equivalence) == (1, pytest.approx(0.99**n_units))
    assert "what chance could hide" in row.note


@pytest.mark.parametrize("n_seeds", [1, 3])
@pytest.mark.parametrize(("size", "n_units", "verdict"), [
    (1.0, 5, "cannot tell"), (1.0, 6, "better"), (0.1, 38, "cannot tell"), (0.1, 39, "better"),
    (20.0, 5, "cannot tell"), (20.0, 6, "better"),
])  # fmt: skip
def test_a_difference_that_never_varies_is_as_sure_as_its_units_are_many(size, n_units, verdict, n_seeds):
    """At full size the sign test; below it what the units that were not seen could still hide."""
    row = compare(pair(np.full((n_seeds, n_units), size)), "full", margin=0.05)["lora"]
    wanted = 2 * 0.5**n_units if size >= 1 else 2 / (1 + size) ** n_units
    assert row.p_difference == pytest.approx(min(1, wanted))
    assert row.verdict == verdict
    assert (row.low > 0) == (verdict == "better"), "interval and test say the same"
    assert row.shown_margin == pytest.approx(size + 1 - 0.05 ** (1 / n_units))


@pytest.mark.parametrize("n_units", range(2, 7))
def test_a_few_units_that_fall_either_way_alike_seldom_give_a_verdict(n_units):
    """All outcomes of a fair coin, counted: without a floor two in four of two units were called certain."""
    signs = (np.arange(2**n_units)[:, None] >> np.arange(n_units)) % 2 * 2.0 - 1
    wrong = [compare(pair(row[None]), "full", margin=0.01)["lora"].verdict in ("better", "worse") for row in signs]
    assert np.mean(wrong) <= 0.05


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_a_difference_that_never_varies_may_be_too_small_to_matter(n_seeds):
    assert compare(pair(np.full((n_seeds, 70), 0.1)), "full", margin=0.2)["lora"].verdict == "equivalent"


def test_mcnemar_is_noted_for_right_and_wrong_answers_of_one_seed_only():
    random = np.random.default_rng(0)
    right = (random.random((2, 1, 80)) < 0.7).astype(float)
    row = compare({"full": right[0], "lora": right[1]}, "full", margin=0.01)["lora"]
    assert f"exact McNemar test, uncorrected: p = {mcnemar_exact(right[0], right[1]):.3g}" in row.note
    two = {"full": np.repeat(right[0], 2, 0), "lora": np.repeat(right[1], 2, 0)}
    assert compare(two, "full", margin=0.01)["lora"].note == ""


score_tables = arrays(float, (4, 3, 9), elements=st.floats(-2, 2, width=32))


def contestants(values):
    return dict(zip(["full", "lora", "ia3", "head"], values, strict=True))


@settings(max_examples=80, deadline=None)
@given(score_tables)
def test_swapping_contestant_and_reference_turns_the_sign_and_nothing_else(values):
    scores = {"full": values[0], "lora": values[1]}
    ahead, behind = compare(scores, "full", 0.1)["lora"], compare(scores, "lora", 0.1)["full"]
    assert behind.difference == pytest.approx(-ahead.difference, abs=1e-12)
    assert (behind.low, behind.high) == pytest.approx((-ahead.high, -ahead.low), abs=1e-9)
    assert behind.p_difference == pytest.approx(ahead.p_difference)
    assert behind.verdict == {"better": "worse", "worse": "better"}.get(ahead.verdict, ahead.verdict)


@settings(max_examples=80, deadline=None)
@given(score_tables)
def test_for_losses_lower_is_better(values):
    gains = compare(contestants(values), "full", 0.1)
    losses = compare(contestants(-values), "full", 0.1, higher_is_better=False)
    for name, row in gains.items():
        assert dataclasses.replace(losses[name], note="") == dataclasses.replace(row, note="")
        assert ("higher" in losses[name].note) == ("lower" in row.note)
        assert ("lower" in losses[name].note) == ("higher" in row.note)


@settings(max_examples=80, deadline=None)
@given(score_tables, st.integers(-4, 4))
def test_what_is_added_to_everyone_changes_nothing(values, shift):
    values = np.round(values * 64) / 64  # sums of these are exact
    before, after = compare(contestants(values), "full", 0.1), compare(contestants(values + shift), "full", 0.1)
    assert before == after


@settings(max_examples=150, deadline=None)
@given(score_tables, st.floats(0.01, 3))
def test_verdicts_follow_their_precedence_and_the_shown_margin_agrees(values, margin):
    table = compare(contestants(values), "full", margin)
    corrected = holm([row.p_difference for row in table.values()])
    np.testing.assert_array_equal([row.p_difference_holm for row in table.values()], corrected)
    for row in table.values():
        if row.p_equivalence_holm <= 0.05:
            assert row.verdict == "equivalent"
        elif row.p_difference_holm <= 0.05:
            assert row.verdict == ("better" if row.difference > 0 else "worse")
        else:
            assert row.verdict == "cannot tell"
        assert row.p_difference_holm >= row.p_difference
        assert row.p_equivalence_holm >= row.p_equivalence
        if abs(row.shown_margin - margin) > 1e-9:
            assert (row.verdict == "equivalent") == (row.shown_margin < margin)


@settings(max_examples=60, deadline=None)
@given(score_tables)
def test_at_the_shown_margin_equivalence_is_just_shown(values):
    for name, row in compare(contestants(values), "full", 0.5).items():
        assume(row.shown_margin > 1e-6)
        assert compare(contestants(values), "full", row.shown_margin * (1 + 1e-9))[name].verdict == "equivalent"
        assert compare(contestants(values), "full", row.shown_margin * (1 - 1e-9))[name].verdict != "equivalent"


def equal_contestants(random, n_seeds=3, n_units=300):
    """Right and wrong answers of two contestants of one accuracy, each with seeds of its own."""
    difficulty = 1.5 + 2 * random.normal(size=n_units)
    shift = 0.5 * random.normal(size=(2, n_seeds, 1))
    return (difficulty + shift + random.normal(size=(2, n_seeds, n_units)) > 0).astype(float)


def test_pooling_the_seeds_as_if_independent_errs_far_more_often():
    random = np.random.default_rng(0)
    ours = pooled = 0
    for _ in range(400):
        full, lora = equal_contestants(random)
        ours += compare({"full": full, "lora": lora}, "full", margin=1e-9)["lora"].verdict != "cannot tell"
        pooled += scipy.stats.ttest_1samp((lora - full).ravel(), 0).pvalue <= 0.05
    assert ours / 400 <= 0.06
    assert pooled / 400 >= 0.4


ONES = np.ones((2, 4))


@pytest.mark.parametrize(
    ("scores", "options", "error", "message"),
    [
        ({"full": ONES, "lora": np.ones((3, 4))}, {}, RecordError, r"got \(3, 4\) .* for `lora` and \(2, 4\)"),
        ({"full": ONES, "lora": np.ones((2, 5))}, {}, RecordError, "same test split"),
        ({"full": ONES, "lora": [[1, 2, 3, 4], [1, 2]]}, {}, RecordError, "differ in length for `lora`"),
        ({"full": ONES, "lora": ONES * np.nan}, {}, DataError, "finite, got nan for `lora` at seed 0, unit 0"),
        ({"full": np.ones((2, 1)), "lora": np.ones((2, 1))}, {}, DataError, "2 units, got shape"),
        ({"full": np.ones(4), "lora": np.ones(4)}, {}, DataError, r"\(seeds, units\)"),
        ({"full": ONES, "lora": ONES}, {"margin": 0.0}, ConfigError, "`margin > 0` must hold, got 0.0"),
        ({"full": ONES, "lora": ONES}, {"margin": np.nan}, ConfigError, "`margin > 0`"),
        ({"full": ONES, "lora": ONES}, {"alpha": 1.5}, ConfigError, "`0 < alpha < 1` must hold, got 1.5"),
        ({"full": ONES, "lora": ONES}, {"reference": "ful"}, ConfigError, "did you mean `full`"),
    ],
)
def test_scores_that_cannot_be_compared_get_an_error_with_a_remedy(scores, options, error, message):
    with pytest.raises(error, match=message):
        compare(scores, **{"reference": "full", "margin": 0.03, **options})


def test_counts_and_answers_that_make_no_sense_are_refused():
    with pytest.raises(DataError, match="got 5 of 4"):
        two_proportion_z_test(5, 4, 1, 4)
    with pytest.raises(RecordError, match="got 2 and 3"):
        mcnemar_exact([1, 0], [1, 0, 1])
    with pytest.raises(DataError, match=r"right .* or wrong"):
        mcnemar_exact([0.5], [1])
    with pytest.raises(DeltaproofError, match="2 units"):
        mean_interval([[0.5]])


def test_a_reference_alone_has_nothing_to_be_compared_with():
    assert compare({"full": ONES}, "full", margin=0.1) == {}
