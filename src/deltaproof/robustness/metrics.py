"""What perturbations cost, paired example by example: drop, attack success, flips, and each at matched clean accuracy.

Scores and answers are (S, n): S paired seeds, n examples in one order, clean and perturbed alike. Every interval holds
for other seeds and another test set (`deltaproof.stats`); with one seed it says nothing of other seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from deltaproof.errors import DataError, RecordError, nearest
from deltaproof.stats import Interval, mean_interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Robustness:
    """How one method stands one perturbed set."""

    clean: Interval
    perturbed: Interval
    drop: Interval
    """Clean minus perturbed score."""
    relative: Interval | None
    """Perturbed over clean score; None where the clean score is 0."""
    attack_success: Interval | None
    """Of the examples right when clean, the share that the perturbation makes wrong; None where none was right, or
    where clean scores are not right (1) or wrong (0)."""


@dataclass(frozen=True)
class MatchedFlips:
    """Two methods on the examples that both had right when clean: there both have the same clean accuracy, 1."""

    n_examples: float
    """How many such examples there were, on average over the seeds."""
    first: Interval
    """Share of them that the first method then has wrong."""
    second: Interval
    difference: Interval
    """First minus second: positive where the first is the more fragile."""


@dataclass(frozen=True)
class DropAtEqualAccuracy:
    """Drop regressed on clean accuracy over checkpoints: drop = a_method + b clean."""

    slope: Interval
    """b: how much more a checkpoint drops for each point of clean accuracy, within a method."""
    differences: dict[str, Interval]
    """Method to its a minus the reference's: the difference in drop at equal clean accuracy."""
    n_checkpoints: int
    n_runs: int


def robustness(
    clean: ArrayLike, perturbed: ArrayLike, groups: Sequence[str] | None = None, confidence: float = 0.95
) -> Robustness:
    """Drop, relative robustness and attack success rate, with intervals.

    Args:
        clean: (S, n) scores per example, higher is better, such as 1 for a right answer and 0 for a wrong one.
        perturbed: the same for the perturbed examples; for several draws of a perturbation, their mean.
        groups: name of the group of each example, where examples belong together: then groups are the units.

    >>> found = robustness([[1, 1, 1, 1, 0, 0]], [[1, 1, 0, 0, 0, 1]])
    >>> [round(part.mean, 3) for part in (found.drop, found.relative, found.attack_success)]
    [0.167, 0.75, 0.5]
    """
    before, after = _paired(clean, perturbed)
    are_answers = bool(np.isin(before, (0, 1)).all() and ((after >= 0) & (after <= 1)).all())
    return Robustness(
        mean_interval(by_group(before, groups), confidence),
        mean_interval(by_group(after, groups), confidence),
        mean_interval(by_group(before - after, groups), confidence),
        ratio_interval(after, before, groups, confidence),
        _share(ratio_interval(before * (1 - after), before, groups, confidence)) if are_answers else None,
    )


def flip_rate(
    clean: ArrayLike, perturbed: ArrayLike, groups: Sequence[str] | None = None, confidence: float = 0.95
) -> Interval:
    """Share of examples whose answer changes, be it right or wrong.

    Args:
        clean: (S, n) answers, such as class indices.
        perturbed: the same for the perturbed examples.
    """
    before, after = _paired(clean, perturbed)
    return share_interval((before != after).astype(float), groups, confidence)


def share_interval(values: ArrayLike, groups: Sequence[str] | None = None, confidence: float = 0.95) -> Interval:
    """Where the mean of values in 0..1 lies, such as of flips averaged over several draws: a share as well.

    Args:
        values: (S, n).
    """
    return _share(mean_interval(by_group(_scores("values", values), groups), confidence))


def matched_flips(
    clean: tuple[ArrayLike, ArrayLike],
    perturbed: tuple[ArrayLike, ArrayLike],
    groups: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> MatchedFlips | None:
    """Flip rates of two methods on the examples that both had right when clean, by seed; None where there are none.

    Args:
        clean: (S, n) right (1) or wrong (0) of the first method and of the second, seeds paired.
        perturbed: the same for the perturbed examples; for several draws of a perturbation, the share of right ones.
    """
    (a, a_after), (b, b_after) = (_paired(*both) for both in zip(clean, perturbed, strict=True))
    _require_answers(a, b)
    if not all(((after >= 0) & (after <= 1)).all() for after in (a_after, b_after)):
        raise DataError("answers must be right (1) or wrong (0), or shares of right ones, got other values")
    _paired(a, b)
    both = a * b
    rates = [
        ratio_interval(both * wrong, both, groups, confidence)
        for wrong in (1 - a_after, 1 - b_after, b_after - a_after)
    ]
    if rates[0] is None or rates[1] is None or rates[2] is None:
        return None
    return MatchedFlips(float(both.sum(axis=1).mean()), _share(rates[0]), _share(rates[1]), rates[2])


def ratio_interval(
    numerator: ArrayLike, denominator: ArrayLike, groups: Sequence[str] | None = None, confidence: float = 0.95
) -> Interval | None:
    """Where the ratio of two sums over the examples lies; None where the lower sum is 0.

    The ratio R of the means is linearised: unit i counts with R + (numerator_i - R denominator_i) / mean denominator.
    Source: Cochran, 1977, Sampling Techniques, 3rd ed., sec. 2.11. Units that stand in neither sum are left out, so
    that the share of successes among the right answers is reckoned on the right answers.
    """
    top, bottom = _paired(numerator, denominator)
    top, bottom = by_group(top, groups), by_group(bottom, groups)
    if not bottom.sum():
        return None
    counts = ((top != 0) | (bottom != 0)).any(axis=0)
    if counts.sum() < 2:  # one example shows no spread
        counts[:] = True
    top, bottom = top[:, counts], bottom[:, counts]
    ratio = float(top.sum() / bottom.sum())
    return mean_interval(ratio + (top - ratio * bottom) / bottom.mean(), confidence)


def drop_between(
    clean: ArrayLike, other: ArrayLike, groups: Sequence[str] | None = None, other_groups: Sequence[str] | None = None
) -> Array:
    """Clean minus other score where the other rows are others, such as an adversarial set's: values that can be judged.

    Two samples of n and m units, N in all: unit i of the first counts with D + N / n (clean_i - mean), unit j of the
    second with D - N / m (other_j - mean), D the seed's difference of means. Their mean is D and their variance over N
    is var / n + var / m, that of the difference of two independent means.

    Args:
        clean: (S, n) scores per example.
        other: (S, m) scores of the same seeds on the other rows.
    Returns:
        (S, n + m), or (S, groups of both).

    >>> float(drop_between([[1, 1, 0, 0]], [[1, 0]]).mean())
    0.0
    """
    first, second = by_group(_scores("clean", clean), groups), by_group(_scores("other", other), other_groups)
    if len(first) != len(second):
        raise RecordError(f"both sides must share seeds, got {len(first)} and {len(second)}; pair the runs by seed")
    n, m = first.shape[1], second.shape[1]
    ahead, behind = first.mean(axis=1, keepdims=True), second.mean(axis=1, keepdims=True)
    spread = [(n + m) / n * (first - ahead), -(n + m) / m * (second - behind)]
    return np.asarray(ahead - behind + np.concatenate(spread, axis=1))


def robust_curve(
    scores: Mapping[float, ArrayLike], groups: Sequence[str] | None = None, confidence: float = 0.95
) -> dict[float, Interval]:
    """Mean score by strength (share of edits, epsilon, size of noise), weakest first.

    Args:
        scores: strength to (S, n) scores per example; strength 0 is the clean one.
    """
    checked = _same_shape({str(strength): values for strength, values in scores.items()})
    return {
        strength: mean_interval(by_group(checked[str(strength)], groups), confidence) for strength in sorted(scores)
    }


def worst_case(scores: Mapping[str, ArrayLike]) -> Array:
    """(S, n) each example's lowest score over several perturbed sets: right only where right in all of them."""
    return np.asarray(np.min(list(_same_shape(scores).values()), axis=0))


def contrast_consistency(correct: ArrayLike, sets: Sequence[str], confidence: float = 0.95) -> Interval:
    """Share of contrast sets, or counterfactual pairs, in which every example is right.

    Args:
        correct: (S, n) right (1) or wrong (0).
        sets: name of the contrast set of each example.
    Source: Gardner et al., 2020, arXiv:2004.02709, sec. 2.2 ("contrast consistency").
    """
    values = _scores("correct", correct)
    _require_answers(values)
    names, member = _members(sets, values.shape[1])
    whole = np.ones((len(values), len(names)))
    for seed in range(len(values)):
        np.minimum.at(whole[seed], member, values[seed])
    return _share(mean_interval(whole, confidence))


def pair_consistency(
    answers: ArrayLike, other_answers: ArrayLike, targets: ArrayLike, other_targets: ArrayLike,
    confidence: float = 0.95,
) -> Interval:  # fmt: skip
    """Share of pairs in which the answer changes exactly where the label does, be the answers right or wrong.

    Args:
        answers: (S, n) answers to the originals.
        other_answers: (S, n) answers to their counterparts.
        targets: (n,) labels of the originals.
        other_targets: (n,) labels of the counterparts: others for counterfactuals, the same for paraphrases.
    """
    one, other = _paired(answers, other_answers)
    changes = np.asarray(targets).ravel() != np.asarray(other_targets).ravel()
    if changes.size != one.shape[1]:
        raise RecordError(
            f"each pair needs its labels, got {one.shape[1]} pairs and {changes.size} labels; give them in one order"
        )
    return _share(mean_interval(((one != other) == changes).astype(float), confidence))


def drop_at_equal_accuracy(
    clean: ArrayLike,
    drop: ArrayLike,
    methods: Sequence[str],
    runs: Sequence[Any],
    reference: str,
    confidence: float = 0.95,
) -> DropAtEqualAccuracy:
    """How much more a method drops than the reference at equal clean accuracy, over checkpoints of several runs.

    Ordinary least squares with one slope for all and an intercept for each method. Checkpoints of one run are alike, so
    standard errors are clustered by run (CR1: with the small-sample factor G / (G - 1) * (N - 1) / (N - k)), with
    G - k degrees of freedom, below the usual G - 1 since runs are few. Source: Cameron and Miller, 2015,
    doi:10.3368/jhr.50.2.317.
    Clean accuracy stands on both sides (drop = clean - perturbed), so chance in it tilts the slope upwards: read the
    differences, and the slope only with care.

    Args:
        clean: (N,) clean score of each checkpoint.
        drop: (N,) clean minus perturbed score.
        methods: (N,) whose checkpoint it is.
        runs: (N,) which run it is from; a run is of one method.
    Raises:
        DataError: too few runs, or clean scores that do not vary within the methods.
        RecordError: sequences that differ in length.
    """
    x, y = np.asarray(clean, dtype=float).ravel(), np.asarray(drop, dtype=float).ravel()
    if not len(x) == len(y) == len(methods) == len(runs):
        raise RecordError(
            f"each checkpoint needs a score, a drop, a method and a run, got {len(x)}, {len(y)}, {len(methods)} and "
            f"{len(runs)}; give them in one order"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("scores must be finite, got others; leave out checkpoints that diverged")
    names = list(dict.fromkeys(methods))
    if reference not in names:
        raise DataError(f"the reference must have checkpoints, got none of `{reference}`; {nearest(reference, names)}")
    others = [name for name in names if name != reference]
    own = np.array([[method == name for name in others] for method in methods], dtype=float).reshape(len(x), -1)
    centred = x - x.mean()
    design = np.column_stack([np.ones(len(x)), centred, own])
    clusters, member = np.unique(
        np.array([f"{m}/{r}" for m, r in zip(methods, runs, strict=True)]), return_inverse=True
    )
    n_runs, n_terms = len(clusters), design.shape[1]
    if n_runs <= n_terms:
        raise DataError(
            f"at least {n_terms + 1} runs are needed for {len(names)} methods, got {n_runs}; give more seeds"
        )
    if np.linalg.matrix_rank(design) < n_terms:
        raise DataError("clean scores must vary within the methods, they do not; give checkpoints of several steps")
    bread = np.linalg.inv(design.T @ design)
    weights = bread @ design.T @ y
    residual = y - design @ weights
    per_run = np.zeros((n_runs, n_terms))
    np.add.at(per_run, member, design * residual[:, None])
    factor = n_runs / (n_runs - 1) * (len(x) - 1) / (len(x) - n_terms)
    errors = np.sqrt(np.diag(bread @ (per_run.T @ per_run) @ bread) * factor)
    reach = float(stdtrit(n_runs - n_terms, 1 - (1 - confidence) / 2))
    terms = [
        Interval(float(w), float(w - reach * e), float(w + reach * e), float(e))
        for w, e in zip(weights, errors, strict=True)
    ]
    return DropAtEqualAccuracy(terms[1], dict(zip(others, terms[2:], strict=True)), len(x), n_runs)


@overload
def _share(interval: Interval) -> Interval: ...
@overload
def _share(interval: None) -> None: ...
def _share(interval: Interval | None) -> Interval | None:
    """An interval of a share, which lies in 0..1."""
    if interval is None:
        return None
    return replace(interval, low=max(interval.low, 0.0), high=min(interval.high, 1.0))


def by_group(values: Array, groups: Sequence[str] | None) -> Array:
    """(S, units) of (S, n), with the same mean: a group counts with G / n times the sum over its examples.

    Args:
        groups: name of the group of each example; None where each stands alone.
    """
    if groups is None:
        return values
    names, member = _members(groups, values.shape[1])
    sums = np.stack([np.bincount(member, weights=row, minlength=len(names)) for row in values])
    return np.asarray(sums * (len(names) / values.shape[1]))


def _members(groups: Sequence[str], n_examples: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
    if len(groups) != n_examples:
        raise RecordError(f"each example needs its group, got {n_examples} examples and {len(groups)} groups")
    return np.unique(np.asarray(groups), return_inverse=True)


def _scores(name: str, values: ArrayLike) -> Array:
    scores = np.asarray(values, dtype=float)
    if scores.ndim != 2:
        raise DataError(f"`{name}` must be (seeds, examples), got shape {scores.shape}; put one seed into a list")
    if not np.isfinite(scores).all():
        raise DataError(f"`{name}` must be finite, got other values; leave out a run that diverged")
    return scores


def _same_shape(scores: Mapping[str, ArrayLike]) -> dict[str, Array]:
    checked = {name: _scores(name, values) for name, values in scores.items()}
    if len({values.shape for values in checked.values()}) != 1:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in checked.items()) or "none"
        raise RecordError(f"sets must share seeds and examples, got {shapes}; pair them by id")
    return checked


def _paired(one: ArrayLike, other: ArrayLike) -> tuple[Array, Array]:
    first, second = _scores("clean", one), _scores("perturbed", other)
    if first.shape != second.shape:
        raise RecordError(
            f"both sides must share seeds and examples, got {first.shape} and {second.shape}; pair them by id"
        )
    return first, second


def _require_answers(*values: Array) -> None:
    if not all(np.isin(array, (0, 1)).all() for array in values):
        raise DataError("answers must be right (1) or wrong (0), got other values; give one per example")
