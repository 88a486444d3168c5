"""Searches against models on the page: what each left of a method, what it took, and what its texts do to others."""

from deltaproof.report.estimates import Estimate, estimate
from deltaproof.report.grid import Cell, Grid, Section
from deltaproof.report.robustness_sets import SEARCHED, Json, found_for, groups, methods, number
from deltaproof.report.robustness_tables import NOTHING, cell, verdict_cell

_NOTE = (
    "A search edits the words that a model's answer hangs on, one after the other, by the model's probabilities alone, "
    "until the answer is wrong or the budget is spent. It works against each model by itself, so every model has texts "
    "of its own; the run folder has them, in robustness/sets. Left: the score after it. Success: of the examples right "
    "when clean, the share that it turned. Queries: texts that the model was asked about, per such example. Words "
    "changed: in the examples that it turned."
)


def searches(result: Json) -> Grid | None:
    """Every search at every strength; None where none was asked for."""
    chosen = [entry for group in groups(result) if group.category == SEARCHED for entry in group.sets]
    if not chosen:
        return None
    reference = str(result["reference"])
    handed_on = {(entry["name"], entry["strength"]): entry for entry in result["sets"] if entry["kind"] == "transfer"}
    sections = []
    for entry in chosen:
        other = handed_on.get((f"{entry['name']}_transfer", entry["strength"]))
        rows = tuple(_row(result, entry, other, name) for name in methods(result) if found_for(entry["methods"], name))
        noise = ", noise: may change what is true" if entry.get("promise") == "noise" else ""
        title = f"{entry['name'].replace('_', ' ')}, up to {100 * entry['strength']:.3g} % of the words{noise}"
        sections.append(Section(rows, title))
    columns = (
        "Method", "Left", "Success,\u00a0%", *(f"Success of {reference}'s texts,\u00a0%",) * bool(handed_on),
        f"Drop beyond {reference}", "Verdict", "Queries", "Words changed,\u00a0%",
    )  # fmt: skip
    note = _NOTE
    if handed_on:
        note += f" Texts found against {reference}'s model of the same seed were given to the other methods, too."
    return Grid("Searches against each model", columns, tuple(sections), (0, columns.index("Verdict")), note)


def _row(result: Json, entry: Json, other: Json | None, name: str) -> tuple[Cell, ...]:
    unit, against = str(result["unit"]), found_for(entry.get("against_reference"), name)
    return (
        Cell(name, "reference" if name == result["reference"] else ""),
        cell(number(entry["methods"], name, "perturbed"), unit),
        cell(number(entry["methods"], name, "attack_success"), "fraction"),
        *((cell(number(other["methods"], name, "attack_success"), "fraction"),) if other is not None else ()),
        cell(estimate(against.get("drop_difference")), unit, with_sign=True),
        verdict_cell(against.get("verdict")),
        _plain(number(entry["methods"], name, "n_queries"), 1),
        _plain(number(entry["methods"], name, "changed"), 100),
    )


def _plain(found: Estimate | None, factor: float) -> Cell:
    return NOTHING if found is None else Cell(f"{factor * found.mean:.1f}")
