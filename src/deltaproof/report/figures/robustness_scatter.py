"""Clean against perturbed: how far below the line of no loss each method falls, kind by kind."""

from collections.abc import Sequence

from deltaproof.metrics import METRICS
from deltaproof.report.drawing.plot import Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.estimates import Estimate
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import grid
from deltaproof.report.numbers import metric_name, metric_title, value
from deltaproof.report.robustness_sets import (
    CATEGORIES,
    Group,
    Json,
    groups,
    higher_is_better,
    methods,
    number,
)
from deltaproof.report.study import Study

Point = tuple[str, str, Estimate, Estimate]
"""Method, set, clean, perturbed."""


def figure(result: Json, study: Study) -> Figure:
    metric, panels, lines = METRICS[result["metric"]], [], []
    for category in CATEGORIES:
        points = _points([group for group in groups(result) if group.category == category], methods(result))
        if not points:
            continue
        panels.append(Panel(category, _description(points, metric.unit), _draw(points, result, study)))
        for name, where, clean, perturbed in points:
            reach = perturbed.cell(metric.unit).detail or "–"
            lines.append([name, where, value(clean.mean, metric.unit), value(perturbed.mean, metric.unit), reach])
    return Figure(
        "clean-against-perturbed",
        f"Clean against perturbed {metric_name(metric)}",
        "Each mark is a method on one set, at its middle strength; on the dashed line nothing is lost, and the "
        "distance straight down to a mark is its drop. Methods further right are better when clean; one that "
        "falls below others there has a lead that does not hold. Intervals stand in the table behind.",
        tuple(panels),
        grid(
            "Clean and perturbed scores",
            ("Method", "Set", "Clean", "Perturbed", "95 % interval"),
            lines,
            (0, 1),
        ),
        tuple((name, study.style(name)) for name in methods(result)),
        columns=3,
    )


def _points(chosen: Sequence[Group], names: Sequence[str]) -> list[Point]:
    found = []
    for name in names:
        for group in chosen:
            clean = number(group.middle["methods"], name, "clean")
            perturbed = number(group.middle["methods"], name, "perturbed")
            if clean is not None and perturbed is not None:
                found.append((name, group.middle_name, clean, perturbed))
    return found


def _description(points: Sequence[Point], unit: str) -> str:
    return "Clean score, then perturbed. " + " ".join(
        f"{name}, {where}: {value(clean.mean, unit)}, {value(perturbed.mean, unit)}."
        for name, where, clean, perturbed in points
    )


def _draw(points: Sequence[Point], result: Json, study: Study) -> Drawing:
    metric = METRICS[result["metric"]]
    x = padded([clean.mean for _, _, clean, _ in points], 0.12)
    y = padded([score.mean for _, _, clean, perturbed in points for score in (clean, perturbed)], 0.06)

    def text(score: float) -> str:
        return value(score, metric.unit)

    falling = not higher_is_better(result)
    plot = Plot(
        Axis(metric_title(metric, "clean "), *x, text, falling=falling),
        Axis(f"{metric_title(metric, 'perturbed ')} ↑ better", *y, text, falling=falling),
        height=280,
    )
    low, high = max(x[0], y[0]), min(x[1], y[1])
    if low < high:
        plot.drawing.line(plot.at(low, low), plot.at(high, high), "axis", 1.2, "4 4")
    for name, where, clean, perturbed in points:
        title = f"{name}, {where}: {value(clean.mean, metric.unit)} to {value(perturbed.mean, metric.unit)}"
        plot.drawing.marker(plot.at(clean.mean, perturbed.mean), study.style(name), 4.2, title)
    return plot.drawing
