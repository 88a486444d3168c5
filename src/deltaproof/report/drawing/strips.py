"""Strips: for each row its name, a number, and below where its values lie, as quantiles on a common axis."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from deltaproof.report.drawing.plot import PANEL, Axis, draw_x_axis
from deltaproof.report.drawing.scales import Scale
from deltaproof.report.drawing.svg import Drawing, Point, Style, text_width

_HEAD, _STEP, _ROW = 6.0, 14.0, 24.0
_ENDS = 8.0


@dataclass(frozen=True)
class Spread:
    """Where values lie, lowest to highest: a thin line over all that is given, a thick one between the inner two of
    five quantiles, a mark at the middle."""

    style: Style
    values: Sequence[float]
    """Five quantiles; or three numbers: low, middle, high."""
    title: str = ""


@dataclass(frozen=True)
class Strip:
    """One row: a name, what to say of it, and its spreads, which may be none."""

    name: str
    text: str
    spreads: Sequence[Spread] = ()


def strips(rows: Sequence[Strip], axis: Axis, line_at: float | None = None, width: float = PANEL) -> Drawing:
    """The rows below one another, of a panel's width.

    Args:
        line_at: a value that is marked through all rows.
    """
    heights = [_ROW + _STEP * max(len(row.spreads), 1) for row in rows]
    bottom = _HEAD + sum(heights)
    drawing = Drawing(width, bottom + 38)
    scale = Scale(axis.low, axis.high, _ENDS, width - _ENDS, axis.log)
    ticks = draw_x_axis(drawing, replace(axis, ticks={"n": 4, **(axis.ticks or {})}), scale, bottom)
    for x in ticks:
        drawing.line((x, _HEAD), (x, bottom), "grid")
    if line_at is not None:
        drawing.line((scale(line_at), _HEAD), (scale(line_at), bottom), "ink", 1.2)
    top = _HEAD
    for row, height in zip(rows, heights, strict=True):
        _row(drawing, row, scale, top)
        top += height
        drawing.line((0, top), (width, top), "line" if row is not rows[-1] else "axis")
    return drawing


def _row(drawing: Drawing, row: Strip, scale: Scale, top: float) -> None:
    drawing.rect((0, top + 1), drawing.width, 18, "surface")  # words stand on plain ground
    room = min(text_width(row.text, 11), drawing.width * 0.66) if row.text else 0
    drawing.text((0, top + 14), row.name, size=12, weight=600, fit=drawing.width - room - 10)
    drawing.text((drawing.width, top + 14), row.text, "end", "muted", 11, fit=drawing.width * 0.66)
    for number, spread in enumerate(row.spreads):
        _spread(drawing, spread, scale, top + _ROW + _STEP * (number + 0.4))


def _spread(drawing: Drawing, spread: Spread, scale: Scale, y: float) -> None:
    at = [scale(min(max(value, scale.low), scale.high)) for value in spread.values]
    middle: Point = (at[len(at) // 2], y)
    drawing.line((at[0], y), (at[-1], y), spread.style.colour, 1.4)
    if len(at) == 5:
        drawing.line((at[1], y), (at[3], y), spread.style.colour, 4)
    drawing.marker(middle, spread.style, 4.5, spread.title)
