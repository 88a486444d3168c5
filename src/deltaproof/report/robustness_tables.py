"""Tables of the robustness chapter: the answer by method, a user's own sets, contrast sets."""

from collections.abc import Mapping
from typing import Any

from deltaproof.metrics import METRICS
from deltaproof.report.estimates import Estimate, estimate, finite
from deltaproof.report.grid import Cell, Grid, Section, grid
from deltaproof.report.numbers import metric_name, value
from deltaproof.report.robustness_sets import SIGNS, TONES, Json, found_for, gap_unit, groups, methods, number

NOTHING = Cell("–")


def verdict_cell(verdict: Any) -> Cell:
    said = str(verdict or "")
    return Cell(said, tone=TONES[said], sign=SIGNS[said]) if said in SIGNS else NOTHING


def cell(found: Estimate | None, unit: str, with_sign: bool = False) -> Cell:
    return NOTHING if found is None else found.cell(unit, with_sign)


def answer(result: Json) -> Grid:
    """What every method has and keeps, over all pooled sets."""
    overall, unit, reference = result.get("overall") or {}, str(result["unit"]), str(result["reference"])
    is_compared = bool(overall.get("against_reference"))
    rows: list[list[Cell]] = []
    for name in methods(result):
        against = found_for(overall.get("against_reference"), name)
        rows.append(
            [
                Cell(name, "reference" if name == reference else ""),
                cell(estimate((result.get("clean") or {}).get(name)), unit),
                cell(number(overall.get("methods"), name, "drop"), unit, with_sign=True),
                *_compared(against, unit) * is_compared,
                cell(estimate((result.get("worst_case") or {}).get(name)), "fraction"),
            ]
        )
    percent = ",\u00a0%" if unit == "fraction" else ""
    columns = (
        "Method",
        f"Clean{percent}",
        f"Drop{gap_unit(result)}",
        *(f"Beyond {reference}", "Verdict", "Matched flips beyond") * is_compared,
        "Worst case,\u00a0%",
    )
    flips = (
        f"Matched flips beyond: on examples that the method and {reference} had right when clean, the share that "
        f"it gets wrong afterwards, less that of {reference}, in points. "
        if is_compared
        else ""
    )
    note = (
        f"Drop: clean less perturbed {metric_name(METRICS[result['metric']])}, over {overall.get('sets', 'all sets')}. "
        f"{flips}Worst case: right when clean and "
        "after each of these perturbations. Intervals at 95 %."
    )
    return grid("Robustness of every method", columns, rows, (0, 4) if is_compared else (0,), note)


def _compared(against: Mapping[str, Any], unit: str) -> tuple[Cell, ...]:
    return (
        cell(estimate(against.get("drop_difference")), unit, with_sign=True),
        verdict_cell(against.get("verdict")),
        cell(estimate((against.get("matched") or {}).get("difference")), "fraction", with_sign=True),
    )


def own_sets(result: Json) -> Grid | None:
    """A user's adversarial or shifted sets, with how wide the interval is that so few rows give."""
    chosen = [entry for group in groups(result) if group.category == "Your own sets" for entry in group.sets]
    if not chosen:
        return None
    unit, reference = str(result["unit"]), str(result["reference"])
    sections = []
    for entry in chosen:
        rows = []
        for name in methods(result):
            if not found_for(entry["methods"], name):
                continue
            perturbed = number(entry["methods"], name, "perturbed")
            against = found_for(entry.get("against_reference"), name)
            rows.append(
                (
                    Cell(name, "reference" if name == reference else ""),
                    cell(number(entry["methods"], name, "clean"), unit),
                    cell(perturbed, unit),
                    Cell(half_width(perturbed, unit)),
                    cell(number(entry["methods"], name, "drop"), unit, with_sign=True),
                    cell(estimate(against.get("drop_difference")), unit, with_sign=True),
                    verdict_cell(against.get("verdict")),
                )
            )
        n = finite(entry.get("n_examples"))
        sections.append(Section(tuple(rows), f"{entry['name']}{f', {n:.0f} rows' if n else ''}"))
    columns = ("Method", "Clean test set", "On this set", "±", "Drop", f"Drop beyond {reference}", "Verdict")
    note = (
        "± is half the 95 % interval: differences smaller than that cannot be told from so few rows by looking at two "
        "scores. The verdict compares the methods on the same rows, which tells more."
    )
    return Grid("Your adversarial and shifted sets", columns, tuple(sections), (0, 6), note)


def half_width(found: Estimate | None, unit: str) -> str:
    """How far the interval reaches to either side.

    >>> half_width(Estimate(0.5, 0.39, 0.61), "fraction")
    '11.0'
    """
    if found is None or found.low is None or found.high is None:
        return "–"
    return value((found.high - found.low) / 2, unit)


def contrast_sets(result: Json) -> Grid | None:
    """Contrast sets and counterfactual pairs: whether answers follow what changed."""
    entries = result.get("contrast") or []
    if not entries:
        return None
    sections = []
    for entry in entries:
        rows = [
            (
                Cell(name),
                cell(number(entry["methods"], name, "accuracy"), "fraction"),
                cell(number(entry["methods"], name, "consistency"), "fraction"),
                cell(number(entry["methods"], name, "pair_consistency"), "fraction"),
            )
            for name in methods(result)
            if found_for(entry["methods"], name)
        ]
        n = finite(entry.get("n_sets"))
        sections.append(Section(tuple(rows), f"{entry['name']}{f', {n:.0f} sets' if n else ''}"))
    columns = ("Method", "Right,\u00a0%", "Whole set right,\u00a0%", "Answer changes as the label does,\u00a0%")
    note = (
        "A contrast set is one example with small changes that matter. A method that reads what matters has the whole "
        "set right; one that leans on something else is right on the first and wrong on the changed one."
    )
    return Grid("Contrast sets", columns, tuple(sections), (0,), note)


def every_set(result: Json) -> Grid:
    """All that was measured at the middle strength, set by set."""
    unit, sections = str(result["unit"]), []
    for group in groups(result):
        entry, rows = group.middle, []
        for name in methods(result):
            if not found_for(entry["methods"], name):
                continue
            against = found_for(entry.get("against_reference"), name)
            rows.append(
                (
                    Cell(name),
                    *(cell(number(entry["methods"], name, what), unit) for what in ("clean", "perturbed")),
                    cell(number(entry["methods"], name, "drop"), unit, with_sign=True),
                    *(
                        cell(number(entry["methods"], name, what), "fraction")
                        for what in ("relative", "attack_success", "flip_rate")
                    ),
                    cell(estimate(against.get("drop_difference")), unit, with_sign=True),
                    verdict_cell(against.get("verdict")),
                )
            )
        sections.append(Section(tuple(rows), f"{group.middle_name}{_size(entry)}"))
    columns = (
        "Method",
        "Clean",
        "Perturbed",
        "Drop",
        "Kept of clean,\u00a0%",
        "Attack success,\u00a0%",
        "Answers changed,\u00a0%",
        f"Drop beyond {result['reference']}",
        "Verdict",
    )
    return Grid("Every set, at its middle strength", columns, tuple(sections), (0, 8))


def _size(entry: Json) -> str:
    n, reached = finite(entry.get("n_examples")), finite(entry.get("n_reached"))
    if n is None:
        return ""
    return f": {n:.0f} rows" + (f", {reached:.0f} of them changed" if reached is not None and reached != n else "")
