"""Scores against scikit-learn and scipy; values per example against leaving each example out by hand."""

import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from deltaproof.errors import ConfigError, DataError
from deltaproof.metrics import METRICS, N_BINS, default_metrics, per_unit
from deltaproof.records.record import Predictions

JACKKNIFED = {"macro_f1", "micro_f1", "balanced_accuracy", "mcc", "ece", "rmse", "pearson", "spearman"}


def classification(n=60, classes=3, seed=0):
    """Unbalanced targets and probabilities that lean towards them."""
    random = np.random.default_rng(seed)
    targets = random.choice(classes, size=n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = random.normal(size=(n, classes)) + 1.2 * np.eye(classes)[targets]
    outputs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return targets[:, None].astype(float), outputs


def multilabel(n=60, labels=4, seed=0):
    random = np.random.default_rng(seed)
    targets = (random.random((n, labels)) < 0.35).astype(float)
    return targets, 1 / (1 + np.exp(-random.normal(size=(n, labels)) - 1.5 * (2 * targets - 1)))


def regression(n=60, seed=0, ties=True):
    random = np.random.default_rng(seed)
    targets = random.normal(3, 1.5, size=(n, 1))
    outputs = targets + random.normal(size=(n, 1))
    return (np.round(targets), np.round(outputs * 2) / 2) if ties else (targets, outputs)


DATA = {"classification": classification, "multilabel": multilabel, "regression": regression}
CASES = [(name, kind) for name, metric in METRICS.items() for kind in metric.kinds]


def log_loss(targets, outputs):
    return sk.log_loss(targets[:, 0], outputs / outputs.sum(axis=1, keepdims=True), labels=range(outputs.shape[1]))


def brier(targets, outputs):
    binary = outputs.shape[1] == 2
    return sk.brier_score_loss(
        targets[:, 0], outputs[:, 1] if binary else outputs, labels=None if binary else range(outputs.shape[1])
    )


def calibration_error(targets, outputs):
    correct, confidence = outputs.argmax(1) == targets[:, 0], outputs.max(1)
    accuracies, confidences = calibration_curve(correct, confidence, n_bins=N_BINS, strategy="uniform")
    counts = np.histogram(confidence, bins=N_BINS, range=(0, 1))[0]
    return np.sum(counts[counts > 0] / len(confidence) * np.abs(accuracies - confidences))


def answers(outputs):
    return outputs.argmax(axis=1)


REFERENCES = {
    ("accuracy", "classification"): lambda t, o: sk.accuracy_score(t, answers(o)),
    ("macro_f1", "classification"): lambda t, o: sk.f1_score(
        t[:, 0], answers(o), average="macro", labels=range(o.shape[1]), zero_division=0
    ),
    ("balanced_accuracy", "classification"): lambda t, o: sk.balanced_accuracy_score(t, answers(o)),
    ("mcc", "classification"): lambda t, o: sk.matthews_corrcoef(t[:, 0], answers(o)),
    ("nll", "classification"): log_loss,
    ("brier", "classification"): brier,
    ("ece", "classification"): calibration_error,
    ("micro_f1", "multilabel"): lambda t, o: sk.f1_score(t, o >= 0.5, average="micro", zero_division=0),
    ("macro_f1", "multilabel"): lambda t, o: sk.f1_score(t, o >= 0.5, average="macro", zero_division=0),
    ("exact_match", "multilabel"): lambda t, o: sk.accuracy_score(t, o >= 0.5),
    ("nll", "multilabel"): lambda t, o: sk.log_loss(t.ravel(), o.ravel()),
    ("brier", "multilabel"): lambda t, o: sk.brier_score_loss(t.ravel(), o.ravel()),
    ("rmse", "regression"): sk.root_mean_squared_error,
    ("mae", "regression"): sk.mean_absolute_error,
    ("pearson", "regression"): lambda t, o: scipy.stats.pearsonr(t[:, 0], o[:, 0]).statistic,
    ("spearman", "regression"): lambda t, o: scipy.stats.spearmanr(t[:, 0], o[:, 0]).statistic,
}


def left_out(score, targets, outputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array(
            [score(np.delete(targets, i, axis=0), np.delete(outputs, i, axis=0)) for i in range(len(targets))]
        )


def test_every_metric_has_a_reference_that_we_did_not_write():
    assert set(REFERENCES) == set(CASES)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_score_is_that_of_scikit_learn_or_scipy(name, kind, seed):
    targets, outputs = DATA[kind](seed=seed)
    assert METRICS[name].score(targets, outputs) == pytest.approx(REFERENCES[name, kind](targets, outputs), abs=1e-12)


@pytest.mark.parametrize("name", [name for name, kind in CASES if kind == "classification"])
def test_two_classes_score_as_in_scikit_learn(name):
    targets, outputs = classification(classes=2, seed=5)
    expected = REFERENCES[name, "classification"](targets, outputs)
    assert METRICS[name].score(targets, outputs) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_values_per_example_are_those_of_leaving_each_example_out(name, kind):
    targets, outputs = DATA[kind](n=35, seed=1)
    reference = REFERENCES[name, kind]
    score, n = reference(targets, outputs), len(targets)
    expected = n * score - (n - 1) * left_out(reference, targets, outputs)
    np.testing.assert_allclose(METRICS[name].per_example(targets, outputs), expected, atol=1e-9)


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[0] not in JACKKNIFED])
def test_the_mean_of_the_values_per_example_is_the_score_where_a_metric_is_a_mean(name, kind):
    targets, outputs = DATA[kind](seed=2)
    assert METRICS[name].per_example(targets, outputs).mean() == pytest.approx(METRICS[name].score(targets, outputs))


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[0] in JACKKNIFED - {"ece"}])
def test_pseudo_values_average_to_the_score_up_to_its_bias(name, kind):
    targets, outputs = DATA[kind](n=2000, seed=3)
    metric = METRICS[name]
    assert metric.per_example(targets, outputs).mean() == pytest.approx(metric.score(targets, outputs), abs=2e-3)


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[0] in JACKKNIFED])
def test_pseudo_values_spread_as_the_score_does_over_bootstrap_samples(name, kind):
    targets, outputs = DATA[kind](n=400, seed=4)
    random = np.random.default_rng(0)
    picks = random.integers(0, 400, size=(400, 400))
    spread = np.std([METRICS[name].score(targets[pick], outputs[pick]) for pick in picks])
    error = METRICS[name].per_example(targets, outputs).std(ddof=1) / 400**0.5
    assert error == pytest.approx(spread, rel=0.3 if name == "ece" else 0.15)


def test_a_rare_class_that_leaves_with_its_only_example_is_handled_as_scikit_learn_does():
    targets, outputs = classification(n=30, classes=4, seed=6)
    targets[targets == 0] = 1
    targets[0] = 0
    for name in ("macro_f1", "balanced_accuracy", "mcc"):
        reference = REFERENCES[name, "classification"]
        expected = 30 * reference(targets, outputs) - 29 * left_out(reference, targets, outputs)
        np.testing.assert_allclose(METRICS[name].per_example(targets, outputs), expected, atol=1e-9)


def test_macro_f1_counts_a_class_that_neither_occurs_nor_is_answered_as_zero():
    targets, outputs = np.array([[0.0], [1.0]]), np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    assert METRICS["macro_f1"].score(targets, outputs) == pytest.approx(2 / 3)


values = st.lists(st.integers(0, 5), min_size=3, max_size=25)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_spearman_without_each_example_is_exact_whatever_the_ties(data):
    x = np.array(data.draw(values), dtype=float)
    y = np.array(data.draw(st.lists(st.integers(0, 5), min_size=len(x), max_size=len(x))), dtype=float)

    def reference(a, b):
        constant = len(np.unique(a)) == 1 or len(np.unique(b)) == 1
        return 0.0 if constant else scipy.stats.spearmanr(a[:, 0], b[:, 0]).statistic

    score, n = reference(x[:, None], y[:, None]), len(x)
    expected = n * score - (n - 1) * left_out(reference, x[:, None], y[:, None])
    np.testing.assert_allclose(METRICS["spearman"].per_example(x[:, None], y[:, None]), expected, atol=1e-9)


def test_spearman_is_quick_on_many_examples():
    targets, outputs = regression(n=20_000, ties=False)
    pseudo = METRICS["spearman"].per_example(targets, outputs)
    chosen = [0, 77, 19_999]
    without = [
        scipy.stats.spearmanr(np.delete(targets[:, 0], i), np.delete(outputs[:, 0], i)).statistic for i in chosen
    ]
    expected = 20_000 * METRICS["spearman"].score(targets, outputs) - 19_999 * np.array(without)
    np.testing.assert_allclose(pseudo[chosen], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e8])
def test_a_model_that_answers_the_same_everywhere_has_no_correlation(name, constant):
    targets, _ = regression(n=20)
    outputs = np.full((20, 1), constant)
    assert METRICS[name].score(targets, outputs) == 0
    assert not METRICS[name].per_example(targets, outputs).any()


def test_pearson_without_the_only_example_that_varies_is_zero():
    targets, outputs = regression(n=12)
    outputs[:] = 0.3
    outputs[4] = 2.0
    score = METRICS["pearson"].score(targets, outputs)
    assert METRICS["pearson"].per_example(targets, outputs)[4] == pytest.approx(12 * score, abs=1e-9)


def test_a_correlation_is_unmoved_by_a_large_offset():
    targets, outputs = regression(n=50, ties=False)
    shifted = METRICS["pearson"].per_example(targets + 1e6, outputs - 1e6)
    np.testing.assert_allclose(shifted, METRICS["pearson"].per_example(targets, outputs), atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_one_example_gives_a_finite_value(name, kind):
    targets, outputs = DATA[kind](n=1)
    assert np.isfinite(METRICS[name].per_example(targets, outputs)).all()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_perfect_answers_reach_the_best_score(name, kind):
    targets, _ = DATA[kind](n=40, seed=8)
    outputs = np.eye(3)[targets[:, 0].astype(int)] if kind == "classification" else targets
    best = 1.0 if METRICS[name].higher_is_better else 0.0
    assert METRICS[name].score(targets, outputs) == pytest.approx(best, abs=1e-12)


def test_a_probability_of_zero_for_the_truth_stays_finite():
    assert METRICS["nll"].score(np.array([[0.0]]), np.array([[0.0, 1.0]])) == pytest.approx(36.04, abs=0.01)


def test_groups_are_units_whose_mean_is_the_mean_over_examples():
    targets, outputs = classification(n=9)
    groups = ["b", "a", "b", "c", "a", "b", "b", "c", "b"]
    predictions = Predictions([str(i) for i in range(9)], groups, targets, outputs)
    each = METRICS["accuracy"].per_example(targets, outputs)
    units = per_unit("accuracy", predictions)
    assert units.shape == (3,)
    assert units.mean() == pytest.approx(each.mean())
    np.testing.assert_allclose(units, [3 / 9 * each[np.array(groups) == name].sum() for name in "abc"])


def test_without_groups_each_example_is_a_unit():
    targets, outputs = multilabel(n=7)
    units = per_unit(METRICS["micro_f1"], Predictions([str(i) for i in range(7)], None, targets, outputs))
    np.testing.assert_array_equal(units, METRICS["micro_f1"].per_example(targets, outputs))


@pytest.mark.parametrize(
    ("kind", "first"), [("classification", "accuracy"), ("regression", "spearman"), ("multilabel", "micro_f1")]
)
def test_the_default_metrics_of_a_kind_fit_it_and_begin_with_the_one_that_decides(kind, first):
    names = default_metrics(kind)
    assert names[0] == first
    assert all(kind in METRICS[name].kinds for name in names)


def test_every_metric_explains_itself_in_a_sentence():
    for name in METRICS:
        assert METRICS[name].summary.endswith(".")
        assert METRICS[name].unit in ("fraction", "nats", "")


def test_an_unknown_kind_or_metric_names_the_near_one():
    with pytest.raises(ConfigError, match="did you mean `regression`"):
        default_metrics("regresion")
    with pytest.raises(ConfigError, match="did you mean `accuracy`"):
        METRICS["acuracy"]


@pytest.mark.parametrize(
    ("name", "targets", "outputs", "message"),
    [
        ("accuracy", [[0.0], [1.0]], [[0.5, 0.5], [np.nan, 0.5]], "outputs must be finite, got .* at example 1"),
        ("accuracy", [[0.0], [2.0]], [[0.5, 0.5], [0.5, 0.5]], "give class indices"),
        ("accuracy", [[0.0]], [[3.0, -1.0]], "must be probabilities, got -1 to 3; apply softmax"),
        ("accuracy", [[1.0, 0.0]], [[0.3, 0.7]], "is for classification"),
        ("micro_f1", [[1.0, 3.0]], [[0.3, 0.7]], "targets of 0 and 1"),
        ("rmse", [[1.0, 3.0]], [[0.3, 0.7]], "one target and one output"),
        ("rmse", [1.0, 3.0], [0.3, 0.7], "one row per example"),
        ("mae", np.zeros((0, 1)), np.zeros((0, 1)), "n >= 1"),
        ("mae", np.zeros((3, 1)), np.zeros((2, 1)), "one row per example"),
    ],
)
def test_broken_predictions_get_an_error_with_a_remedy(name, targets, outputs, message):
    with pytest.raises(DataError, match=message):
        METRICS[name].score(np.array(targets), np.array(outputs))
