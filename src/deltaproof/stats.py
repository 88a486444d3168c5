"""Verdicts: is a contestant better, worse or equivalent, given few seeds and a finite test set?

A score varies for two reasons: another seed, another test set. Both terms enter each standard error. Pooling the
examples of several seeds as if they were independent leaves the first one out and finds differences that are not there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtr, stdtr, stdtrit

from deltaproof.errors import ConfigError, DataError, RecordError, nearest

Array = NDArray[np.float64]
Verdict = Literal["better", "worse", "equivalent", "cannot tell"]
VERDICTS: tuple[Verdict, ...] = ("better", "worse", "equivalent", "cannot tell")
POWER = 0.80
"""Chance of finding a difference as large as `Comparison.detectable_difference`."""
ROUNDING = 1e-12
"""A standard error below this share of the largest value is rounding, and read as zero."""


@dataclass(frozen=True)
class Interval:
    """A mean score over seeds and units, and where it would lie with other seeds and another test set."""

    mean: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class Comparison:
    """What can be said of one contestant against the reference. Positive differences mean better than the reference."""

    difference: float
    low: float
    """Lower end of the interval at 1 - alpha of this comparison alone: not corrected for several, as the verdict is."""
    high: float
    standard_error: float
    degrees_of_freedom: float
    p_difference: float
    """Two-sided t-test of no difference."""
    p_equivalence: float
    """Two one-sided t-tests of a difference of at least the margin."""
    verdict: Verdict
    note: str
    """What a reader should know beside the verdict; empty where there is nothing."""
    detectable_difference: float
    """True difference that would be found with a chance of about 0.80, as the hardest step of Holm's procedure.

    As rough as the standard error it is made from: with 3 seeds one experiment's value may well be half another's.
    """
    equivalence_margin: float
    shown_margin: float
    """Smallest margin, common to all comparisons, at which Holm's procedure would have shown equivalence here."""
    n_seeds: int
    n_units: int
    p_difference_holm: float
    p_equivalence_holm: float


@dataclass(frozen=True)
class _Estimate:
    """A mean over seeds and units with its standard error."""

    mean: float
    standard_error: float
    degrees_of_freedom: float
    n_units: int

    @property
    def reach(self) -> float:
        """How far below the others a unit's difference could lie: to -1 for scores in 0..1, and as far on the other
        side of 0 where differences are larger than such scores allow."""
        return max(1 + abs(self.mean), 2 * abs(self.mean))

    def half_width(self, tail: float, reach: float = 1.0) -> float:
        """Distance that the t-distribution exceeds, on one side, with the chance `tail`.

        Where nothing varied, that is no proof that nothing can: a share p of units that differ goes unseen in n units
        with the chance (1 - p)^n, which gives the rule of three for scores in 0..1. Source: Hanley and
        Lippman-Hand, 1983, doi:10.1001/jama.1983.03330370053031.

        Args:
            reach: how far such units could lie from those that were seen.
        """
        if self.standard_error == 0:
            return float(reach * (1 - tail ** (1 / self.n_units)))
        return float(stdtrit(self.degrees_of_freedom, 1 - tail)) * self.standard_error

    def p_difference(self) -> float:
        """Where nothing varied, the chance to see none of the units that would make the difference 0, were they the
        share |d| / reach: for |d| of 1 and above that is the sign test's 2^(1 - n)."""
        if self.standard_error == 0:
            return float(min(1.0, 2 * (1 - abs(self.mean) / self.reach) ** self.n_units))
        return float(2 * stdtr(self.degrees_of_freedom, -abs(self.mean) / self.standard_error))

    def p_equivalence(self, margin: float) -> float:
        """TOST: the larger of the two one-sided p-values. Source: Schuirmann, 1987, doi:10.1007/BF01068419."""
        slack = margin - abs(self.mean)
        if self.standard_error == 0:
            return float((1 - min(max(slack, 0.0), 1.0)) ** self.n_units)
        return float(stdtr(self.degrees_of_freedom, -slack / self.standard_error))


def _estimate(values: Array) -> _Estimate:
    """Mean of (S, n) values with crossed seed and unit terms.

    Each mean square also holds what seeds and units do jointly, so their sum counts that part twice: the standard
    error errs on the large side, most where seeds hardly differ. Degrees of freedom after Satterthwaite, 1946,
    doi:10.2307/3002019, but S - 1 as soon as seeds matter, since S estimates of a variance are few.
    """
    n_seeds, n_units = values.shape
    unit_square = n_seeds * values.mean(axis=0).var(ddof=1)
    seed_square = n_units * values.mean(axis=1).var(ddof=1) if n_seeds > 1 else 0.0
    total = unit_square + seed_square
    mean, error = float(values.mean()), float(np.sqrt(total / values.size))
    if error <= ROUNDING * np.abs(values).max():
        return _Estimate(mean, 0.0, float(n_seeds - 1 or n_units - 1), n_units)
    if n_seeds == 1:
        return _Estimate(mean, error, float(n_units - 1), n_units)
    if seed_square > unit_square / 2:
        return _Estimate(mean, error, float(n_seeds - 1), n_units)
    share = seed_square / total
    freedom = 1 / (share**2 / (n_seeds - 1) + (1 - share) ** 2 / (n_units - 1))
    return _Estimate(mean, error, float(freedom), n_units)


def mean_interval(scores: ArrayLike, confidence: float = 0.95) -> Interval:
    """Where a method's mean score lies, other seeds and another test set considered.

    Args:
        scores: (S, n), one score per seed and unit; with a single seed the interval says nothing of other seeds.
        confidence: chance, in 0..1, that such intervals hold the truth.
    Raises:
        DataError: fewer than two units, or values that are not finite.
        ConfigError: a confidence outside 0..1.
    """
    _require_share("confidence", confidence)
    estimate = _estimate(_checked("scores", scores))
    half = estimate.half_width((1 - confidence) / 2)
    return Interval(estimate.mean, estimate.mean - half, estimate.mean + half, estimate.standard_error)


def compare(
    scores: Mapping[str, ArrayLike],
    reference: str,
    margin: float,
    alpha: float = 0.05,
    higher_is_better: bool = True,
    unit: str = "",
    level: float | None = None,
) -> dict[str, Comparison]:
    """What the runs show about each contestant against the reference.

    The difference of scores is taken within each pair of seeds and within each unit. A two-sided t-test asks for a
    difference, two one-sided tests for equivalence; each family is corrected over all contestants. Equivalence comes
    first: a difference can be certain and yet too small to matter.

    Args:
        scores: contestant to (S, n), a score per paired seed and unit (example or group), all in the same order.
        reference: the contestant that the others are held against.
        margin: largest difference, in units of the score, that does not matter.
        alpha: chance of a wrong "better" or "worse" anywhere, and likewise of a wrong "equivalent".
        higher_is_better: False for errors and losses; the differences come out positive for better all the same.
        unit: "fraction" makes notes speak of points (hundredths), any other text follows the number.
        level: p-values up to this give a verdict; alpha when left out. A planned look has a smaller one (`looks.py`).
    Returns:
        contestant to Comparison, without the reference.
    Raises:
        ConfigError: unknown reference, a margin that is not positive, an alpha outside 0..1.
        RecordError: contestants that differ in seeds or units.
        DataError: fewer than two units, or values that are not finite.

    >>> scores = {"full": [[1, 1, 0, 1] * 50] * 2, "lora": [[1, 1, 0, 1] * 50] * 2}
    >>> compare(scores, "full", margin=0.03)["lora"].verdict
    'equivalent'
    """
    _require_share("alpha", alpha)
    if not (np.isfinite(margin) and margin > 0):
        raise ConfigError(f"`margin > 0` must hold, got {margin}; give the largest difference that does not matter")
    if reference not in scores:
        raise ConfigError(f"the reference must be a contestant, got `{reference}`; {nearest(reference, scores)}")
    checked = {name: _checked(name, values) for name, values in scores.items()}
    differences = _differences(checked, reference, higher_is_better)
    estimates = {name: _estimate(values) for name, values in differences.items()}
    different = holm([estimate.p_difference() for estimate in estimates.values()])
    equivalent = holm([estimate.p_equivalence(margin) for estimate in estimates.values()])
    level = alpha if level is None else level
    shown = _shown_margins(list(estimates.values()), level)
    table = {}
    for position, (name, estimate) in enumerate(estimates.items()):
        n_seeds, n_units = differences[name].shape
        half = estimate.half_width(alpha / 2, estimate.reach)
        p_different, p_equivalent = float(different[position]), float(equivalent[position])
        verdict = _decide(estimate.mean, p_different, p_equivalent, level)
        table[name] = Comparison(
            difference=estimate.mean,
            low=estimate.mean - half,
            high=estimate.mean + half,
            standard_error=estimate.standard_error,
            degrees_of_freedom=estimate.degrees_of_freedom,
            p_difference=estimate.p_difference(),
            p_equivalence=estimate.p_equivalence(margin),
            verdict=verdict,
            note="; ".join(
                [
                    *_notes(verdict, estimate, p_different, level, higher_is_better, unit),
                    *_single_seed_notes(checked[name], checked[reference]),
                ]
            ),
            detectable_difference=estimate.half_width(level / 2 / len(estimates)) + estimate.half_width(1 - POWER),
            equivalence_margin=float(margin),
            shown_margin=shown[position],
            n_seeds=n_seeds,
            n_units=n_units,
            p_difference_holm=p_different,
            p_equivalence_holm=p_equivalent,
        )
    return table


def holm(p_values: ArrayLike) -> Array:
    """P-values that hold over a whole family: compare each with alpha as it stands.

    Source: Holm, 1979, Scandinavian Journal of Statistics 6(2), the step-down procedure.

    >>> holm([0.01, 0.04, 0.03]).round(4).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=float).ravel()
    if not np.all((values >= 0) & (values <= 1)):
        raise DataError(f"p-values must lie in 0..1, got {values.tolist()}; leave out comparisons that were not made")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1)
    return adjusted


def mcnemar_exact(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """P-value of equal accuracy for two single runs on the same examples; it says nothing of other seeds.

    Source: McNemar, 1947, doi:10.1007/BF02295996, in the exact binomial form.

    >>> mcnemar_exact([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0])
    0.03125
    """
    a, b = np.asarray(correct_a).ravel(), np.asarray(correct_b).ravel()
    if a.shape != b.shape:
        raise RecordError(f"both runs must answer the same examples, got {a.size} and {b.size}; pair them by id")
    if not (_is_binary(a) and _is_binary(b)):
        raise DataError("answers must be right (1) or wrong (0), got other values; give one per example")
    only_a, only_b = int(np.sum(a > b)), int(np.sum(b > a))
    return float(min(1.0, 2 * bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def two_proportion_z_test(successes_a: float, n_a: int, successes_b: float, n_b: int) -> float:
    """P-value of equal proportions in two independent samples: two-sided, pooled variance.

    Two samples that are both all success or both all failure give 1: they show no difference.

    >>> round(two_proportion_z_test(60, 100, 50, 100), 4)
    0.1552
    """
    for successes, n in ((successes_a, n_a), (successes_b, n_b)):
        if not (n > 0 and 0 <= successes <= n):
            raise DataError(f"`0 <= successes <= n` and `n > 0` must hold, got {successes} of {n}; give counts")
    pooled = (successes_a + successes_b) / (n_a + n_b)
    variance = pooled * (1 - pooled) * (1 / n_a + 1 / n_b)
    if variance == 0:
        return 1.0
    return float(2 * ndtr(-abs(successes_a / n_a - successes_b / n_b) / np.sqrt(variance)))


def _decide(difference: float, p_different: float, p_equivalent: float, alpha: float) -> Verdict:
    if p_equivalent <= alpha:
        return "equivalent"
    if p_different <= alpha:
        return "better" if difference > 0 else "worse"
    return "cannot tell"


def _shown_margins(estimates: Sequence[_Estimate], alpha: float) -> list[float]:
    """For each comparison the smallest common margin at which Holm's procedure shows equivalence.

    With k hypotheses left, TOST rejects one at |difference| + t(1 - alpha / k) SE. Taking the cheapest each time, the
    margin that a comparison needs is the largest paid so far.
    """
    shown = [0.0] * len(estimates)
    left, paid = set(range(len(estimates))), 0.0
    while left:
        price = {i: abs(estimates[i].mean) + estimates[i].half_width(alpha / len(left)) for i in left}
        cheapest = min(left, key=lambda i: price[i])
        paid = max(paid, price[cheapest])
        shown[cheapest] = paid
        left.remove(cheapest)
    return shown


def _notes(
    verdict: Verdict, estimate: _Estimate, p_different: float, alpha: float, higher_is_better: bool, unit: str
) -> list[str]:
    notes = []
    if verdict == "equivalent" and p_different <= alpha:
        direction = "higher" if (estimate.mean > 0) == higher_is_better else "lower"
        notes.append(f"significantly {direction} by {_amount(abs(estimate.mean), unit)}")
    if verdict == "cannot tell" and estimate.p_difference() <= alpha:
        notes.append("significant on its own, but not among this many comparisons")
    if estimate.standard_error == 0:
        notes.append("the same difference at every unit and seed: the interval is what chance could hide")
    return notes


def _single_seed_notes(scores: Array, reference: Array) -> list[str]:
    if scores.shape[0] > 1:
        return []
    notes = ["one seed: says nothing of other seeds"]
    if _is_binary(scores) and _is_binary(reference):
        notes.append(f"exact McNemar test, uncorrected: p = {mcnemar_exact(scores, reference):.3g}")
    return notes


def _amount(value: float, unit: str) -> str:
    if unit == "fraction":
        return f"{100 * value:.1f} points" if value >= 0.001 else f"{100 * value:.1g} points"
    return f"{value:.3g} {unit}".strip()


def _differences(scores: dict[str, Array], reference: str, higher_is_better: bool) -> dict[str, Array]:
    base = scores[reference]
    for name, values in scores.items():
        if values.shape != base.shape:
            raise RecordError(
                f"contestants must share seeds and units, got {values.shape} (seeds, units) for `{name}` and "
                f"{base.shape} for `{reference}`; compare runs of the same seeds on the same test split"
            )
    sign = 1 if higher_is_better else -1
    return {name: sign * (values - base) for name, values in scores.items() if name != reference}


def _checked(name: str, scores: ArrayLike) -> Array:
    try:
        values = np.asarray(scores, dtype=float)
    except ValueError:
        raise RecordError(
            f"all seeds must share their units, got rows that differ in length for `{name}`; test all on one split"
        ) from None
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise DataError(
            f"scores must be (seeds, units) with at least 1 seed and 2 units, got shape {values.shape} for `{name}`; "
            f"test on more examples or groups"
        )
    if not np.isfinite(values).all():
        seed, position = np.argwhere(~np.isfinite(values))[0]
        raise DataError(
            f"scores must be finite, got {values[seed, position]} for `{name}` at seed {seed}, unit {position}; "
            f"leave out a run that diverged"
        )
    return values


def _require_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"`0 < {name} < 1` must hold, got {value}; 0.05 and 0.95 are usual")


def _is_binary(values: NDArray[Any]) -> bool:
    return bool(np.isin(values, (0, 1)).all())
