"""Tables as data: the page, the CSV and the LaTeX file are three views of the same cells."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A cell: what it says, in smaller type what goes with it, and how it is meant."""

    text: str
    detail: str = ""
    tone: str = ""
    """`better`, `worse`, `equivalent`, `cannot-tell`, `warn`, or empty; of claims `supported`, `contradicted`,
    `not-applicable`."""
    sign: str = ""
    """A letter-like sign before the text, so that the tone does not hang on colour."""
    href: str = ""
    """Where the text leads: a path beside the page."""


@dataclass(frozen=True)
class Section:
    """Rows that belong together; the first cell of each names it."""

    rows: tuple[tuple[Cell, ...], ...]
    heading: str = ""


@dataclass(frozen=True)
class Grid:
    """A table with a caption."""

    caption: str
    columns: tuple[str, ...]
    sections: tuple[Section, ...]
    text_columns: tuple[int, ...] = (0,)
    """Columns that hold text; the others hold numbers."""
    note: str = ""
    """What a reader of the table should know."""
    groups: tuple[tuple[str, int], ...] = ()
    """Headings over several columns, each with how many; empty where there are none."""


def grid(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    text_columns: tuple[int, ...] = (0,),
    note: str = "",
) -> Grid:
    """A table of one section."""
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Grid(caption, tuple(columns), (Section(cells),), text_columns, note)
