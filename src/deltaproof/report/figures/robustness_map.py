"""Every method on every perturbation at a glance: what it loses, and what it loses beyond the reference."""

from collections.abc import Callable, Sequence

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS
from deltaproof.report.drawing.heatmap import HeatCell, heat_map
from deltaproof.report.drawing.plot import PAGE, PANEL
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.estimates import estimate
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.numbers import metric_name
from deltaproof.report.robustness_sets import SIGNS, Json, found_for, gap_unit, groups, methods, number
from deltaproof.report.robustness_tables import every_set
from deltaproof.report.study import Study

_ALL = "all that keep labels"
_MOST_WIDE, _MOST_NARROW = 12, 4
"""Columns side by side; more stand below, so that every cell keeps its number."""
_NAMES_WIDE, _NAMES_NARROW = 250.0, 112.0
_GAP = 14.0
Row = tuple[str, str, Json]
"""Name, the same for narrow places, and the entry."""
Told = Callable[[Json, str], tuple[float, str, str] | None]
"""Of an entry and a method: the value that is tinted, the text in the cell, and its words."""


def figure(result: Json, study: Study) -> Figure:
    rows: list[Row] = [(group.middle_name, group.short_name, group.middle) for group in groups(result)]
    if result.get("overall"):
        rows.insert(0, (_ALL, _ALL, result["overall"]))
    reference, unit = str(result["reference"]), str(result["unit"])

    def drop(entry: Json, name: str) -> tuple[float, str, str] | None:
        found = number(entry.get("methods"), name, "drop")
        return (found.mean, _short(found.mean, unit), found.text(unit, with_sign=True)) if found else None

    def beyond(entry: Json, name: str) -> tuple[float, str, str] | None:
        against = found_for(entry.get("against_reference"), name)
        found, verdict = estimate(against.get("drop_difference")), str(against.get("verdict") or "")
        if found is None:
            return None
        sign = SIGNS.get(verdict, "")
        text = f"{wording.signed(found.mean, unit)} {sign}".strip()
        return found.mean, text, f"{found.text(unit, with_sign=True)}, {verdict}"

    everyone = methods(result)
    others = [name for name in everyone if name != reference]
    panels = (
        _panel(f"Drop{gap_unit(result)}", rows, everyone, drop, study),
        _panel(f"Drop beyond that of {reference}{gap_unit(result)}", rows, others, beyond, study),
    )
    shown = tuple(panel for panel in panels if panel is not None)
    second = (
        f" In the second map + is lost beyond {reference}, − less than it; the sign behind a number is the verdict: "
        "▼ more fragile, ▲ more robust, ≈ equivalent, ? cannot tell."
        if panels[1] is not None
        else ""
    )
    return Figure(
        "robustness-map",
        f"What each perturbation costs in {metric_name(METRICS[result['metric']])}",
        "Rows are perturbations at their middle strength, columns methods. The deeper the tint, the more is lost; a "
        "row that is deep throughout is a weakness of the model, a column one of the method." + second,
        shown,
        every_set(result),
        tuple((name, study.style(name)) for name in everyone),
    )


def _short(drop: float, unit: str) -> str:
    """A drop without a plus sign: losing is the usual.

    >>> _short(0.052, "fraction"), _short(-0.01, "fraction")
    ('5.2', '−1.0')
    """
    return wording.signed(drop, unit).removeprefix("+")


def _panel(heading: str, rows: Sequence[Row], names: Sequence[str], told: Told, study: Study) -> Panel | None:
    shown = [row for row in rows if any(told(row[2], name) for name in names)]
    if not shown:
        return None
    parts = [
        f"{row}: " + ", ".join(f"{name} {found[1]}" for name in names if (found := told(entry, name))) + "."
        for row, _, entry in shown
    ]
    drawings = (_blocks(shown, names, told, study, width) for width in (PAGE, PANEL))
    return Panel(heading, f"{heading}. {' '.join(parts)}", *drawings)


def _blocks(rows: Sequence[Row], names: Sequence[str], told: Told, study: Study, width: float) -> Drawing:
    """Maps below one another, each with as many methods as fit; one tint scale for all."""
    deepest = max((abs(found[0]) for row in rows for name in names if (found := told(row[2], name))), default=0.0)
    n_blocks = -(-len(names) // (_MOST_WIDE if width > PANEL else _MOST_NARROW))
    size = -(-len(names) // n_blocks)
    blocks = [names[start : start + size] for start in range(0, len(names), size)]
    maps = [_map(rows, block, told, deepest or 1.0, study, width) for block in blocks]
    whole = Drawing(width, sum(one.height for one in maps) + _GAP * (len(maps) - 1))
    top = 0.0
    for one in maps:
        whole.parts.append(f'<g transform="translate(0 {top:g})">{one.body}</g>')
        top += one.height + _GAP
    return whole


def _map(rows: Sequence[Row], names: Sequence[str], told: Told, deepest: float, study: Study, width: float) -> Drawing:
    cells = {}
    for at, (row, _, entry) in enumerate(rows):
        for column, name in enumerate(names):
            found = told(entry, name)
            if found is not None:
                tone = "bad" if found[0] > 0 else "good"
                title = f"{name}, {row}: {found[2]}"
                cells[at, column] = HeatCell(found[1], abs(found[0]) / deepest, title, tone, bold=row == _ALL)
    is_wide = width > PANEL
    room = _NAMES_WIDE if is_wide else _NAMES_NARROW
    share = min(1.0, len(names) / 4) if is_wide else 1.0
    return heat_map(
        [name if is_wide else short for name, short, _ in rows],
        names,
        cells,
        "",
        "",
        tallest=26,
        width=room + (width - room) * share,
        names=room,
        marks=[study.style(name) for name in names],
    )
