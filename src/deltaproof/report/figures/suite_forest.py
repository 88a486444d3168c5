"""Forest plot of a suite: each method's difference to the reference on every task, by category."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from deltaproof.experiments import wording
from deltaproof.report.drawing.plot import trimmed
from deltaproof.report.drawing.scales import Scale
from deltaproof.report.drawing.svg import Drawing, text_width
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.figures.forest import STYLES
from deltaproof.report.grid import Grid, grid
from deltaproof.report.numbers import SIGNS, interval
from deltaproof.report.suite import SuiteResult, TaskResult

_WIDTH, _STEP, _TOP, _AXIS = 420.0, 22.0, 24.0, 38.0
_FAR = 6.0
"""What lies further out than so many times the usual is cut off, with an arrow, so that the rest stays readable."""


@dataclass(frozen=True)
class _Line:
    """A heading, or one task's difference."""

    title: str
    margin: float = 0.0
    row: dict[str, Any] | None = None


def figure(suite: SuiteResult) -> Figure | None:
    """A panel for each method; None where nothing was compared on a metric that is measured in hundredths."""
    reference = suite.run[0].result["reference"] if suite.run else ""
    lines = {method: _lines(suite, method) for method in suite.methods}
    lines = {method: found for method, found in lines.items() if any(line.row for line in found)}
    if not lines:
        return None
    low, high = _domain([line for found in lines.values() for line in found])
    panels = tuple(
        Panel(method, _described(found, reference), _draw(found, low, high)) for method, found in lines.items()
    )
    others = sorted({task.metric for task in suite.run if not task.is_in_hundredths})
    left_out = f" Tasks measured in {', '.join(others)} are not drawn." if others else ""
    return Figure(
        "suite-differences",
        f"Difference to {reference} on each task",
        f"In hundredths of each task's metric. Right of the line is better than {reference}. The band holds what "
        f"counts as no difference. Bars are intervals of each comparison alone; an arrow marks what goes beyond the "
        f"scale. The scale is the same in all panels.{left_out}",
        panels,
        _data(lines),
        columns=2,
    )


def _lines(suite: SuiteResult, method: str) -> list[_Line]:
    found: list[_Line] = []
    for category, tasks in suite.categories.items():
        compared = [
            _Line(task.title, task.result["margin"], row)
            for task in tasks
            if (row := _compared(task, method)) is not None
        ]
        if compared:
            found += [_Line(category), *compared]
    return found


def _compared(task: TaskResult, method: str) -> dict[str, Any] | None:
    row = task.row(method)
    return row if row is not None and row["difference"] is not None and task.is_in_hundredths else None


def _domain(lines: list[_Line]) -> tuple[float, float]:
    margin = max(line.margin for line in lines)
    lows = [line.row["difference_low"] for line in lines if line.row]
    highs = [line.row["difference_high"] for line in lines if line.row]
    usual = median([max(abs(low), abs(high)) for low, high in zip(lows, highs, strict=True)])
    limit = _FAR * max(margin, usual)
    low, high = max(-limit, min([*lows, -1.5 * margin])), min(limit, max([*highs, 1.5 * margin]))
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _draw(lines: list[_Line], low: float, high: float) -> Drawing:
    bottom = _TOP + _STEP * len(lines) + 4
    drawing = Drawing(_WIDTH, bottom + _AXIS)
    names = min(150.0, max(text_width(line.title, 12, 600) for line in lines) + 10)
    scale = Scale(low, high, names + 6, _WIDTH - 66)
    for at, line in enumerate(lines):
        if line.row:
            left, right = scale(max(-line.margin, low)), scale(min(line.margin, high))
            drawing.rect((left, _TOP + _STEP * at), right - left, _STEP, "accent", 0.12)
    drawing.line((scale(0), _TOP), (scale(0), bottom), "ink", 1.2)
    for at, line in enumerate(lines):
        y = _TOP + _STEP * at
        if line.row is None:
            drawing.text((0, y + 15), line.title, colour="muted", size=11, weight=600, fit=_WIDTH)
        else:
            _row(drawing, line, scale, names, y)
    _axis(drawing, scale, bottom)
    return drawing


def _row(drawing: Drawing, line: _Line, scale: Scale, names: float, y: float) -> None:
    row = line.row or {}
    style, middle = STYLES[row["verdict"]], y + _STEP / 2
    drawing.text((8, middle + 4), line.title, size=12, fit=names - 10)
    low, high = max(row["difference_low"], scale.low), min(row["difference_high"], scale.high)
    if low < high:
        drawing.line((scale(low), middle), (scale(high), middle), style.colour, 2.2)
    for end, tip, direction in ((row["difference_low"], scale.start, -1), (row["difference_high"], scale.end, 1)):
        if not scale.low <= end <= scale.high:
            drawing.polygon(
                [(tip, middle), (tip - direction * 8, middle - 4), (tip - direction * 8, middle + 4)], style.colour
            )
    if scale.low <= row["difference"] <= scale.high:
        drawing.marker((scale(row["difference"]), middle), style, 4.5, _sentence(line))
    text = f"{wording.signed(row['difference'], 'fraction')} {SIGNS[row['verdict']]}"
    drawing.text((_WIDTH, middle + 4), text, "end", style.colour, 12, 600)


def _axis(drawing: Drawing, scale: Scale, bottom: float) -> None:
    drawing.text((max(scale(0) - 8, 60), 14), "← worse", "end", "muted", 11)
    drawing.text((min(scale(0) + 8, _WIDTH - 60), 14), "better →", "start", "muted", 11)
    drawing.line((scale.start, bottom), (scale.end, bottom), "axis")
    ticks = scale.ticks(5)
    for tick, text in zip(ticks, trimmed([wording.signed(tick, "fraction") for tick in ticks]), strict=True):
        drawing.line((scale(tick), bottom), (scale(tick), bottom + 4), "axis")
        drawing.text((scale(tick), bottom + 16), text, "middle", "muted", 11)
    drawing.text(((scale.start + scale.end) / 2, bottom + 33), "difference, hundredths", "middle", "muted", 11)


def _sentence(line: _Line) -> str:
    row = line.row or {}
    reach = interval(row["difference_low"], row["difference_high"], "fraction", with_sign=True)
    return f"{line.title}: {wording.signed(row['difference'], 'fraction')} ({reach}), {row['verdict']}."


def _described(lines: list[_Line], reference: str) -> str:
    return f"Differences to {reference}. " + " ".join(_sentence(line) for line in lines if line.row)


def _data(lines: dict[str, list[_Line]]) -> Grid:
    rows = [
        [
            method,
            line.title,
            line.row["verdict"],
            wording.signed(line.row["difference"], "fraction"),
            interval(line.row["difference_low"], line.row["difference_high"], "fraction", with_sign=True),
        ]
        for method, found in lines.items()
        for line in found
        if line.row
    ]
    return grid("Differences on each task", ("Method", "Task", "Verdict", "Difference", "Interval"), rows, (0, 1, 2))
