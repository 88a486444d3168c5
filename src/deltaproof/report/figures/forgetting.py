"""Learning against forgetting: the score that a method reaches, and what it cost of the base's own task."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from deltaproof.report.drawing.labels import name_points
from deltaproof.report.drawing.plot import PAGE, PANEL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.figures.pareto import front
from deltaproof.report.grid import grid
from deltaproof.report.numbers import interval, metric_name, metric_title, value
from deltaproof.report.score_axis import score_axis
from deltaproof.report.study import Study
from deltaproof.stats import Interval

Result = dict[str, Any]


@dataclass(frozen=True)
class Rise:
    """Of the base's own loss, mean over text and seeds, with its 95 % interval."""

    mean: float
    low: float
    high: float


Point = tuple[Rise, Interval]
"""Of one method: what it forgot, and its test score."""
_FAR = 6.0
"""A rise beyond so many times the median one is drawn at the edge, with an arrow, so that the others stay apart."""


def figure(study: Study, result: Result) -> Figure:
    metric = study.table.metric
    points = points_of(study, result)
    on_front = front_of(study, points)
    description = f"{metric_title(metric)} against the rise of the base's own loss. " + " ".join(
        f"{label}: {value(score.mean, metric.unit)}, rise {_signed(rise.mean)}."
        f"{' On the front.' if label in on_front else ''}"
        for label, (rise, score) in points.items()
    )
    left_out = "; ".join(f"{label} ({why})" for label, why in result["left_out"].items())
    panels: tuple[Panel, ...] = ()
    if points:
        panels = (Panel("", description, *(_draw(study, points, on_front, result, width) for width in (PAGE, PANEL))),)
    return Figure(
        "learning-and-forgetting",
        "Learning against forgetting",
        f"Up is a better {metric_name(metric)} on the test set, left is less forgotten: how much the base's own loss "
        f"({result['task']}) on {corpus_name(result)} rose from {result['before']:.3g} "
        f"{result['unit']}. Bars are 95 % intervals. No method on the dotted line is beaten in both; to the left of 0 "
        "nothing was lost." + (f" Not measured: {left_out}." if left_out else ""),
        panels,
        grid(
            "Learning and forgetting",
            (
                "Method",
                metric_title(metric),
                "95 % interval",
                f"Rise, {result['unit']}",
                "95 % interval",
                "On the front",
            ),
            [
                [
                    label,
                    value(score.mean, metric.unit),
                    interval(score.low, score.high, metric.unit),
                    _signed(rise.mean),
                    f"{_signed(rise.low)} to {_signed(rise.high)}",
                    "yes" if label in on_front else "no",
                ]
                for label, (rise, score) in points.items()
            ],
            (0, 5),
        ),
        tuple((label, study.style(label)) for label in points),
    )


def corpus_name(result: Result) -> str:
    """The text that was asked about, without the folder of a user's own."""
    return Path(result["corpus"]).name


def points_of(study: Study, result: Result) -> dict[str, Point]:
    """By method: the rise of the base's loss, and the test score."""
    scores = {row.name: row.scores.get(study.table.metric.name) for row in study.done}
    found = {}
    for method in result["methods"]:
        score, rise = scores.get(method["label"]), method["rise"]
        if score is not None and rise is not None:
            low, high = (rise if method[end] is None else method[end] for end in ("low", "high"))
            found[method["label"]] = Rise(rise, low, high), score
    return found


def front_of(study: Study, points: dict[str, Point]) -> set[str]:
    sign = 1 if study.table.metric.higher_is_better else -1
    labels = list(points)
    return {labels[at] for at in front([(rise.mean, sign * score.mean) for rise, score in points.values()])}


def _signed(number: float) -> str:
    return f"{number:+.3g}".replace("-", "−")


def _draw(study: Study, points: dict[str, Point], on_front: set[str], result: Result, width: float) -> Drawing:
    metric = study.table.metric
    rises = sorted(rise.mean for rise, _ in points.values())
    limit = _FAR * max(abs(rises[len(rises) // 2]), 1e-6)
    near = [rise for rise in rises if abs(rise) <= limit] or rises
    x_low, x_high = padded([0.0, *near], 0.12)
    y_low, y_high = padded([end for _, score in points.values() for end in (score.low, score.high)], 0.1)
    plot = Plot(
        Axis(
            f"rise of the base's loss, {result['unit']} (← forgets less)", x_low, x_high,
            lambda rise: _signed(rise) if rise else "0", ticks={"n": 6 if width > PANEL else 4},
        ),
        score_axis(metric, y_low, y_high),
        width,
        340 if width > PANEL else 280,
    )  # fmt: skip
    if x_low < 0 < x_high:
        plot.drawing.line((plot.x(0), plot.top), (plot.x(0), plot.bottom), "axis", 1, "3 3")

    def at(rise: float) -> float:
        return plot.x(min(max(rise, x_low), x_high))

    steps = sorted((at(points[label][0].mean), plot.y(points[label][1].mean)) for label in on_front)
    corners = [corner for before, after in pairwise(steps) for corner in (before, (after[0], before[1]))]
    plot.drawing.path([*corners, *steps[-1:]], "axis", 1.4, "2 3")
    places = {}
    for label, (rise, score) in points.items():
        style, x, y = study.style(label), at(rise.mean), plot.y(score.mean)
        plot.drawing.line((x, plot.y(score.low)), (x, plot.y(score.high)), style.colour, 1.2)
        plot.drawing.line((at(rise.low), y), (at(rise.high), y), style.colour, 1.2)
        if rise.mean > x_high:
            x -= 8
            plot.drawing.polygon([(x + 10, y), (x + 4, y - 4), (x + 4, y + 4)], style.colour)
        title = f"{label}: {value(score.mean, metric.unit)}, rise {_signed(rise.mean)} {result['unit']}"
        plot.drawing.marker((x, y), style, 5.5, title)
        places[label] = (x, y)
    name_points(plot, places, on_front)
    return plot.drawing
