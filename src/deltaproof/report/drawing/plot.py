"""Two axes around a drawing: gridlines at round values, the unit beside them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deltaproof.report.drawing.scales import Scale
from deltaproof.report.drawing.svg import Drawing, Point, text_width

PANEL = 312.0
"""Width of a panel: as wide as a third of the page, and as a phone."""
HALF = 384.0
"""Width of one of two drawings side by side; small enough for a phone."""
PAGE = 860.0
"""Width of a drawing that has the page to itself."""
SMALL = 11.0
"""Size of tick labels."""


@dataclass(frozen=True)
class Axis:
    """What one axis shows."""

    title: str
    low: float
    high: float
    text: Callable[[float], str]
    """A tick's value as a reader wants it."""
    log: bool = False
    falling: bool = False
    """Whether the largest value stands where the smallest usually does, so that better is always up."""
    ticks: dict[str, Any] | None = None
    """Arguments for `Scale.ticks`."""
    at: Sequence[float] = ()
    """Where the ticks stand, if not at round values."""

    def labels(self, scale: Scale) -> list[tuple[float, str]]:
        """Ticks with their texts: as many as have a text of their own, without `.0` where no tick needs it."""
        wanted = {"n": 5, **(self.ticks or {})}
        for n in range(wanted["n"], 0, -1):
            ticks = list(self.at) or scale.ticks(**{**wanted, "n": n})
            texts = trimmed([self.text(tick) for tick in ticks])
            if self.at or len(set(texts)) == len(texts):
                break
        return list(zip(ticks, texts, strict=True))


def trimmed(texts: list[str]) -> list[str]:
    """Numbers without a decimal that none of them needs.

    >>> trimmed(["80.0", "85.0"]), trimmed(["2.5", "5.0"])
    (['80', '85'], ['2.5', '5.0'])
    """
    if any(re.search(r"\.(?!0+(\D|$))", text) for text in texts):
        return texts
    return [re.sub(r"\.0+(?=\D|$)", "", text) for text in texts]


class Plot:
    """A drawing with axes: `x` and `y` map values to positions inside the frame."""

    def __init__(self, x: Axis, y: Axis, width: float = PANEL, height: float = 230) -> None:
        self.drawing = Drawing(width, height)
        y_labels = y.labels(Scale(y.low, y.high, 0, 1, y.log))
        self.left = 8 + max((text_width(text, SMALL) for _, text in y_labels), default=0)
        self.right, self.top, self.bottom = width - 12, 24.0, height - 38
        bottom, top = (self.top, self.bottom) if y.falling else (self.bottom, self.top)
        self.x = Scale(x.low, x.high, self.left, self.right, x.log)
        self.y = Scale(y.low, y.high, bottom, top, y.log)
        self._horizontal(y, y_labels)
        draw_x_axis(self.drawing, x, self.x, self.bottom)

    def at(self, x: float, y: float) -> Point:
        return self.x(x), self.y(y)

    def _horizontal(self, axis: Axis, labels: list[tuple[float, str]]) -> None:
        for tick, text in labels:
            y = self.y(tick)
            self.drawing.line((self.left, y), (self.right, y), "grid")
            self.drawing.text((self.left - 6, y + 4), text, "end", "muted", SMALL)
        self.drawing.text((0, 12), axis.title, colour="muted", size=SMALL, fit=self.drawing.width)


def draw_x_axis(drawing: Drawing, axis: Axis, scale: Scale, bottom: float) -> list[float]:
    """The line, its ticks and texts, as many as have room, and the title at the drawing's foot; where the ticks are."""
    drawing.line((scale.start, bottom), (scale.end, bottom), "axis")
    labels = axis.labels(scale)
    room = scale.end - scale.start
    while len(labels) > 2 and sum(text_width(text, SMALL) + 12 for _, text in labels) > room:
        labels = labels[::2]
    for tick, text in labels:
        x = scale(tick)
        drawing.line((x, bottom), (x, bottom + 4), "axis")
        half = text_width(text, SMALL) / 2
        drawing.text((min(x, drawing.width - half), bottom + 16), text, "middle", "muted", SMALL)
    middle = (scale.start + scale.end) / 2
    drawing.text((middle, drawing.height - 4), axis.title, "middle", "muted", SMALL, fit=room)
    return [scale(tick) for tick, _ in labels]
