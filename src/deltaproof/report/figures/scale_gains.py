"""Gain per doubling: whether the next doubling of parameters or data still pays."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import Metric
from deltaproof.report.drawing.marks import Mark, Series, draw_series
from deltaproof.report.drawing.plot import PAGE, PANEL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.estimates import Estimate, estimate, finite
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.figures.scale_examples import sizes_of
from deltaproof.report.figures.scale_parameters import SCALED, points_of
from deltaproof.report.grid import Grid, grid
from deltaproof.report.numbers import metric_name
from deltaproof.report.study import Study

_NO_PREFERENCE = 2.0
"""Smaller differences of AICc prefer neither. Source: Burnham and Anderson, 2004, doi:10.1177/0049124104268644."""
_BENDS = {-1: "yes", 0: "cannot tell", 1: "no"}
_HALF = 480.0
"""Width of a panel that shares the page with another."""


@dataclass(frozen=True)
class Growing:
    """One curve: the sizes it was measured at and what `fits.growth` found."""

    label: str
    what: str
    """`parameters` or `examples`."""
    sizes: tuple[float, ...]
    found: dict[str, Any]

    @property
    def gains(self) -> list[tuple[float, float, Estimate]]:
        """From, to, and the gain per doubling in between."""
        told = [estimate(gain) for gain in self.found.get("gains") or []]
        return [
            (low, high, gain) for (low, high), gain in zip(pairwise(self.sizes), told, strict=False) if gain is not None
        ]


def growing(parameters: dict[str, Any] | None, examples: dict[str, Any] | None) -> list[Growing]:
    """Every curve whose growth was looked at."""
    curves = []
    if parameters and parameters.get("growth"):
        sizes = tuple(sorted({n for n, _, _ in points_of(parameters)}))
        curves.append(Growing(str(parameters["method"]), "parameters", sizes, parameters["growth"]))
    for method in (examples or {}).get("methods") or []:
        if method.get("growth"):
            sizes = tuple(n for n, _, _ in sizes_of(method))
            curves.append(Growing(str(method["label"]), "examples", sizes, method["growth"]))
    return [curve for curve in curves if curve.gains]


def figure(curves: Sequence[Growing], metric: Metric, study: Study) -> Figure:
    panels = []
    for what in ("parameters", "examples"):
        chosen = [curve for curve in curves if curve.what == what]
        if chosen:
            wide = PAGE if len(chosen) == len(curves) else _HALF
            drawings = (_draw(chosen, metric, study, width) for width in (wide, PANEL))
            panels.append(Panel(f"Doubling the {what}", _description(chosen, metric), *drawings))
    lines = [
        [curve.label, curve.what, wording.count(low), wording.count(high), *_numbers(gain, metric)]
        for curve in curves
        for low, high, gain in curve.gains
    ]
    names = dict.fromkeys(curve.label for curve in curves)
    return Figure(
        "gains-per-doubling",
        "What one more doubling brings",
        f"Gain in {metric_name(metric)} per doubling, between neighbouring sizes; above the line is better. Bars are "
        "95 % intervals: where one crosses the line, the gain there may be nothing. Marks that sink to the right mean "
        "diminishing returns; the size at which the bar no longer clears the line is where more stops paying.",
        tuple(panels),
        grid("Gains per doubling", ("Curve", "Doubling of", "From", "To", "Gain", "95 % interval"), lines, (0, 1)),
        tuple((name, _style(curves, study, name)) for name in names),
        columns=2 if len(panels) > 1 else 1,
    )


def _numbers(gain: Estimate, metric: Metric) -> tuple[str, str]:
    cell = gain.cell(metric.unit, with_sign=True)
    return cell.text, cell.detail or "–"


def _style(curves: Sequence[Growing], study: Study, name: str) -> Style:
    scaled = any(curve.label == name and curve.what == "parameters" for curve in curves)
    return SCALED if scaled else study.style(name)


def _description(curves: Sequence[Growing], metric: Metric) -> str:
    parts = [
        f"{curve.label}, from {wording.count(low)} to {wording.count(high)}: {gain.text(metric.unit, with_sign=True)}."
        for curve in curves
        for low, high, gain in curve.gains
    ]
    return f"Gain in {metric_name(metric)} per doubling of {curves[0].what}. {' '.join(parts)}"


def _draw(curves: Sequence[Growing], metric: Metric, study: Study, width: float) -> Drawing:
    ends = [end for curve in curves for _, _, gain in curve.gains for end in gain.ends]
    low, high = padded([0.0, *ends], 0.08)
    sizes = [size for curve in curves for size in curve.sizes]
    unit = {"fraction": ", points", "": ""}.get(metric.unit, f", {metric.unit}")
    plot = Plot(
        Axis(f"{curves[0].what} (logarithmic)", *padded(sizes, 0.02, log=True), wording.count, log=True),
        Axis(f"gain per doubling{unit}", low, high, lambda gain: wording.signed(gain, metric.unit)),
        width,
        280,
    )
    plot.drawing.line((plot.left, plot.y(0)), (plot.right, plot.y(0)), "ink", 1.2)
    draw_series(plot, [_series(curve, metric, _style(curves, study, curve.label)) for curve in curves])
    return plot.drawing


def _series(curve: Growing, metric: Metric, style: Style) -> Series:
    marks = [
        Mark(
            sqrt(low * high),
            gain.mean,
            gain.low,
            gain.high,
            f"{curve.label}, {wording.count(low)} to {wording.count(high)}: {gain.text(metric.unit, with_sign=True)}",
        )
        for low, high, gain in curve.gains
    ]
    return Series(curve.label, style, tuple(marks))


def returns_table(curves: Sequence[Growing], metric: Metric) -> Grid:
    """Whether the gain shrinks, and which curve fits."""
    lines = []
    for curve in curves:
        bend, bend_in_x = estimate(curve.found.get("bend")), estimate(curve.found.get("bend_in_x"))
        lines.append(
            [
                curve.label,
                curve.what,
                str(curve.found.get("verdict") or "–"),
                "–" if bend is None else bend.cell(metric.unit, with_sign=True),
                "–" if bend_in_x is None else _BENDS[bend_in_x.sign],
                *(_criterion(curve.found.get(name)) for name in ("aicc_concave", "aicc_linear")),
                preferred(curve.found),
            ]
        )
    columns = (
        "Curve",
        "Doubling of",
        "Gain per doubling",
        "Its change per doubling",
        "Concave on the plain axis",
        "AICc, concave",
        "AICc, straight",
        "Fits better",
    )
    note = (
        "Below zero, with the whole interval, the gain shrinks from doubling to doubling. The bend along the plain "
        "axis is the weaker claim that each single further parameter or example brings less. The lower AICc fits "
        f"better; a difference below {_NO_PREFERENCE:g} prefers neither. It needs six sizes, and with few more than "
        "that it weighs hard on the concave curve, which has one number more to fit. Nothing assumes that returns "
        "diminish."
    )
    return grid("Do returns diminish?", columns, lines, (0, 1, 2, 4, 7), note)


def _criterion(number: Any) -> str:
    found = finite(number)
    return "too few sizes" if found is None else f"{found:.1f}".replace("-", "−")


def preferred(found: dict[str, Any]) -> str:
    """Which curve AICc prefers.

    >>> preferred({"aicc_concave": -40.0, "aicc_linear": -30.0})
    'concave'
    """
    concave, straight = finite(found.get("aicc_concave")), finite(found.get("aicc_linear"))
    if concave is None or straight is None:
        return "cannot be compared"
    if abs(concave - straight) < _NO_PREFERENCE:
        return "neither clearly"
    return "concave" if concave < straight else "straight"
