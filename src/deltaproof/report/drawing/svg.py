"""Marks on a canvas, as SVG text. Colours go by their names in the theme; every text is escaped."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape as escape_markup

from deltaproof.report.drawing.theme import LIGHT

FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
Point = tuple[float, float]

_NARROW = set("iIjl|!.,:;'`()[]{}ftr ")
_WIDE = set("mwMW@%—←→↑↓…≈▲▼")
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def escape(text: str) -> str:
    """Text that is safe between tags and in attributes, also as XML, where control characters have no place."""
    return escape_markup(_NOT_IN_XML.sub("\ufffd", text), quote=True)


def text_width(text: str, size: float = 12, weight: int = 400) -> float:
    """About how wide a text is in a sans-serif face; generous, since faces differ."""
    total = 0.0
    for letter in text:
        if letter in _NARROW:
            total += 0.37
        elif letter in _WIDE or unicodedata.east_asian_width(letter) in "WF":
            total += 1.0
        else:
            total += 0.72 if letter.isupper() else 0.61
    return total * size * (1.1 if weight >= 600 else 1.0)


def fitted(text: str, width: float, size: float = 12, weight: int = 400) -> str:
    """The text, with an ellipsis in the middle where it is wider than `width`: names often differ at their ends."""
    if text_width(text, size, weight) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        tail = kept // 3
        short = text[: kept - tail].rstrip() + "…" + (text[-tail:].lstrip() if tail else "")
        if text_width(short, size, weight) <= width:
            return short
    return "…"


@dataclass(frozen=True)
class Style:
    """How one contestant looks in every figure: never by colour alone."""

    colour: str
    shape: str = "circle"
    """Empty for a line without marks."""
    hollow: bool = False

    @property
    def dash(self) -> str:
        return "5 3" if self.hollow else ""


@dataclass
class Drawing:
    """A canvas of a fixed size in SVG's user units; y grows downwards."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def line(self, start: Point, end: Point, colour: str = "axis", width: float = 1, dash: str = "") -> None:
        self.add(
            "line",
            x1=start[0],
            y1=start[1],
            x2=end[0],
            y2=end[1],
            stroke=colour,
            stroke_width=width,
            stroke_dasharray=dash,
        )

    def path(
        self, points: Sequence[Point], colour: str, width: float = 1.8, dash: str = "", opacity: float = 1
    ) -> None:
        """A line through points; nothing for fewer than two."""
        if len(points) > 1:
            d = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
            self.add(
                "path",
                d=d,
                fill="none",
                stroke=colour,
                stroke_width=width,
                stroke_dasharray=dash,
                stroke_linejoin="round",
                stroke_opacity=opacity,
            )

    def dots(self, points: Sequence[Point], colour: str, diameter: float = 4, opacity: float = 0.45) -> None:
        """Many small dots as one element, each a line of no length with round ends."""
        d = "".join(f"M{number(x)} {number(y)}h0" for x, y in points)
        self.add(
            "path",
            d=d,
            fill="none",
            stroke=colour,
            stroke_width=diameter,
            stroke_linecap="round",
            stroke_opacity=opacity,
        )

    def rect(
        self,
        corner: Point,
        width: float,
        height: float,
        fill: str,
        opacity: float = 1,
        stroke: str = "",
        title: str = "",
        radius: float = 0,
    ) -> None:
        self.add(
            "rect",
            title,
            x=corner[0],
            y=corner[1],
            width=width,
            height=height,
            fill=fill,
            fill_opacity=opacity,
            stroke=stroke,
            rx=radius,
        )

    def polygon(self, points: Sequence[Point], fill: str, opacity: float = 1) -> None:
        d = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) + "Z"
        self.add("path", d=d, fill=fill, fill_opacity=opacity)

    def marker(self, at: Point, style: Style, radius: float = 4.5, title: str = "") -> None:
        if not style.shape:
            return
        fill = "surface" if style.hollow else style.colour
        self.add(
            "path",
            title,
            d=_shape(style.shape, at, radius),
            fill=fill,
            stroke=style.colour if style.hollow else "surface",
            stroke_width=1.8 if style.hollow else 1,
        )

    def cross(self, at: Point, colour: str, radius: float = 3.5, title: str = "") -> None:
        side = 2 * radius
        d = f"M{number(at[0] - radius)} {number(at[1] - radius)}l{side} {side}m0 {-side}l{-side} {side}"
        self.add("path", title, d=d, stroke=colour, stroke_width=1.8, fill="none")

    def text(
        self,
        at: Point,
        content: str,
        anchor: str = "start",
        colour: str = "ink",
        size: float = 12,
        weight: int = 400,
        fit: float | None = None,
        turned: bool = False,
    ) -> None:
        """A line of text on its baseline.

        Args:
            fit: cut it to this width; the whole then shows on pointing.
            turned: read from bottom to top.
        """
        shown = content if fit is None else fitted(content, fit, size, weight)
        title = content if shown != content else ""
        turn = f"rotate(-90 {number(at[0])} {number(at[1])})" if turned else ""
        self.add(
            "text",
            title,
            escape(shown),
            x=at[0],
            y=at[1],
            text_anchor=anchor if anchor != "start" else "",
            fill=colour,
            font_size=size,
            font_weight=weight if weight != 400 else "",
            transform=turn,
        )

    def add(self, tag: str, title: str = "", content: str = "", /, **attributes: str | float) -> None:
        """One element; `title` shows on pointing. Attributes without a value, and opacities of 1, are left out."""
        written = []
        for key, value in attributes.items():
            if value == "" or (key.endswith("opacity") and value == 1) or (key == "rx" and value == 0):
                continue
            if key in ("fill", "stroke") and value != "none":
                value = f"var(--{value})"
            if isinstance(value, float | int):
                value = f"{value:.2f}" if key.endswith("opacity") else number(value)
            written.append(f' {key.replace("_", "-")}="{escape(value)}"')
        inner = (f"<title>{escape(title)}</title>" if title else "") + content
        self.parts.append(f"<{tag}{''.join(written)}>{inner}</{tag}>" if inner else f"<{tag}{''.join(written)}/>")

    @property
    def body(self) -> str:
        return "".join(self.parts)


def number(value: float) -> str:
    """A coordinate in as few letters as a tenth of a unit needs."""
    return (
        f"{value:.1f}".removesuffix(".0").replace("-0", "0") if abs(value) < 0.05 else f"{value:.1f}".removesuffix(".0")
    )


def with_colours(markup: str, colours: dict[str, str] = LIGHT) -> str:
    """Markup of this module with the names of colours replaced by colours, for a file that stands alone.

    Only attributes are touched: no text can hold an unescaped quotation mark.
    """
    return re.sub(r'(fill|stroke)="var\(--([a-z0-9-]+)\)"', lambda match: f'{match[1]}="{colours[match[2]]}"', markup)


def _shape(shape: str, at: Point, radius: float) -> str:
    x, y = at
    if shape == "circle":
        half = f"a{number(radius)} {number(radius)} 0 1 0"
        return f"M{number(x - radius)} {number(y)}{half} {number(2 * radius)} 0{half} {number(-2 * radius)} 0z"
    corners = {
        "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "up": [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
        "down": [(0, 1.2), (1.15, -0.9), (-1.15, -0.9)],
        "right": [(1.2, 0), (-0.9, 1.15), (-0.9, -1.15)],
        "plus": [
            (-0.42, -1.2),
            (0.42, -1.2),
            (0.42, -0.42),
            (1.2, -0.42),
            (1.2, 0.42),
            (0.42, 0.42),
            (0.42, 1.2),
            (-0.42, 1.2),
            (-0.42, 0.42),
            (-1.2, 0.42),
            (-1.2, -0.42),
            (-0.42, -0.42),
        ],
    }[shape]
    return "M" + "L".join(f"{number(x + radius * dx)} {number(y + radius * dy)}" for dx, dy in corners) + "Z"
