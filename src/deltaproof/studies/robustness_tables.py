"""Tables of a robustness study in a terminal: a row for each method."""

import io
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from deltaproof.experiments.wording import score

Result = dict[str, Any]


def method_table(methods: Sequence[str], columns: Sequence[tuple[list[str], dict[str, str]]], width: int) -> str:
    """Columns are a heading of several lines, and cells by method."""
    out = io.StringIO()
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    grid.add_column("method", overflow="fold", min_width=8, max_width=40)
    for heading, _ in columns:
        grid.add_column("\n".join(heading), justify="right", no_wrap=True)
    for label in methods:
        grid.add_row(label, *(cells.get(label, "–") for _, cells in columns))
    Console(file=out, width=max(width, 200), highlight=False, color_system=None).print(grid, markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines() if line.strip())


def span(interval: Result | None, unit: str) -> str:
    """Such as `81.0 (77.2–84.8)`."""
    if interval is None:
        return "–"
    return f"{score(interval['mean'], unit)} ({score(interval['low'], unit)}–{score(interval['high'], unit)})"
