"""Learning rates chosen at each size: whether the points of a curve were tuned where they needed to be."""

from collections.abc import Sequence
from typing import Any

from deltaproof.experiments import wording
from deltaproof.report.drawing.marks import Mark, Series, draw_series
from deltaproof.report.drawing.plot import PAGE, PANEL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.estimates import finite
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.figures.scale_examples import methods_of, sizes_of
from deltaproof.report.figures.scale_parameters import SCALED, points_of
from deltaproof.report.grid import Cell, grid
from deltaproof.report.numbers import learning_rate
from deltaproof.report.study import Study

_HALF = 480.0
"""Width of a panel that shares the page with another."""


def figure(parameters: dict[str, Any] | None, examples: dict[str, Any] | None, study: Study) -> Figure:
    by_what: dict[str, list[Series]] = {}
    if parameters:
        marks = _marks(points_of(parameters), str(parameters["method"]))
        by_what["parameters"] = [Series(str(parameters["method"]), SCALED, marks)]
    if examples:
        by_what["examples"] = [
            Series(
                str(method["label"]),
                study.style(str(method["label"])),
                _marks(sizes_of(method), str(method["label"])),
            )
            for method in methods_of(examples)
        ]
    by_what = {what: series for what, every in by_what.items() if (series := [one for one in every if one.marks])}
    panels, lines = [], []
    legend: dict[str, Style] = {}
    for what, series in by_what.items():
        drawings = (_draw(series, what, width) for width in (PAGE if len(by_what) == 1 else _HALF, PANEL))
        panels.append(Panel(f"By {what}", _description(series, what), *drawings))
        legend |= {one.name: one.style for one in series}
        lines += [
            [
                one.name,
                what,
                wording.count(mark.x),
                learning_rate(mark.y),
                Cell("yes", tone="warn", sign="!") if mark.hollow else "no",
            ]
            for one in series
            for mark in one.marks
        ]
    return Figure(
        "scale-rates",
        "Learning rate chosen at each size",
        "Each point of a curve is tuned anew. A hollow mark was chosen at the edge of the rates tried: a better one "
        "may lie beyond, and that point's score may be too low.",
        tuple(panels),
        grid("Learning rates", ("Method", "By", "Size", "Learning rate", "At the edge"), lines, (0, 1, 4)),
        tuple(legend.items()),
        columns=2 if len(panels) > 1 else 1,
    )


def _marks(points: Sequence[tuple[float, Any, dict[str, Any]]], name: str) -> tuple[Mark, ...]:
    found = [(n, finite(point.get("learning_rate")), bool(point.get("at_edge"))) for n, _, point in points]
    return tuple(
        Mark(n, rate, title=_title(name, n, rate, is_edge), hollow=is_edge)
        for n, rate, is_edge in found
        if rate is not None and rate > 0
    )


def _title(name: str, n: float, rate: float, is_edge: bool) -> str:
    return f"{name}, {wording.count(n)}: {learning_rate(rate)}{', at the edge' if is_edge else ''}"


def _description(series: Sequence[Series], what: str) -> str:
    told = " ".join(f"{mark.title}." for one in series for mark in one.marks)
    return f"Learning rate chosen against {what}. {told}"


def _draw(series: Sequence[Series], what: str, width: float) -> Drawing:
    marks = [mark for one in series for mark in one.marks]
    rates = sorted({mark.y for mark in marks})
    plot = Plot(
        Axis(f"{what} (logarithmic)", *padded([mark.x for mark in marks], 0.06, log=True), wording.count, log=True),
        Axis(
            "learning rate (logarithmic)",
            *padded(rates, 0.12, log=True),
            learning_rate,
            log=True,
            at=rates if len(rates) <= 8 else (),
        ),
        width,
        220,
    )
    draw_series(plot, series)
    return plot.drawing
