"""Curves over parameters or examples: how fast a score grows, whether returns diminish, and where two methods cross.

Gains and bends are sums over the points, so that their intervals are those of any mean over seeds and test units
(`deltaproof.stats`). Power laws and crossings are not: their intervals come from one bootstrap over seeds and test
units, crossed, since both decide where a point lies: units are drawn jointly for all points, which were scored on the
same test set, and seeds jointly for all points of a curve.
Source of the resampling: Efron and Tibshirani, 1993, An Introduction to the Bootstrap, ch. 13 (percentile intervals).
Drawn from S seeds a mean varies by only (S - 1) / S of what it should, half of it for two: the draws are stretched
by as much. Source: Rao and Wu, 1988, doi:10.1080/01621459.1988.10478591.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar, nnls

from deltaproof.errors import DataError
from deltaproof.stats import mean_interval

Array = NDArray[np.float64]
Curve = Mapping[float, Array]
"""x (parameters, examples) to the scores of its runs, (seeds, units), higher is better."""
EXPONENTS = (0.01, 4.0)
"""Range in which exponents are looked for; a fit that ends at an end of it says so."""
N_DRAWS = 1000


@dataclass(frozen=True)
class Bounds:
    """An estimate and where it would lie with other seeds and another test set."""

    value: float
    low: float
    high: float

    @property
    def is_positive(self) -> bool:
        return self.low > 0

    @property
    def is_negative(self) -> bool:
        return self.high < 0


@dataclass(frozen=True)
class PowerLaw:
    """error = floor + scale * x^-exponent."""

    floor: Bounds
    scale: Bounds
    exponent: Bounds
    is_at_edge: bool
    """Whether the exponent ended at the edge of the range that was searched: then the data do not determine it."""

    def at(self, x: float) -> float:
        return float(self.floor.value + self.scale.value * x**-self.exponent.value)


@dataclass(frozen=True)
class Line:
    """score = start + slope x."""

    start: float
    slope: float
    aicc: float
    """Akaike's criterion, corrected for few points; infinite below five."""

    def at(self, x: float) -> float:
        return self.start + self.slope * x


@dataclass(frozen=True)
class Concave:
    """score = ceiling - scale x^-exponent: a power law of the distance to a ceiling, which may lie anywhere."""

    ceiling: float
    scale: float
    exponent: float
    aicc: float
    """As of the line; infinite below six points."""

    def at(self, x: float) -> float:
        return float(self.ceiling - self.scale * x**-self.exponent)


@dataclass(frozen=True)
class Growth:
    """How the score grows with x."""

    gains: tuple[Bounds, ...]
    """Gain per doubling of x, between neighbouring points."""
    bend: Bounds
    """Change of the gain per doubling from one doubling to the next, averaged: below zero where returns diminish."""
    bend_in_x: Bounds
    """The same per unit of x, in units of the whole gain: the weaker claim, that the curve is concave."""
    aicc_concave: float
    """Of score = a - b x^-c."""
    aicc_linear: float
    """Of score = a + b x."""
    verdict: Literal["diminishing", "not diminishing", "cannot tell"]
    """Of the gain per doubling."""


@dataclass(frozen=True)
class Crossover:
    """Where one method overtakes the other."""

    verdict: Literal["crossover", "no crossover in range", "cannot tell"]
    at: Bounds | None
    """The x of the crossing, where draws cross at all."""
    crossing_fraction: float
    """Share of the draws in which the curves cross exactly once."""
    ahead_before: str
    """Which method is ahead at the smallest x."""
    ahead_after: str


def power_law(curve: Curve, n_draws: int = N_DRAWS, seed: int = 0) -> PowerLaw:
    """Fit error = c + a x^-b to 1 - score, with 0 <= c and 0 <= a; x counts examples.

    Raises:
        DataError: fewer than four points, for three parameters.

    >>> points = {float(x): np.full((1, 4), 1 - 0.1 - 2 * x**-0.5) for x in (64, 256, 1024, 4096)}
    >>> fit = power_law(points, n_draws=2)
    >>> round(fit.floor.value, 3), round(fit.scale.value, 3), round(fit.exponent.value, 3)
    (0.1, 2.0, 0.5)
    """
    _require_points(curve, 4, "a power law")
    x = _xs(curve)

    def fit(means: Array) -> Array:
        return _power_law(x, 1 - means)

    value = fit(_means(curve))
    draws = np.stack([fit(means) for means in _draws([curve], n_draws, seed, lambda drawn: drawn[0])])
    floor, scale, exponent = (_bounds(value[at], draws[:, at]) for at in range(3))
    edge = min(abs(math.log(exponent.value / end)) for end in EXPONENTS) < 0.02
    return PowerLaw(floor, scale, exponent, edge)


def growth(curve: Curve) -> Growth:
    """Gains per doubling, whether they shrink, and which of a concave and a straight curve fits better.

    Raises:
        DataError: fewer than three points.
    """
    _require_points(curve, 3, "diminishing returns")
    x = _xs(curve)
    means = _means(curve)
    scores = _common(curve)
    gains = tuple(_mean_bounds(gain) for gain in np.moveaxis(_gains(x, scores), -1, 0))
    bend = _mean_bounds(_bend(np.log2(x), scores))
    whole = max(abs(means[-1] - means[0]), 1e-12)
    bend_in_x = _mean_bounds(_bend((x - x[0]) / (x[-1] - x[0]), scores) / whole)
    verdict: Literal["diminishing", "not diminishing", "cannot tell"] = "cannot tell"
    if bend.is_negative:
        verdict = "diminishing"
    elif bend.low >= 0 and means[-1] > means[0]:
        verdict = "not diminishing"
    return Growth(gains, bend, bend_in_x, concave(x, means).aicc, line(x, means).aicc, verdict)


def line(x: ArrayLike, scores: ArrayLike) -> Line:
    """The straight line through mean scores, by least squares.

    >>> fit = line([1, 2, 4, 8, 16], [0.1, 0.2, 0.4, 0.8, 1.6])
    >>> round(fit.start, 6), round(fit.slope, 6)
    (0.0, 0.1)
    """
    at, means = np.asarray(x, dtype=float), np.asarray(scores, dtype=float)
    columns = np.stack([np.ones_like(at), at / at[-1]], axis=1)
    weights = np.linalg.lstsq(columns, means, rcond=None)[0]
    return Line(float(weights[0]), float(weights[1] / at[-1]), _aicc(means - columns @ weights, 3))


def concave(x: ArrayLike, scores: ArrayLike) -> Concave:
    """The rising concave curve through mean scores, by least squares; a level one where they do not rise.

    >>> fit = concave([1, 2, 4, 8, 16, 32], [0.9 - 0.4 * n**-0.5 for n in (1, 2, 4, 8, 16, 32)])
    >>> round(fit.ceiling, 2), round(fit.scale, 2), round(fit.exponent, 1)
    (0.9, 0.4, 0.5)
    """
    at, means = np.asarray(x, dtype=float), np.asarray(scores, dtype=float)
    best = Concave(float(means.mean()), 0.0, 1.0, _aicc(means - means.mean(), 4))
    least = float(np.square(means - means.mean()).sum())
    for exponent in np.geomspace(*EXPONENTS, 200):
        columns = np.stack([np.ones_like(at), -((at / at[0]) ** -exponent)], axis=1)
        weights = np.linalg.lstsq(columns, means, rcond=None)[0]
        residuals = means - columns @ weights
        if weights[1] >= 0 and float(residuals @ residuals) < least:
            least = float(residuals @ residuals)
            scale = float(weights[1] * at[0] ** exponent)
            best = Concave(float(weights[0]), scale, float(exponent), _aicc(residuals, 4))
    return best


def crossover(curves: Mapping[str, Curve], n_draws: int = N_DRAWS, seed: int = 0, certain: float = 0.95) -> Crossover:
    """Where the second of two curves overtakes the first, or the other way round, on a logarithmic x.

    A crossing is a change of sign of the difference, placed by straight lines between neighbouring points. "crossover"
    and "no crossover in range" are said when at least the share `certain` of the draws agrees.

    Raises:
        DataError: not two curves, fewer than two common points, or other test units.
    """
    if len(curves) != 2:
        raise DataError(f"a crossover is of two curves, got {len(curves)}; name two methods")
    (one, first), (two, second) = curves.items()
    common = sorted(set(first) & set(second))
    _require_points({x: first[x] for x in common}, 2, "a crossover")
    pair = [{x: first[x] for x in common}, {x: second[x] for x in common}]
    x = np.log(np.array(common))
    means = _means(pair[0]) - _means(pair[1])
    draws = np.stack(list(_draws(pair, n_draws, seed, lambda drawn: drawn[0] - drawn[1])))
    crossings = [_crossing(x, difference) for difference in draws]
    found = np.array([at for at in crossings if at is not None])
    share = len(found) / len(draws)
    never = float(np.mean((draws > 0).all(axis=1) | (draws < 0).all(axis=1)))
    verdict: Literal["crossover", "no crossover in range", "cannot tell"] = "cannot tell"
    if share >= certain:
        verdict = "crossover"
    elif never >= certain:
        verdict = "no crossover in range"
    here = _crossing(x, means)
    at = _bounds(float(np.exp(here)), np.exp(found)) if here is not None and len(found) else None
    return Crossover(verdict, at, share, one if means[0] > 0 else two, one if means[-1] > 0 else two)


def _draws(curves: Sequence[Curve], n_draws: int, seed: int, of: Callable[[list[Array]], Array]) -> list[Array]:
    """`of` the curves' mean scores, each (points,), in every draw of units and seeds."""
    n_units = _n_units(curves)
    n_seeds = min(len(scores) for curve in curves for scores in curve.values())
    stretch = math.sqrt(n_seeds / (n_seeds - 1)) if n_seeds > 1 else 0.0
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(n_draws):
        weights = np.bincount(draw.integers(n_units, size=n_units), minlength=n_units) / n_units
        seeds = np.bincount(draw.integers(n_seeds, size=n_seeds), minlength=n_seeds) / n_seeds
        seeds = 1 / n_seeds + stretch * (seeds - 1 / n_seeds)
        found.append(
            of([np.array([seeds @ (curve[x][:n_seeds] @ weights) for x in sorted(curve)]) for curve in curves])
        )
    return found


def _n_units(curves: Sequence[Curve]) -> int:
    units = {scores.shape[1] for curve in curves for scores in curve.values()}
    if len(units) != 1:
        raise DataError(
            f"points of a curve must be scored on one test set, got sets of {sorted(units)} units; use the "
            f"same test file"
        )
    return int(units.pop())


def _common(curve: Curve) -> Array:
    """(seeds, units, points) of the seeds that every point has."""
    _n_units([curve])
    n_seeds = min(map(len, curve.values()))
    return np.stack([curve[x][:n_seeds] for x in sorted(curve)], axis=-1)


def _mean_bounds(values: Array) -> Bounds:
    """Of the mean of (seeds, units); of values that do not vary at all, the mean itself."""
    found = mean_interval(values)
    if found.standard_error == 0:
        return Bounds(found.mean, found.mean, found.mean)
    return Bounds(found.mean, found.low, found.high)


def _means(curve: Curve) -> Array:
    return np.array([curve[x].mean() for x in sorted(curve)])


def _xs(curve: Curve) -> Array:
    return np.array(sorted(curve), dtype=float)


def _bounds(value: float, draws: Array) -> Bounds:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Bounds(float(value), float(low), float(high))


def _power_law(x: Array, errors: Array) -> Array:
    """Floor, scale and exponent by least squares: linear in the first two, so that only the exponent is searched."""
    scale = x / np.exp(np.log(x).mean())  # near 1, so that both columns are of one size

    def solve(log_exponent: float) -> tuple[Array, float]:
        columns = np.stack([np.ones_like(x), scale ** -math.exp(log_exponent)], axis=1)
        weights, misfit = nnls(columns, errors)
        return weights, float(misfit)

    grid = np.linspace(math.log(EXPONENTS[0]), math.log(EXPONENTS[1]), 60)
    best = int(np.argmin([solve(float(at))[1] for at in grid]))
    bracket = (float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)]))
    found = minimize_scalar(lambda at: solve(at)[1], bounds=bracket, method="bounded", options={"xatol": 1e-9})
    exponent = math.exp(float(found.x))
    floor, factor = solve(float(found.x))[0]
    return np.array([floor, factor * float(np.exp(np.log(x).mean())) ** exponent, exponent])


def _gains(x: Array, scores: Array) -> Array:
    return np.diff(scores, axis=-1) / np.diff(np.log2(x))


def _bend(x: Array, scores: Array) -> Array:
    """Mean second divided difference: of a parabola a x^2 it is 2 a, wherever the points lie."""
    slopes = np.diff(scores, axis=-1) / np.diff(x)
    middles = (x[1:] + x[:-1]) / 2
    bend: Array = (np.diff(slopes, axis=-1) / np.diff(middles)).mean(axis=-1)
    return bend


def _aicc(residuals: Array, n_parameters: int) -> float:
    """Akaike's criterion, corrected for few points; the noise is one of the parameters. Infinite where points are too
    few. Source: Hurvich and Tsai, 1989, doi:10.1093/biomet/76.2.297."""
    n = len(residuals)
    if n - n_parameters - 1 <= 0:
        return math.inf
    misfit = max(float(residuals @ residuals) / n, 1e-300)
    return n * math.log(misfit) + 2 * n_parameters + 2 * n_parameters * (n_parameters + 1) / (n - n_parameters - 1)


def _crossing(x: Array, difference: Array) -> float | None:
    """The one place where the difference changes its sign; None where it does not, or does so more than once."""
    signs = np.sign(difference)
    changes = np.flatnonzero(signs[:-1] * signs[1:] < 0)
    if len(changes) != 1:
        return None
    at = int(changes[0])
    share = difference[at] / (difference[at] - difference[at + 1])
    return float(x[at] + share * (x[at + 1] - x[at]))


def _require_points(curve: Curve, least: int, what: str) -> None:
    if len(curve) < least:
        raise DataError(f"{what} needs at least {least} points, got {len(curve)}; measure more sizes")
