"""Learning curves of the final runs: training loss and validation score, step by step."""

from collections import defaultdict
from collections.abc import Callable
from statistics import fmean
from typing import Any

from deltaproof.report.drawing.plot import PANEL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing, Point, Style
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import grid
from deltaproof.report.numbers import metric_name, metric_title
from deltaproof.report.numbers import value as written
from deltaproof.report.study import Study

_MOST_POINTS = 40
"""Evaluations drawn of one run; of more, every so manieth and the last."""
Curve = list[tuple[float, float]]
Of = Callable[[dict[str, Any]], float | None]


def figure(study: Study) -> Figure:
    metric = study.table.metric
    wanted: tuple[tuple[str, str, Callable[[float], str], Of], ...] = (
        (
            f"Validation {metric_name(metric)}",
            metric_title(metric),
            lambda score: written(score, metric.unit),
            lambda entry: (entry.get("validation") or {}).get(metric.name),
        ),
        (
            "Training loss",
            "mean loss since the last evaluation",
            lambda value: f"{value:.3g}",
            lambda entry: entry.get("train_loss"),
        ),
    )
    panels, by_heading = [], {}
    for heading, title, text, of in wanted:
        curves = {row.name: _curves(study, row.name, of) for row in study.table.rows}
        by_heading[heading] = {name: mean_curve(found) for name, found in curves.items()}
        if any(len(curve) > 0 for found in curves.values() for curve in found):
            panels.append(_panel(heading, title, text, curves, study))
    shown = [row.name for row in study.table.rows if any(means[row.name] for means in by_heading.values())]
    return Figure(
        "learning-curves",
        "How learning went",
        "Thin lines are single seeds, thick ones their mean. The checkpoint with the best validation score is the one "
        "that is tested.",
        tuple(panels),
        _data(by_heading, [text for _, _, text, _ in wanted], shown),
        tuple((name, study.styles[name]) for name in shown),
        columns=2,
    )


def _curves(study: Study, name: str, of: Of) -> list[Curve]:
    row = study.table.row(name)
    curves = []
    for record in study.finals(row):
        points = [(float(entry["step"]), value) for entry in record.history if (value := of(entry)) is not None]
        curves.append(thinned([(step, value) for step, value in points if abs(value) < float("inf")]))
    return curves


def thinned(curve: Curve) -> Curve:
    """At most so many points, the first and the last among them."""
    if len(curve) <= _MOST_POINTS:
        return curve
    return [curve[round(index * (len(curve) - 1) / (_MOST_POINTS - 1))] for index in range(_MOST_POINTS)]


def mean_curve(curves: list[Curve]) -> Curve:
    """The mean at each step that every run reached; a run that stopped early ends the mean."""
    values: dict[float, list[float]] = defaultdict(list)
    for curve in curves:
        for step, value in curve:
            values[step].append(value)
    return [(step, fmean(found)) for step, found in sorted(values.items()) if len(found) == len(curves)]


def _panel(
    heading: str, title: str, text: Callable[[float], str], curves: dict[str, list[Curve]], study: Study
) -> Panel:
    ends = [
        f"{name} from {text(mean[0][1])} to {text(mean[-1][1])}."
        for name, found in curves.items()
        if (mean := mean_curve(found))
    ]
    description = f"{heading} by step, mean over seeds, first to last evaluation: {' '.join(ends)}"
    return Panel(heading, description, *(_draw(title, text, curves, study, width) for width in (480.0, PANEL)))


def _draw(
    title: str, text: Callable[[float], str], curves: dict[str, list[Curve]], study: Study, width: float
) -> Drawing:
    points = [point for found in curves.values() for curve in found for point in curve]
    last = max(step for step, _ in points)
    low, high = padded([value for _, value in points])
    plot = Plot(
        Axis(
            "optimiser steps",
            0,
            last * 1.02,
            lambda value: f"{value:,.0f}".replace(",", "\u202f"),
            ticks={"whole": True},
        ),
        Axis(title, low, high, text),
        width,
        260,
    )
    for name, found in curves.items():
        style = study.styles[name]
        mean = mean_curve(found)
        for curve in found:
            _line(plot, curve, style, 1, 0.4 if mean else 0.9)
        _line(plot, mean, style, 2.2, 1)
        for step, value in mean[:: max(1, len(mean) // 8)] if mean else [curve[-1] for curve in found if curve]:
            plot.drawing.marker(plot.at(step, value), style, 3.6, f"{name}, step {step:.0f}: {text(value)}")
        if study.table.row(name).status == "diverged":
            for curve in found:
                if curve:
                    plot.drawing.cross(plot.at(*curve[-1]), style.colour, 5, f"{name} diverged after this")
    return plot.drawing


def _line(plot: Plot, curve: Curve, style: Style, width: float, opacity: float) -> None:
    positions: list[Point] = [plot.at(step, value) for step, value in curve]
    plot.drawing.path(positions, style.colour, width, style.dash, opacity)


def _data(by_heading: dict[str, dict[str, Curve]], texts: list[Callable[[float], str]], names: list[str]) -> Any:
    lines = []
    for name in names:
        values = [dict(means[name]) for means in by_heading.values()]
        for step in sorted(set().union(*values)):
            lines.append(
                [
                    name,
                    f"{step:.0f}",
                    *(text(found[step]) if step in found else "–" for text, found in zip(texts, values, strict=True)),
                ]
            )
    return grid("Mean over the seeds", ("Method", "Step", *by_heading), lines)
