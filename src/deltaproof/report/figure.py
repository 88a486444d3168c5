"""A figure: panels with their words, the table behind them, and three ways to show it: page, file, notebook."""

import math
from dataclasses import dataclass

from markupsafe import Markup

from deltaproof.report.drawing.svg import FONT, Drawing, Style, escape, text_width, with_colours
from deltaproof.report.grid import Grid
from deltaproof.report.rendering import render

_MARGIN = 20.0
_HEADING = 22.0
_LEGEND_ROW = 20.0


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure."""

    heading: str
    """Empty where the figure has one panel."""
    description: str
    """What the drawing shows, for those who cannot see it."""
    drawing: Drawing
    narrow: Drawing | None = None
    """The same for a narrow screen, where the drawing would be too small to read."""


@dataclass(frozen=True)
class Figure:
    """A figure of the report."""

    name: str
    """Short and unique: the stem of exported files, the start of ids in the page."""
    title: str
    caption: str
    """What to read from it, and how."""
    panels: tuple[Panel, ...]
    data: Grid
    """The table behind the plot."""
    legend: tuple[tuple[str, Style], ...] = ()
    columns: int = 1
    """Panels side by side where there is room."""

    @property
    def svg(self) -> str:
        """One SVG file with all panels, in light colours and with nothing left to be looked up."""
        return with_colours(_whole(self))

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return render("notebook.html", figure=self, picture=Markup(self.svg))

    def inline(self, panel: Panel, position: int, drawing: Drawing, size: str) -> Markup:
        """A panel for the page, in the page's colours."""
        stem = f"{self.name}-{position}-{size}"
        title = f"{self.title}: {panel.heading}" if panel.heading else self.title
        return Markup(
            f'<svg class="plot {size}" viewBox="0 0 {drawing.width:g} {drawing.height:g}" role="img" '
            f'aria-labelledby="{stem}-title" aria-describedby="{stem}-text">'
            f'<title id="{stem}-title">{escape(title)}</title>'
            f'<desc id="{stem}-text">{escape(panel.description)}</desc>{drawing.body}</svg>'
        )


def swatch(style: Style) -> Markup:
    """A contestant's mark for a legend in the page."""
    drawing = Drawing(26, 14)
    drawing.line((0, 7), (26, 7), style.colour, 1.8, style.dash)
    drawing.marker((13, 7), style, 4.2)
    return Markup(f'<svg class="swatch" viewBox="0 0 26 14" aria-hidden="true">{drawing.body}</svg>')


def _whole(figure: Figure) -> str:
    columns = min(figure.columns, len(figure.panels))
    cell_width = max(panel.drawing.width for panel in figure.panels)
    cell_height = max(panel.drawing.height for panel in figure.panels) + (
        _HEADING if columns > 1 or len(figure.panels) > 1 else 0
    )
    width = 2 * _MARGIN + columns * cell_width + (columns - 1) * _MARGIN
    top = Drawing(width, 0)
    top.text((_MARGIN, 30), figure.title, size=16, weight=600, fit=width - 2 * _MARGIN)
    y = _legend(top, figure, 44.0)
    parts = [top.body]
    for index, panel in enumerate(figure.panels):
        row, column = divmod(index, columns)
        x, panel_y = _MARGIN + column * (cell_width + _MARGIN), y + row * (cell_height + _MARGIN)
        inner = Drawing(cell_width, cell_height)
        if panel.heading:
            inner.text((0, 12), panel.heading, weight=600, fit=cell_width)
        shift = _HEADING if panel.heading else 0
        parts.append(
            f'<g transform="translate({x:g} {panel_y:g})">{inner.body}'
            f'<g transform="translate(0 {shift:g})">{panel.drawing.body}</g></g>'
        )
    height = y + math.ceil(len(figure.panels) / columns) * (cell_height + _MARGIN)
    description = " ".join(
        f"{panel.heading + ': ' if panel.heading else ''}{panel.description}" for panel in figure.panels
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="{escape(FONT)}" role="img">'
        f"<title>{escape(figure.title)}</title><desc>{escape(description)}</desc>"
        f'<rect width="{width:g}" height="{height:g}" fill="var(--surface)"/>{"".join(parts)}</svg>'
    )


def _legend(drawing: Drawing, figure: Figure, y: float) -> float:
    """Draw the legend in as many rows as it needs; returns where the panels may begin."""
    if not figure.legend:
        return y + 6
    x = _MARGIN
    room = drawing.width - 2 * _MARGIN
    for name, style in figure.legend:
        needed = min(34 + text_width(name) + 18, room)
        if x > _MARGIN and x + needed > drawing.width - _MARGIN:
            x, y = _MARGIN, y + _LEGEND_ROW
        drawing.line((x, y + 8), (x + 26, y + 8), style.colour, 1.8, style.dash)
        drawing.marker((x + 13, y + 8), style, 4.2)
        drawing.text((x + 34, y + 12), name, fit=needed - 34)
        x += needed
    return y + _LEGEND_ROW + 14
