"""Score against trained parameters: what a higher rank is worth, beside the plan's other methods."""

from typing import Any

from deltaproof.experiments import wording
from deltaproof.fits import Concave, Line, concave, line
from deltaproof.metrics import METRICS, Metric
from deltaproof.report.drawing.marks import Mark, Series, between, curve, draw_series
from deltaproof.report.drawing.plot import PAGE, PANEL, SMALL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.estimates import Estimate, estimate, finite
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Cell, grid
from deltaproof.report.numbers import learning_rate, metric_name, metric_title, value
from deltaproof.report.score_axis import score_axis
from deltaproof.report.study import Study

SCALED = Style("series-1", "circle")
_CONCAVE, _STRAIGHT = Style("series-1", ""), Style("axis", "", hollow=True)
_LEAST = 4
"""Points from which on curves are drawn: through fewer, any curve with three free numbers goes."""
_LEAST_TO_COMPARE = 6
"""Points from which on AICc is finite for both curves."""


def points_of(result: dict[str, Any]) -> list[tuple[float, Estimate, dict[str, Any]]]:
    """Trained parameters, score and the whole entry of each point that has both, smallest first."""
    found = [(finite(point.get("n_trained")), estimate(point), point) for point in result.get("points") or []]
    usable = [(n, score, point) for n, score, point in found if n is not None and n > 0 and score is not None]
    return sorted(usable, key=lambda entry: entry[0])


def curves_of(result: dict[str, Any]) -> tuple[Concave, Line] | None:
    """Both curves through the mean scores, higher being better; None for too few points."""
    points, metric = points_of(result), METRICS[result["metric"]]
    if len({n for n, _, _ in points}) < _LEAST:
        return None
    sign = 1 if metric.higher_is_better else -1
    xs, scores = [n for n, _, _ in points], [sign * score.mean for _, score, _ in points]
    return concave(xs, scores), line(xs, scores)


def figure(result: dict[str, Any], study: Study) -> Figure:
    metric, points = METRICS[result["metric"]], points_of(result)
    others = _others(result)
    legend: list[tuple[str, Style]] = [(str(result["method"]), SCALED)]
    if curves_of(result):
        legend += [("concave curve, a − b p⁻ᶜ", _CONCAVE), ("straight line, a + b p", _STRAIGHT)]
    legend += [(name, _line_style(study, name)) for name, _ in others]
    panels: tuple[Panel, ...] = ()
    if points:
        drawings = (_draw(result, study, width) for width in (PAGE, PANEL))
        panels = (Panel("", _description(result, metric), *drawings),)
    return Figure(
        "scale-parameters",
        f"{metric_name(metric)[0].upper()}{metric_name(metric)[1:]} against trained parameters",
        _caption(result, others),
        panels,
        grid(
            "Score by number of trained parameters",
            ("Method", "Trained parameters", metric_title(metric), "95 % interval", "Learning rate chosen"),
            [
                *(_line(str(point["label"]), wording.count(n), score, point, metric) for n, score, point in points),
                *(_line(name, "–", score, entry, metric) for name, (score, entry) in others),
            ],
        ),
        tuple(legend),
    )


def _others(result: dict[str, Any]) -> list[tuple[str, tuple[Estimate, dict[str, Any]]]]:
    found = [(str(entry["label"]), estimate(entry), entry) for entry in result.get("others") or []]
    return [(name, (score, entry)) for name, score, entry in found if score is not None]


def _line_style(study: Study, name: str) -> Style:
    style = study.style(name)
    return Style(style.colour, style.shape, hollow=True)


def _line(name: str, n: str, score: Estimate, entry: dict[str, Any], metric: Metric) -> list[str | Cell]:
    reach = score.cell(metric.unit)
    return [name, n, value(score.mean, metric.unit), reach.detail or "–", rate_cell(entry)]


def rate_cell(entry: dict[str, Any]) -> Cell:
    """The learning rate chosen at a point; an edge of the rates tried is flagged."""
    rate = learning_rate(finite(entry.get("learning_rate")))
    return Cell(rate, "at the edge of those tried", "warn", "!") if entry.get("at_edge") else Cell(rate)


def _caption(result: dict[str, Any], others: list[Any]) -> str:
    told = ["Each mark is a rank, written above it, tuned and run anew; bars are 95 % intervals."]
    if curves_of(result):
        told.append(
            "The axis is logarithmic, so a straight line in p bends upwards here: where the marks follow the concave "
            "curve instead, each further parameter brings less than the one before."
        )
    if others:
        told.append("Dashed levels, with their 95 % intervals as bands, are the methods run beside it.")
    if any(point.get("at_edge") for _, _, point in points_of(result)):
        told.append(
            "At a hollow mark the learning rate lies at the edge of those tried: with a better one it may stand higher."
        )
    return " ".join(told)


def _description(result: dict[str, Any], metric: Metric) -> str:
    parts = [
        f"{point['label']}, {wording.count(n)} parameters: {score.text(metric.unit)}."
        for n, score, point in points_of(result)
    ]
    parts += [f"{name}, as a level: {score.text(metric.unit)}." for name, (score, _) in _others(result)]
    return f"{metric_title(metric)} against trained parameters. {' '.join(parts)}"


def _draw(result: dict[str, Any], study: Study, width: float) -> Drawing:
    metric, points, others = METRICS[result["metric"]], points_of(result), _others(result)
    ends = [end for _, score, _ in points for end in score.ends] + [
        end for _, (score, _) in others for end in score.ends
    ]
    low, high = padded(ends, 0.1)
    x_low, x_high = padded([n for n, _, _ in points], 0.06, log=True)
    plot = Plot(
        Axis("trained parameters p (logarithmic)", x_low, x_high, wording.count, log=True, ticks={"n": 5}),
        score_axis(metric, low, high),
        width,
        340 if width > PANEL else 280,
    )
    for name, (score, _) in others:
        _level(plot, score, _line_style(study, name), f"{name}: {score.text(metric.unit)}")
    curves = curves_of(result)
    if curves:
        sign = 1 if metric.higher_is_better else -1
        xs = between(points[0][0], points[-1][0], log=True)
        curve(plot, lambda x: sign * curves[1].at(x), xs, _STRAIGHT, 1.4)
        curve(plot, lambda x: sign * curves[0].at(x), xs, _CONCAVE)
    draw_series(plot, [_series(result, metric)], joined=not curves)
    for n, score, point in points:
        top = min(plot.y(end) for end in score.ends) - 6
        plot.drawing.text((plot.x(n), max(top, plot.top + 4)), f"{point.get('rank', '')}", "middle", "ink", SMALL)
    return plot.drawing


def _series(result: dict[str, Any], metric: Metric) -> Series:
    marks = [
        Mark(
            n,
            score.mean,
            score.low,
            score.high,
            f"{point['label']}: {score.text(metric.unit)}",
            bool(point.get("at_edge")),
        )
        for n, score, point in points_of(result)
    ]
    return Series(str(result["method"]), SCALED, tuple(marks))


def _level(plot: Plot, score: Estimate, style: Style, title: str) -> None:
    if score.low is not None and score.high is not None:
        top, bottom = sorted((plot.y(score.low), plot.y(score.high)))
        plot.drawing.rect((plot.left, top), plot.right - plot.left, bottom - top, style.colour, 0.08, title=title)
    y = plot.y(score.mean)
    plot.drawing.line((plot.left, y), (plot.right, y), style.colour, 1.4, style.dash)
    plot.drawing.marker((plot.right - 5, y), style, 4.5, title)
