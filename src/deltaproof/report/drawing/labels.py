"""Names beside the points of a plot, where they hide nothing."""

from deltaproof.report.drawing.plot import SMALL, Plot
from deltaproof.report.drawing.svg import text_width

_Box = tuple[float, float, float, float]


def name_points(plot: Plot, points: dict[str, tuple[float, float]], strong: set[str]) -> None:
    """Write names beside points where they hide nothing; the legend names the others.

    Args:
        points: by name, where they stand in the drawing.
        strong: names that are written in bold.
    """
    taken: list[_Box] = [(x - 7, y - 7, x + 7, y + 7) for x, y in points.values()]
    for name, (x, y) in points.items():
        width = text_width(name, SMALL)
        right, left, above, below = (
            x + 7,
            x - 7 - width,
            y - 17,
            y + 5,
        )  # off the front, which runs level, and the bars, upright
        places: list[tuple[_Box, str, float]] = [
            ((right, above, right + width, above + 13), "start", right),
            ((left, above, left + width, above + 13), "end", x - 7),
            ((right, below, right + width, below + 13), "start", right),
            ((left, below, left + width, below + 13), "end", x - 7),
        ]
        for box, anchor, at in places:
            inside = (
                box[0] >= plot.left
                and box[2] <= plot.drawing.width
                and box[1] >= plot.top - 6
                and box[3] <= plot.bottom
            )
            if inside and not any(_overlap(box, other) for other in taken):
                plot.drawing.text((at, box[3] - 2), name, anchor, "ink", SMALL, 600 if name in strong else 400)
                taken.append(box)
                break


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
