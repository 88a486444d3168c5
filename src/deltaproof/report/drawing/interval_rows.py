"""Rows of intervals around a line at zero: a name, where the difference may lie, and its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deltaproof.report.drawing.plot import PANEL, SMALL, trimmed
from deltaproof.report.drawing.scales import Scale, padded
from deltaproof.report.drawing.svg import Drawing, Style, text_width
from deltaproof.report.estimates import Estimate


@dataclass(frozen=True)
class IntervalRow:
    """One row."""

    name: str
    found: Estimate | None
    style: Style
    numbers: str
    """The difference in words."""
    remark: str = ""
    """A verdict or what else goes with it, shown in the style's colour."""


def interval_rows(
    rows: Sequence[IntervalRow],
    title: str,
    text: Callable[[float], str],
    sides: tuple[str, str],
    width: float,
    band: float | None = None,
    domain: tuple[float, float] | None = None,
) -> Drawing:
    """All rows on one axis. Wide: name, interval and numbers side by side. Narrow: the interval below its name.

    Args:
        title: of the axis, with its unit.
        sides: what lies left and right of zero, such as ("← fewer", "more →").
        band: half the width of the band of differences that do not matter.
        domain: the axis' ends, where several drawings share them; else as the rows ask for.
    """
    wide = width > PANEL
    step, top = (30.0 if wide else 46.0), 22.0
    bottom = top + step * len(rows) + 4
    drawing = Drawing(width, bottom + 38)
    name_width = min(250.0, max(text_width(row.name, 12, 600) for row in rows) + 14) if wide else 0.0
    remark_width = max(text_width(row.remark, 12, 600) for row in rows)
    words = max(text_width(row.numbers, 12) for row in rows) + (remark_width + 14 if remark_width else 0)
    scale = Scale(*(domain or common_domain(rows, band)), name_width + 8, width - (words + 22 if wide else 8))
    _background(drawing, scale, band, sides, top, bottom)
    for index, row in enumerate(rows):
        y = top + step * index
        line = y + (step / 2 if wide else 33)
        if wide:
            drawing.text((0, line + 4), row.name, weight=600, fit=name_width - 8)
            drawing.text((scale.end + 14, line + 4), row.numbers)
            drawing.text((width, line + 4), row.remark, "end", row.style.colour, 12, 600)
        else:
            _words(drawing, row, y)
        if row.found is not None:
            _interval(drawing, row, row.found, scale, line)
        drawing.line((0, y + step), (width, y + step), "grid")
    _axis(drawing, scale, title, text, bottom)
    return drawing


def common_domain(rows: Sequence[IntervalRow], band: float | None = None) -> tuple[float, float]:
    """An axis that holds zero, every interval and the band."""
    ends = [end for row in rows if row.found for end in row.found.ends]
    return padded([0.0, *ends, *((-1.1 * band, 1.1 * band) if band else ())], 0.05)


def _words(drawing: Drawing, row: IntervalRow, y: float) -> None:
    """Name and numbers above their interval, on plain ground."""
    said = f"{row.numbers}  {row.remark}".strip()
    if text_width(row.name, 12, 600) + text_width(said, SMALL) > drawing.width - 10:  # names are told apart first
        said = f"{row.numbers.split(' (')[0]}  {row.remark}".strip()
    end = min(text_width(said, SMALL), drawing.width - 70)
    start = min(text_width(row.name, 12, 600), drawing.width - end - 10)
    drawing.rect((0, y + 4), start + 3, 17, "surface")
    drawing.rect((drawing.width - end - 3, y + 4), end + 3, 17, "surface")
    drawing.text((0, y + 16), row.name, weight=600, fit=drawing.width - end - 10)
    drawing.text((drawing.width, y + 16), said, "end", row.style.colour, SMALL, fit=end + 1)


def _background(
    drawing: Drawing, scale: Scale, band: float | None, sides: tuple[str, str], top: float, bottom: float
) -> None:
    zero = scale(0)
    if band:
        left, right = scale(max(-band, scale.low)), scale(min(band, scale.high))
        drawing.rect((left, top), right - left, bottom - top, "accent", 0.1)
        for edge in (left, right):
            drawing.line((edge, top), (edge, bottom), "accent", dash="3 3")
    drawing.line((zero, top), (zero, bottom), "ink", 1.2)
    before, after = (text_width(side, SMALL) for side in sides)
    middle = min(max(zero, before + 8), drawing.width - after - 8)
    drawing.text((middle - 8, 13), sides[0], "end", "muted", SMALL)
    drawing.text((middle + 8, 13), sides[1], "start", "muted", SMALL)


def _interval(drawing: Drawing, row: IntervalRow, found: Estimate, scale: Scale, y: float) -> None:
    if found.low is not None and found.high is not None:
        drawing.line((scale(found.low), y), (scale(found.high), y), row.style.colour, 2.2)
        for end in (found.low, found.high):
            drawing.line((scale(end), y - 4), (scale(end), y + 4), row.style.colour, 2)
    drawing.marker((scale(found.mean), y), row.style, 5, f"{row.name}: {row.numbers}")


def _axis(drawing: Drawing, scale: Scale, title: str, text: Callable[[float], str], bottom: float) -> None:
    drawing.line((scale.start, bottom), (scale.end, bottom), "axis")
    ticks = scale.ticks(7 if scale.end - scale.start > 350 else 4)
    for tick, words in zip(ticks, trimmed([text(tick) for tick in ticks]), strict=True):
        drawing.line((scale(tick), bottom), (scale(tick), bottom + 4), "axis")
        drawing.text((scale(tick), bottom + 17), words, "middle", "muted", SMALL)
    middle, half = (scale.start + scale.end) / 2, text_width(title, SMALL) / 2
    at = min(max(middle, half), drawing.width - half)
    drawing.text((at, bottom + 34), title, "middle", "muted", SMALL, fit=drawing.width)
