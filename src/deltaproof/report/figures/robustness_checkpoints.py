"""The drop at equal clean accuracy: drop against clean score over checkpoints, with one slope for all methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS
from deltaproof.report.drawing.plot import PAGE, PANEL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.estimates import estimate, finite
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Grid, grid
from deltaproof.report.numbers import metric_name, metric_title, value
from deltaproof.report.robustness_sets import Json, gap_unit, higher_is_better, methods
from deltaproof.report.study import Study


@dataclass(frozen=True)
class Checkpoint:
    """One model on its way, or at its end."""

    label: str
    clean: float
    drop: float
    """Mean over the sets."""
    used: bool
    """Whether the line went through it too: near chance there is nothing to lose."""


def checkpoints(result: Json) -> list[Checkpoint]:
    found = []
    for entry in result.get("checkpoints") or []:
        drops = [drop for value in (entry.get("drops") or {}).values() if (drop := finite(value)) is not None]
        drop = finite(entry.get("overall"))
        drop = drop if drop is not None else fmean(drops) if drops else None
        clean = finite(entry.get("clean"))
        if clean is not None and drop is not None:
            found.append(Checkpoint(str(entry["label"]), clean, drop, bool(entry.get("used", True))))
    return found


def _overall(result: Json) -> Mapping[str, Any]:
    entries: Sequence[Mapping[str, Any]] = result.get("at_equal_accuracy") or []
    return next((entry for entry in entries if entry.get("set") == "overall"), entries[0] if entries else {})


def figure(result: Json, study: Study) -> Figure:
    metric, found = METRICS[result["metric"]], checkpoints(result)
    present = {point.label for point in found}
    names = [name for name in methods(result) if name in present]
    slope = estimate(_overall(result).get("slope"))
    panels: tuple[Panel, ...] = ()
    if found:
        drawings = (_draw(found, names, result, study, width) for width in (PAGE, PANEL))
        panels = (Panel("", _description(result, found, names), *drawings),)
    told = "Each mark is a checkpoint: its clean score to the right, what it loses upwards."
    if slope is not None:
        told += (
            " The lines share one slope, so that their distance, straight up, is the difference in drop at equal clean "
            "score: a line above the reference's is of a method that is more fragile beyond having more to lose."
        )
    reason = str(result.get("at_equal_accuracy_reason") or "")
    if reason:
        told += f" No lines are drawn: {reason}."
    if any(not point.used for point in found):
        told += " Hollow marks are too near chance to have anything to lose, and do not count."
    lines = [
        [point.label, value(point.clean, metric.unit), wording.signed(point.drop, metric.unit), _yes(point.used)]
        for point in found
    ]
    return Figure(
        "drop-at-equal-score",
        f"Drop at equal clean {metric_name(metric)}",
        told,
        panels,
        grid("Checkpoints", ("Method", "Clean", "Drop", "Used for the lines"), lines, (0, 3)),
        tuple((name, study.style(name)) for name in names),
    )


def _yes(used: bool) -> str:
    return "yes" if used else "no"


def _description(result: Json, found: Sequence[Checkpoint], names: Sequence[str]) -> str:
    unit = str(result["unit"])
    parts = [f"Drop against clean score for {len(found)} checkpoints of {', '.join(names)}."]
    for name, gap in (_overall(result).get("differences") or {}).items():
        at = estimate(gap)
        if at is not None:
            parts.append(f"{name}, beyond {result['reference']} at equal score: {at.text(unit, with_sign=True)}.")
    return " ".join(parts)


def _draw(found: Sequence[Checkpoint], names: Sequence[str], result: Json, study: Study, width: float) -> Drawing:
    metric = METRICS[result["metric"]]
    x = padded([point.clean for point in found], 0.06)
    y = padded([0.0, *(point.drop for point in found)], 0.08)
    plot = Plot(
        Axis(
            metric_title(metric, "clean "),
            *x,
            lambda score: value(score, metric.unit),
            falling=not higher_is_better(result),
        ),
        Axis(f"drop{gap_unit(result)} ↓ better", *y, lambda drop: wording.signed(drop, metric.unit)),
        width,
        330 if width > PANEL else 270,
    )
    plot.drawing.line((plot.left, plot.y(0)), (plot.right, plot.y(0)), "axis")
    slope = estimate(_overall(result).get("slope"))
    for name in names:
        own = [point for point in found if point.label == name]
        style = study.style(name)
        for point in own:
            mark = style if point.used else Style(style.colour, style.shape, hollow=True)
            title = f"{name}: clean {value(point.clean, metric.unit)}, drop {wording.signed(point.drop, metric.unit)}"
            plot.drawing.marker(plot.at(point.clean, point.drop), mark, 4, title)
        used = [point for point in own if point.used]
        if slope is not None and used:
            _line(plot, used, slope.mean if higher_is_better(result) else -slope.mean, style)
    return plot.drawing


def _line(plot: Plot, points: Sequence[Checkpoint], slope: float, style: Style) -> None:
    """The method's line of least squares at the common slope: it goes through the middle of its own points."""
    middle, level = fmean(point.clean for point in points), fmean(point.drop for point in points)
    reach = plot.x.high - plot.x.low
    low = max(plot.x.low, min(point.clean for point in points) - 0.04 * reach)
    high = min(plot.x.high, max(point.clean for point in points) + 0.04 * reach)
    places = [plot.at(at, level + slope * (at - middle)) for at in (low, high)]
    plot.drawing.path(places, style.colour, 2.2, style.dash)


def slopes_table(result: Json) -> Grid | None:
    """Every set's slope, and each method's drop beyond the reference's at equal clean score."""
    entries = result.get("at_equal_accuracy") or []
    if not entries:
        return None
    unit, names = str(result["unit"]), [name for name in methods(result) if name != result["reference"]]
    lines = []
    for entry in entries:
        slope = estimate(entry.get("slope"))
        gaps = [estimate((entry.get("differences") or {}).get(name)) for name in names]
        lines.append(
            [
                "all together" if entry["set"] == "overall" else str(entry["set"]).replace("_", " "),
                *("–" if gap is None else gap.cell(unit, with_sign=True) for gap in gaps),
                "–" if slope is None else slope.cell("", with_sign=True),
            ]
        )
    n = entries[0]
    note = (
        f"Over {n['n_checkpoints']} checkpoints of {n['n_runs']} runs, one slope for all methods, intervals by run. "
        f"Above zero: loses more than {result['reference']} would at the same clean score. Clean score stands on both "
        "sides of the regression, so read the differences, and the slope only with care."
    )
    columns = ("Set", *(f"{name}, beyond {result['reference']}" for name in names), "Slope, points per point")
    return grid("Drop at equal clean score", columns, lines, (0,), note)
