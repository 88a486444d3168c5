"""The table as a terminal shows it."""

import io

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from deltaproof.experiments import wording
from deltaproof.experiments.row import Row
from deltaproof.experiments.standings import Standings

WIDEST = 200
ENDED = {"diverged": "diverged", "out_of_memory": "did not fit", "failed": "failed", "missing": "not run yet"}


def table_text(table: Standings, width: int = 110) -> str:
    """Rows, the sentence, its basis, gates and warnings."""
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, color_system=None)
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    name, unit = table.metric.name.replace("_", " "), table.metric.unit
    grid.add_column("method", overflow="fold", min_width=8, max_width=40)
    grid.add_column(f"{name}, %" if unit == "fraction" else name, justify="right", no_wrap=True)
    grid.add_column(f"vs {table.reference}", justify="right", no_wrap=True)
    grid.add_column("verdict", no_wrap=True)
    for heading in ("trains", "memory", "training", "stored"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for row in table.rows:
        grid.add_row(*_cells(table, row))
    if table.baselines:
        grid.add_section()
        for row in table.baselines:
            grid.add_row(*_cells(table, row))
    wide = Console(file=out, width=max(width, WIDEST), highlight=False, color_system=None)
    wide.print(grid, markup=False)  # a line too wide is better than one cut
    margin = wording.amount(table.margin, table.metric.unit)
    console.print(
        f"In brackets 95 % intervals over seeds and test examples. Equivalent means within {margin}.\n", markup=False
    )
    for line in (
        table.recommendation.sentence,
        f"Basis: {table.recommendation.basis}.",
        *_look(table),
        *_warnings(table),
    ):
        console.print(line, markup=False, soft_wrap=False)
    for gate in table.gates:
        sides = gate.reason or f"{gate.left:.4g} against {gate.right:.4g}"
        console.print(f"{'holds ' if gate.holds else 'FAILS '} {gate.text}   ({sides})", markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def _cells(table: Standings, row: Row) -> list[str]:
    unit, comparison = table.metric.unit, row.comparison
    score = row.scores.get(table.metric.name)
    is_model = bool(row.cost.get("n_total"))
    memory = row.cost.get("peak_device_memory_bytes") or row.cost.get("peak_memory_bytes")
    verdict = "reference" if row.name == table.reference else (comparison.verdict if comparison else "")
    return [
        row.name,
        f"{wording.score(score.mean, unit)} ({wording.score(score.low, unit)}–{wording.score(score.high, unit)})"
        if score
        else "–",
        f"{wording.signed(comparison.difference, unit)} ({_span(comparison.low, comparison.high, unit)})"
        if comparison
        else "",
        ENDED.get(row.status, verdict),
        wording.share(row.cost["trainable_fraction"] or 0.0) if is_model else "",
        wording.size(memory) if is_model else "",
        wording.duration(row.cost.get("train_seconds")) if row.cost else "",
        wording.size(row.cost.get("stored_bytes")) if is_model else "",
    ]


def _span(low: float, high: float, unit: str) -> str:
    return f"{wording.signed(low, unit)} to {wording.signed(high, unit)}"


def _look(table: Standings) -> list[str]:
    found = table.experiment.get("look")
    return [wording.look(found, table.alpha)] if found else []


def _warnings(table: Standings) -> list[str]:
    """What a reader must know to take the table for what it is."""
    unit, lines = table.metric.unit, []
    for row in table.rows:
        comparison = row.comparison
        if comparison and comparison.verdict == "cannot tell":
            found = wording.amount(comparison.detectable_difference, unit)
            shown = wording.amount(comparison.shown_margin, unit)
            lines.append(
                f"{row.name}: a difference of {found} would have been found (power 80 %); "
                f"equivalence would have been shown within {shown}."
            )
        elif comparison and comparison.note:
            lines.append(f"{row.name}: {comparison.verdict}, {comparison.note}.")
        if row.status in ENDED and row.error:
            lines.append(f"{row.name}: {ENDED[row.status]}: {row.error}")
        if row.at_edge:
            rate = f"{row.learning_rate:g}"
            lines.append(
                f"{row.name}: its learning rate {rate} is at the edge of those tried; more trials may find better."
            )
    return lines
