"""The gates that a run's models went through, as a checklist."""

from typing import Any

from deltaproof.report.grid import Cell, Grid, Section


def gates_table(result: dict[str, Any]) -> Grid | None:
    """Every gate with its number and threshold; None where none was asked."""
    sections = tuple(Section(tuple(_row(gate) for gate in run["gates"]), _heading(run)) for run in result["runs"])
    if not sections:
        return None
    note = (
        "A gate asks one question of what is to be shipped and answers it with a number. Where a question does not "
        "arise, the reason is told. A folder is written only where every gate holds."
    )
    return Grid(
        "Gates", ("Gate", "Holds", "Number", "Threshold", "About"), sections, (0, 1, 2, 4), note
    )  # a number with a long unit wraps


def _heading(run: dict[str, Any]) -> str:
    asked = [gate for gate in run["gates"] if gate["holds"] is not None]
    held = sum(bool(gate["holds"]) for gate in asked)
    return f"{run['what']} of {run['contestant']}, seed {run['seed']}: {held} of {len(asked)} hold"


def _row(gate: dict[str, Any]) -> tuple[Cell, ...]:
    mark = {
        True: Cell("holds", "", "better", "✓"),
        False: Cell("fails", "", "worse", "✗"),
        None: Cell("does not arise", "", "not-applicable", "–"),
    }[gate["holds"]]
    threshold = gate["threshold"]
    number = "–" if gate["number"] is None else f"{gate['number']:.3g}"
    limit = "–" if threshold is None else f"{'at least' if gate['at_least'] else 'at most'} {threshold:.3g}"
    return Cell(gate["name"]), mark, Cell(number, gate["unit"]), Cell(limit), Cell(gate["reason"] or "–")
