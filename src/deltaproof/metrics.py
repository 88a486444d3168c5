"""Metrics: how good answers are, as one score and as one value per example that a paired test can use.

A metric that is a mean over examples splits into them. One that is not (F1, MCC, correlations, calibration error) gives
jackknife pseudo-values n * score - (n - 1) * score without the example, whose spread is that of the score.
Source: Tukey, 1958, Annals of Mathematical Statistics 29, p. 614; Miller, 1974, doi:10.1093/biomet/61.1.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from deltaproof.errors import ConfigError, DataError, nearest
from deltaproof.records.record import Predictions
from deltaproof.registry import Registry

Array = NDArray[Any]
Evaluation = tuple[float, Array]
"""A score and its values per example."""
N_BINS = 15
"""Bins of the calibration error, as in Guo et al., 2017, arXiv:1706.04599, sec. 4."""
CONSTANT = 1e-13
"""Deviations below this share of the values are rounding: such values count as constant."""


@dataclass(frozen=True)
class Metric:
    """One way to score answers, with its direction and unit."""

    name: str
    kinds: tuple[str, ...]
    """Kinds of task it is for: `classification`, `regression`, `multilabel`."""
    higher_is_better: bool
    unit: str
    """`fraction` (0..1, shown as points), `nats`, or empty."""
    summary: str
    evaluate: Callable[[Array, Array], Evaluation]
    """Targets (n, t) and outputs (n, k), already checked, to the score and its values per example."""

    def score(self, targets: Array, outputs: Array) -> float:
        """The score; shapes as in `Predictions`, and a DataError where they are broken."""
        return self.evaluate(*_checked(self, targets, outputs))[0]

    def per_example(self, targets: Array, outputs: Array) -> Array:
        """(n,) values whose mean is the score, or, for pseudo-values, the score freed of its leading bias."""
        return self.evaluate(*_checked(self, targets, outputs))[1]


METRICS: Registry[Metric] = Registry("metric")
_DEFAULTS = {
    "classification": ["accuracy", "macro_f1", "mcc", "balanced_accuracy", "nll", "brier", "ece"],
    "regression": ["spearman", "pearson", "rmse", "mae"],
    "multilabel": ["micro_f1", "macro_f1", "exact_match", "nll", "brier"],
}


def default_metrics(kind: str) -> list[str]:
    """Names of the metrics reported for a kind of task; the first decides unless the user says otherwise."""
    if kind not in _DEFAULTS:
        raise ConfigError(f"a task must be of a known kind, got `{kind}`; {nearest(kind, _DEFAULTS)}")
    return list(_DEFAULTS[kind])


def per_unit(metric: Metric | str, predictions: Predictions) -> Array:
    """The values that verdicts compare: one per example, or one per group where examples belong together.

    Returns:
        (n,) in the order of the examples, or (groups,) in the order of the sorted group names, where a group's value is
        G / n times the sum over its examples, so that the mean over groups is the mean over examples.
    """
    chosen = METRICS[metric] if isinstance(metric, str) else metric
    values = chosen.per_example(predictions.targets, predictions.outputs)
    if predictions.groups is None:
        return values
    names, member = np.unique(np.asarray(predictions.groups), return_inverse=True)
    return np.bincount(member, weights=values) * (len(names) / len(values))


def _metric(
    name: str, *kinds: str, higher_is_better: bool = True, unit: str = ""
) -> Callable[[Callable[[Array, Array], Evaluation]], Metric]:
    """Register a function of targets and outputs as a metric; its docstring is the summary."""

    def enter(evaluate: Callable[[Array, Array], Evaluation]) -> Metric:
        summary = " ".join((evaluate.__doc__ or "").split())
        metric = Metric(name, kinds, higher_is_better, unit, summary, evaluate)
        METRICS.add(name)(metric)
        return metric

    return enter


def _decomposed(values: Array) -> Evaluation:
    values = np.asarray(values, dtype=float)
    return float(values.mean()), values


def _jackknifed(score: float, left_out: Array) -> Evaluation:
    """Pseudo-values from the scores without each example."""
    n = len(left_out)
    return float(score), n * score - (n - 1) * left_out


# Metrics of labels. Every one below is a function of three counts per class: hits, how often it is the truth, how often
# it is the answer. Leaving an example out takes its row from the counts, so all n scores come in O(n * classes).


def _counted(statistic: Callable[[Array, Array, Array], Array], targets: Array, outputs: Array) -> Evaluation:
    actual, answered = _indicators(targets, outputs)
    rows = (actual * answered, actual, answered)
    totals = [row.sum(axis=0) for row in rows]
    left_out = statistic(*(total - row for total, row in zip(totals, rows, strict=True)))
    return _jackknifed(float(statistic(*totals)), left_out)


def _indicators(targets: Array, outputs: Array) -> tuple[Array, Array]:
    """(n, classes) of 0 and 1: what is true, what is answered (the most probable class; for multi-label, from 1/2)."""
    if _is_multilabel(targets, outputs):
        return targets, (outputs >= 0.5).astype(float)
    classes = np.arange(outputs.shape[1])
    return (targets == classes).astype(float), (outputs.argmax(axis=1)[:, None] == classes).astype(float)


def _ratio(above: Array, below: Array) -> Array:
    """above / below, and 0 where there is nothing to divide by."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)


def _f1(hits: Array, actual: Array, answered: Array) -> Array:
    return _ratio(2 * hits, actual + answered)


@_metric("accuracy", "classification", unit="fraction")
def _accuracy(targets: Array, outputs: Array) -> Evaluation:
    """Share of examples whose most probable class is the right one."""
    return _decomposed(outputs.argmax(axis=1) == targets[:, 0])


@_metric("macro_f1", "classification", "multilabel", unit="fraction")
def _macro_f1(targets: Array, outputs: Array) -> Evaluation:
    """Mean over all classes of F1, the harmonic mean of precision and recall; a class never right counts as 0."""
    # All classes, not those seen: else one stray answer would change what a contestant's score is a mean of.
    return _counted(lambda *counts: _f1(*counts).mean(axis=-1), targets, outputs)


@_metric("micro_f1", "multilabel", unit="fraction")
def _micro_f1(targets: Array, outputs: Array) -> Evaluation:
    """F1 over all decisions, one per example and label, taken together."""
    return _counted(lambda *counts: _f1(*(count.sum(axis=-1) for count in counts)), targets, outputs)


@_metric("balanced_accuracy", "classification", unit="fraction")
def _balanced_accuracy(targets: Array, outputs: Array) -> Evaluation:
    """Mean over the classes that occur of the share of their examples that is found."""

    def statistic(hits: Array, actual: Array, answered: Array) -> Array:
        return _ratio(_ratio(hits, actual).sum(axis=-1), (actual > 0).sum(axis=-1))

    return _counted(statistic, targets, outputs)


@_metric("mcc", "classification")
def _mcc(targets: Array, outputs: Array) -> Evaluation:
    """Matthews correlation of answers with truth: 1 for perfect, 0 for chance or for a single answer throughout."""

    # Source: Gorodkin, 2004, doi:10.1016/j.compbiolchem.2004.09.006, eq. 8, in counts.
    def statistic(hits: Array, actual: Array, answered: Array) -> Array:
        n = actual.sum(axis=-1)
        covariance = n * hits.sum(axis=-1) - (actual * answered).sum(axis=-1)
        variances = (n**2 - (actual**2).sum(axis=-1)) * (n**2 - (answered**2).sum(axis=-1))
        return _ratio(covariance, np.sqrt(variances))

    return _counted(statistic, targets, outputs)


@_metric("exact_match", "multilabel", unit="fraction")
def _exact_match(targets: Array, outputs: Array) -> Evaluation:
    """Share of examples with every label right."""
    return _decomposed(((outputs >= 0.5) == (targets > 0.5)).all(axis=1))


# Metrics of probabilities.


@_metric("nll", "classification", "multilabel", higher_is_better=False, unit="nats")
def _nll(targets: Array, outputs: Array) -> Evaluation:
    """Mean negative logarithm of the probability given to the truth; for multi-label, the mean over labels."""
    if _is_multilabel(targets, outputs):
        truth = np.where(targets > 0.5, outputs, 1 - outputs)
    else:
        truth = np.take_along_axis(outputs, targets.astype(int), axis=1)
    # A probability rounded to zero would make one example outweigh all others.
    return _decomposed(-np.log(np.clip(truth, np.finfo(float).eps, 1)).mean(axis=1))


@_metric("brier", "classification", "multilabel", higher_is_better=False)
def _brier(targets: Array, outputs: Array) -> Evaluation:
    """Squared distance of probabilities from the truth: 0..1 for two classes and for labels, 0..2 for more classes."""
    if _is_multilabel(targets, outputs):
        return _decomposed(((outputs - targets) ** 2).mean(axis=1))
    squares = ((outputs - _indicators(targets, outputs)[0]) ** 2).sum(axis=1)
    return _decomposed(squares / 2 if outputs.shape[1] == 2 else squares)


@_metric("ece", "classification", higher_is_better=False, unit="fraction")
def _ece(targets: Array, outputs: Array) -> Evaluation:
    """Expected calibration error: how far confidence is from accuracy, averaged over 15 bins of confidence."""
    confidence = outputs.max(axis=1)
    gap = (outputs.argmax(axis=1) == targets[:, 0]) - confidence
    bins = np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)
    gaps = np.bincount(bins, weights=gap, minlength=N_BINS)
    total, n = np.abs(gaps).sum(), len(gap)
    without = total - np.abs(gaps[bins]) + np.abs(gaps[bins] - gap)
    return _jackknifed(total / n, without / max(n - 1, 1))


# Metrics of values.


@_metric("mae", "regression", higher_is_better=False)
def _mae(targets: Array, outputs: Array) -> Evaluation:
    """Mean absolute error, in units of the target."""
    return _decomposed(np.abs(outputs - targets)[:, 0])


@_metric("rmse", "regression", higher_is_better=False)
def _rmse(targets: Array, outputs: Array) -> Evaluation:
    """Square root of the mean squared error, in units of the target."""
    squares = (outputs - targets)[:, 0] ** 2
    n = len(squares)
    return _jackknifed(np.sqrt(squares.mean()), np.sqrt(np.maximum(squares.sum() - squares, 0) / max(n - 1, 1)))


@_metric("pearson", "regression")
def _pearson(targets: Array, outputs: Array) -> Evaluation:
    """Linear correlation of outputs with targets; 0 where either is constant."""
    x, y = _centred(targets[:, 0]), _centred(outputs[:, 0])
    xx, yy, xy, n = (x**2).sum(), (y**2).sum(), (x * y).sum(), len(x)
    # Without example i, the sum of products about the new mean is smaller by x_i y_i n / (n - 1).
    weight = n / max(n - 1, 1)
    left_xx = np.where(xx - weight * x**2 > CONSTANT * xx, xx - weight * x**2, 0)
    left_yy = np.where(yy - weight * y**2 > CONSTANT * yy, yy - weight * y**2, 0)
    left_out = _ratio(xy - weight * x * y, np.sqrt(left_xx * left_yy))
    return _jackknifed(float(_ratio(xy, np.sqrt(xx * yy))), np.clip(left_out, -1, 1))


def _centred(values: Array) -> Array:
    deviations = values - values.mean()
    if np.abs(deviations).max() <= CONSTANT * np.abs(values).max():
        deviations = np.zeros_like(values)
    return np.asarray(deviations)


@_metric("spearman", "regression")
def _spearman(targets: Array, outputs: Array) -> Evaluation:
    """Correlation of the ranks of outputs and targets, ties at their mean rank; 0 where either is constant."""
    x, y = rankdata(targets[:, 0]), rankdata(outputs[:, 0])
    n = len(x)
    xx, yy = _rank_square(x, n), _rank_square(y, n)
    score = _ratio((x * y).sum() - n * ((n + 1) / 2) ** 2, np.sqrt(xx * yy))
    # Without example i a rank above its own falls by 1 and a tied one by 1/2; the new mean rank is n / 2.
    above_x, above_y = _sum_above(x, y), _sum_above(y, x)
    products = (x * y).sum() - x * y - (above_x - y / 2) - (above_y - x / 2) + (_joint_above(x, y) - 1 / 4)
    left_xx, left_yy = _rank_square_without(x), _rank_square_without(y)
    left_out = _ratio(products - (n - 1) * (n / 2) ** 2, np.sqrt(left_xx * left_yy))
    return _jackknifed(float(score), left_out)


def _rank_square(ranks: Array, n: int) -> Array:
    """Sum of squared deviations of mid-ranks: (n^3 - n) / 12, less (t^3 - t) / 12 for each t that are tied."""
    ties = np.unique(ranks, return_counts=True)[1].astype(float)
    return np.asarray((float(n) ** 3 - n - (ties**3 - ties).sum()) / 12)


def _rank_square_without(ranks: Array) -> Array:
    """The same without each example, whose group of t ties becomes one of t - 1."""
    n = float(len(ranks))
    _, member, counts = np.unique(ranks, return_inverse=True, return_counts=True)
    own = counts[member].astype(float)
    ties = counts.astype(float)
    rest = (ties**3 - ties).sum() - 3 * own * (own - 1)
    return np.asarray(((n - 1) ** 3 - (n - 1) - rest) / 12)


def _sum_above(keys: Array, weights: Array) -> Array:
    """For each example, the sum of weights over those of a greater key, and half of it over those of an equal one."""
    _, member = np.unique(keys, return_inverse=True)
    sums = np.bincount(member, weights=weights)
    return np.asarray((sums.sum() - np.cumsum(sums) + sums / 2)[member])


def _joint_above(x: Array, y: Array) -> Array:
    """For each example, over all examples, the sum of (1 if x is greater, 1/2 if equal) times the same for y."""
    x = np.unique(x, return_inverse=True)[1]
    y = np.unique(y, return_inverse=True)[1]
    x_above_y_tied, tied = _above_within(y, x)
    y_above_x_tied, _ = _above_within(x, y)
    # By x, and among equal x by falling y: whoever comes later with a greater y has a greater x as well.
    order = np.lexsort((-y, x))
    both = np.empty(len(x))
    both[order] = _later_and_greater(y[order])
    return both + (x_above_y_tied + y_above_x_tied) / 2 + tied / 4


def _above_within(groups: Array, keys: Array) -> tuple[Array, Array]:
    """For each example, how many of its group have a greater key, and how many (itself included) the same."""
    width = int(keys.max()) + 1
    codes = groups * width + keys
    ordered = np.sort(codes)
    end = np.searchsorted(ordered, codes, side="right")
    return np.searchsorted(ordered, (groups + 1) * width) - end, end - np.searchsorted(ordered, codes)


def _later_and_greater(values: Array) -> Array:
    """For each position, how many later positions hold a greater value: O(n log^2 n), by blocks of doubling width."""
    n, top = len(values), int(values.max()) + 1
    counts = np.zeros(n)
    width = 1
    while width < n:
        block = np.arange(n) // width
        ordered = np.sort(block * top + values)
        left = block % 2 == 0
        codes = (block[left] + 1) * top
        smaller = np.searchsorted(ordered, codes + values[left], side="right")
        counts[left] += np.searchsorted(ordered, codes + top) - smaller
        width *= 2
    return counts


def _is_multilabel(targets: Array, outputs: Array) -> bool:
    # A classification has one target column and at least two classes.
    return bool(targets.shape[1] == outputs.shape[1])


def _checked(metric: Metric, targets: Array, outputs: Array) -> tuple[Array, Array]:
    targets, outputs = np.asarray(targets, dtype=float), np.asarray(outputs, dtype=float)
    shapes = f"targets {targets.shape} and outputs {outputs.shape}"
    if targets.ndim != 2 or outputs.ndim != 2 or len(targets) != len(outputs) or not targets.size or not outputs.size:
        raise DataError(f"`{metric.name}` needs (n, t) and (n, k) with n >= 1, got {shapes}; give one row per example")
    for name, values in (("targets", targets), ("outputs", outputs)):
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0, 0])
            found = f"{values[row].tolist()} at example {row}"
            raise DataError(f"{name} must be finite, got {found}; leave out a run that diverged")
    if "regression" in metric.kinds:
        right, remedy = targets.shape[1] == outputs.shape[1] == 1, "give one target and one output per example"
    elif _is_multilabel(targets, outputs):
        right, remedy = "multilabel" in metric.kinds and bool(np.isin(targets, (0, 1)).all()), "give targets of 0 and 1"
    else:
        right = targets.shape[1] == 1 and "classification" in metric.kinds
        right = right and bool(((targets == np.round(targets)) & (targets >= 0) & (targets < outputs.shape[1])).all())
        remedy = "give class indices 0..k-1 and a probability per class"
    if not right:
        raise DataError(f"`{metric.name}` is for {' and '.join(metric.kinds)}, got other {shapes}; {remedy}")
    if "regression" not in metric.kinds and not ((outputs >= -1e-6) & (outputs <= 1 + 1e-6)).all():
        found = f"{outputs.min():.3g} to {outputs.max():.3g}"
        raise DataError(f"outputs must be probabilities, got {found}; apply softmax or sigmoid")
    return targets, outputs
