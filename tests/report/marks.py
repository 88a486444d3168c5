"""Reads a drawing back: where its marks, lines and texts stand."""

import re
import xml.etree.ElementTree as ElementTree

from deltaproof.report.drawing.svg import Drawing


def elements(drawing: Drawing, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(f"<svg>{drawing.body}</svg>").iter(tag))


def marks(drawing: Drawing) -> dict[str, tuple[float, float]]:
    """The middle of every mark that says something on pointing, by what it says."""
    found = {}
    for element in elements(drawing, "path"):
        title = element.find("title")
        if title is not None:
            found[str(title.text)] = _middle(str(element.get("d")))
    return found


def _middle(d: str) -> tuple[float, float]:
    if circle := re.match(r"M([-\d.]+) ([-\d.]+)a([\d.]+)", d):
        x, y, radius = map(float, circle.groups())
        return x + radius, y
    points = path_points(d)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2


def path_points(d: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", d)]


def lines(drawing: Drawing, colour: str) -> list[list[tuple[float, float]]]:
    """The points of every unfilled path of a colour."""
    return [
        path_points(str(element.get("d")))
        for element in elements(drawing, "path")
        if element.get("stroke") == f"var(--{colour})" and element.get("fill") == "none"
    ]


def texts(drawing: Drawing) -> list[str]:
    return ["".join(element.itertext()) for element in elements(drawing, "text")]
