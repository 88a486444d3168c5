"""Marks that many figures draw: a mean with its interval, and lines of such marks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deltaproof.report.drawing.plot import Plot
from deltaproof.report.drawing.svg import Point, Style, number


@dataclass(frozen=True)
class Mark:
    """A measured value at some x, in the units of the axes."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    title: str = ""
    hollow: bool = False
    """Whether something about it calls for care; the caption says what."""


@dataclass(frozen=True)
class Series:
    """Marks of one contestant."""

    name: str
    style: Style
    marks: tuple[Mark, ...]


def draw_series(plot: Plot, series: Sequence[Series], joined: bool = True, radius: float = 4.5) -> None:
    """Intervals first, then lines, then marks, so that no mark is hidden. Several series stand a little apart.

    Args:
        joined: draw lines from mark to mark.
    """
    step = min(3.0, 14 / max(1, len(series)))
    shifts = [step * (index - (len(series) - 1) / 2) if len(series) > 1 else 0.0 for index in range(len(series))]
    for one, shift in zip(series, shifts, strict=True):
        for mark in one.marks:
            if mark.low is not None and mark.high is not None:
                whisker(plot, mark.x, mark.low, mark.high, one.style.colour, shift)
    for one, shift in zip(series, shifts, strict=True):
        if joined:
            places: list[Point] = [(plot.x(mark.x) + shift, plot.y(mark.y)) for mark in one.marks]
            plot.drawing.path(places, one.style.colour, 1.6, one.style.dash)
    for one, shift in zip(series, shifts, strict=True):
        for mark in one.marks:
            style = Style(one.style.colour, one.style.shape, one.style.hollow or mark.hollow)
            plot.drawing.marker((plot.x(mark.x) + shift, plot.y(mark.y)), style, radius, mark.title)


def whisker(plot: Plot, x: float, low: float, high: float, colour: str, shift: float = 0) -> None:
    """An upright interval with its ends, as one element: there may be hundreds."""
    at, top, bottom = plot.x(x) + shift, plot.y(high), plot.y(low)
    left, right = number(at - 2.5), number(at + 2.5)
    ends = f"M{left} {number(top)}H{right}M{left} {number(bottom)}H{right}"
    d = f"M{number(at)} {number(bottom)}V{number(top)}{ends}"
    plot.drawing.add("path", d=d, fill="none", stroke=colour, stroke_width=1.2)


def curve(plot: Plot, of: Callable[[float], float], xs: Sequence[float], style: Style, width: float = 1.8) -> None:
    """A fitted curve, as far as it stays inside the frame."""
    low, high = sorted((plot.y.low, plot.y.high))
    places = [plot.at(x, y) for x in xs if low <= (y := of(x)) <= high]
    plot.drawing.path(places, style.colour, width, style.dash)


def between(low: float, high: float, n: int = 60, log: bool = False) -> list[float]:
    """Evenly spread values from low to high.

    >>> between(1, 100, 3, log=True)
    [1.0, 10.0, 100.0]
    """
    if log:
        return [low * (high / low) ** (index / (n - 1)) for index in range(n)]
    return [low + (high - low) * index / (n - 1) for index in range(n)]
