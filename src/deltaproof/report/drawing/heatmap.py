"""A heat map: rows by columns, each cell with a tint and, where it fits, its number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deltaproof.report.drawing.plot import PANEL
from deltaproof.report.drawing.svg import Drawing, Style, fitted, text_width

DEEPEST = 0.5
"""Opacity of the deepest tint: dark text stays readable on it."""
_MOST_COLUMNS_WITH_TEXT = 12
_NAME = 92.0
"""Room for the names of rows; longer ones are cut."""
_KEY_STEPS = 5
_MARK = 12.0
"""Room for the marks of the columns."""


@dataclass(frozen=True)
class HeatCell:
    """What a cell says and how deep it is."""

    text: str
    shade: float
    """0: no tint, 1: the deepest."""
    title: str = ""
    """Shown on pointing, where the text has no room."""
    tone: str = "accent"
    bold: bool = False


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[int, int], HeatCell],
    row_title: str,
    column_title: str,
    tallest: float = 46.0,
    key: tuple[str, str] | None = None,
    width: float = PANEL,
    names: float = _NAME,
    marks: Sequence[Style] = (),
) -> Drawing:
    """A map; cells that are not there stay empty.

    Args:
        tallest: height of a row at most.
        key: what the palest and the deepest tint stand for, drawn as a strip below.
        width: of the whole drawing.
        names: room for the names of rows; longer ones are cut.
        marks: of the columns, as the legend shows them, for names too long to be told apart.
    """
    many = max(len(rows), len(columns)) > _MOST_COLUMNS_WITH_TEXT
    size = 9 if many and names <= _NAME else 11
    left = min(names, max(text_width(name, size) for name in rows)) + (22 if row_title else 8)
    cell = (width - left - 4) / len(columns)
    height = min(cell, tallest)
    turned = any(text_width(name, size) > cell - 4 for name in columns)
    head = (min(70.0, max(text_width(name, size) for name in columns)) + 6 if turned else 16) + 16
    head += _MARK if marks else 0
    bottom = head + len(rows) * height
    drawing = Drawing(width, bottom + (30 if key else 6))
    drawing.text((left + len(columns) * cell / 2, 10), column_title, "middle", "muted", 11)
    drawing.text((10, head + len(rows) * height / 2), row_title, "middle", "muted", 11, turned=True)
    for index, style in enumerate(marks):
        drawing.marker((left + (index + 0.5) * cell, head - 8), style, 4)
    foot = head - (_MARK if marks else 0)
    for index, name in enumerate(columns):
        x = left + (index + 0.5) * cell
        if turned:
            drawing.text((x + 4, foot - 5), name, colour="ink", size=size, fit=68, turned=True)
        else:
            drawing.text((x, foot - 6), name, "middle", "ink", size)
    for index, name in enumerate(rows):
        drawing.text((left - 6, head + (index + 0.5) * height + 4), fitted(name, names, size), "end", "ink", size)
    _fill(drawing, cells, (left, head), cell, height, len(columns))
    for index in range(len(columns) + 1):
        drawing.line((left + index * cell, head), (left + index * cell, bottom), "line")
    for index in range(len(rows) + 1):
        drawing.line((left, head + index * height), (left + len(columns) * cell, head + index * height), "line")
    if key:
        _key(drawing, left, bottom + 10, *key)
    return drawing


def _fill(
    drawing: Drawing,
    cells: Mapping[tuple[int, int], HeatCell],
    origin: tuple[float, float],
    width: float,
    height: float,
    n_columns: int,
) -> None:
    size = 11.0 if height >= 15 else 10.0
    widest = max((text_width(cell.text, size) for cell in cells.values()), default=0)
    if widest + 2 > width:
        size, widest = 10.0, max((text_width(cell.text, 10.0) for cell in cells.values()), default=0)
    with_texts = widest + 2 <= width and n_columns <= _MOST_COLUMNS_WITH_TEXT
    for (row, column), cell in cells.items():
        x, y = origin[0] + column * width, origin[1] + row * height
        if cell.shade > 0:
            opacity = DEEPEST * min(1.0, cell.shade)
            drawing.rect((x, y), width, height, cell.tone, opacity, title="" if with_texts else cell.title)
        if with_texts and cell.text:
            at = (x + width / 2, y + height / 2 + 4)
            drawing.text(at, cell.text, "middle", "ink", size, 600 if cell.bold else 400)


def _key(drawing: Drawing, left: float, y: float, low: str, high: str) -> None:
    drawing.text((left, y + 10), low, colour="muted", size=11)
    x = left + text_width(low, 11) + 6
    for step in range(_KEY_STEPS):
        drawing.rect((x + 14 * step, y), 14, 12, "accent", DEEPEST * (step + 0.5) / _KEY_STEPS)
    drawing.text((x + 14 * _KEY_STEPS + 6, y + 10), high, colour="muted", size=11)
