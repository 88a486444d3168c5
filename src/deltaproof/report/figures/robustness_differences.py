"""Who is more fragile: the drop beyond the reference's, and flips on examples that both had right when clean."""

from collections.abc import Mapping, Sequence
from typing import Any

from deltaproof.experiments import wording
from deltaproof.report.drawing.interval_rows import IntervalRow, common_domain, interval_rows
from deltaproof.report.drawing.plot import PAGE, PANEL
from deltaproof.report.drawing.svg import Style
from deltaproof.report.estimates import Estimate, estimate, finite
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Grid, grid
from deltaproof.report.robustness_sets import SIGNS, Group, Json, found_for, gap_unit, groups, methods
from deltaproof.report.study import Study

_SIDES = ("← more robust", "more fragile →")
_STYLES = {
    "more fragile": Style("bad", "down"),
    "more robust": Style("good", "up"),
    "equivalent": Style("accent", "circle"),
    "cannot tell": Style("muted", "diamond", hollow=True),
}


def overall_figure(result: Json, study: Study) -> Figure:
    """All pooled sets at once: the drop with its verdict, and the flips at matched clean answers."""
    overall, reference = result.get("overall") or {}, str(result["reference"])
    against = overall.get("against_reference") or []
    margin = finite(result.get("margin"))
    rows = [_drop_row(entry, result) for entry in against]
    flips = [row for entry in against if (row := _flip_row(entry, study)) is not None]
    unit, panels = gap_unit(result), []
    if any(row.found for row in rows):
        title = f"drop beyond that of {reference}{unit}"

        def text(gap: float) -> str:
            return wording.signed(gap, str(result["unit"]))

        drawings = (interval_rows(rows, title, text, _SIDES, width, margin) for width in (PAGE, PANEL))
        panels.append(Panel(f"Drop, against {reference}", _description(rows, title), *drawings))
    if flips:
        title = f"flips beyond those of {reference}, points"
        drawings = (interval_rows(flips, title, _points, _SIDES, width) for width in (PAGE, PANEL))
        panels.append(Panel("Flips where both were right", _description(flips, title), *drawings))
    second = (
        " The second panel looks only at examples that both had right when clean, so that a method is not called "
        "robust for having less to lose: where the two panels disagree, the second is the fairer."
        if flips
        else ""
    )
    within = f" The band holds differences below {wording.amount(margin, str(result['unit']))}." if margin else ""
    return Figure(
        "robustness-differences",
        f"More fragile than {reference}, or more robust?",
        f"Over {overall.get('sets', 'all sets')}. Right of the line a method loses more than {reference}.{second} Bars "
        f"are 95 % intervals of each comparison alone; verdicts are corrected for all of them.{within}",
        tuple(panels),
        _data(against, result),
    )


def matched_figure(result: Json, study: Study) -> Figure:
    """Flips at matched clean answers, set by set, one panel for each method."""
    reference, lines = str(result["reference"]), []
    title = f"flips beyond those of {reference}, points"
    shown = [group for group in groups(result) if group.middle.get("against_reference")]
    by_method = {
        name: [row for group in shown if (row := _of_group(group, name, study)) is not None] for name in methods(result)
    }
    domain = common_domain([row for rows in by_method.values() for row in rows])
    panels = [
        Panel(name, _description(rows, title), interval_rows(rows, title, _points, _SIDES, PANEL, domain=domain))
        for name, rows in by_method.items()
        if rows
    ]
    for name in methods(result):
        for group in shown:
            entry = found_for(group.middle["against_reference"], name)
            if entry:
                lines.append([name, group.middle_name, *_cells(entry, result)])
    return Figure(
        "matched-flips",
        f"Flips against {reference}, set by set",
        f"At the middle strength, on the examples that the method and {reference} both had right when clean: the share "
        "of them that the method gets wrong after the perturbation, less the same of the reference. Right of the line "
        f"the method is more fragile than {reference}, though both had the same to lose. Bars are 95 % intervals, not "
        "corrected for their number: of twenty where nothing differs, expect one to miss the line by chance.",
        tuple(panels),
        grid("Every set, at its middle strength", ("Method", "Set", *_COLUMNS), lines, (0, 1, 3)),
        columns=3,
    )


def _points(gap: float) -> str:
    return wording.signed(gap, "fraction")


def _of_group(group: Group, name: str, study: Study) -> IntervalRow | None:
    """Flips on one set: the row names the set, the panel the method."""
    found = flips_beyond(found_for(group.middle["against_reference"], name))
    if found is None:
        return None
    return IntervalRow(
        group.middle_name, found.within(-1, 1), study.style(name), wording.signed(found.mean, "fraction")
    )


def _flip_row(entry: Mapping[str, Any], study: Study) -> IntervalRow | None:
    """Flips of one method over all pooled sets."""
    found, name = flips_beyond(entry), str(entry["label"])
    if found is None:
        return None
    n = finite(entry["matched"].get("n_examples"))
    numbers, remark = found.text("fraction", with_sign=True), f"{n:.0f} examples" if n else ""
    return IntervalRow(name, found.within(-1, 1), study.style(name), numbers, remark)


def _drop_row(entry: Mapping[str, Any], result: Json) -> IntervalRow:
    found, verdict = estimate(entry.get("drop_difference")), str(entry.get("verdict") or "")
    numbers = found.text(str(result["unit"]), with_sign=True) if found else "not measured"
    remark = f"{SIGNS.get(verdict, '')} {verdict}".strip()
    return IntervalRow(str(entry["label"]), found, _STYLES.get(verdict, Style("muted")), numbers, remark)


def flips_beyond(entry: Mapping[str, Any]) -> Estimate | None:
    """Flips beyond the reference's, on the examples that both had right when clean."""
    return estimate((entry.get("matched") or {}).get("difference"))


def _description(rows: Sequence[IntervalRow], title: str) -> str:
    told = " ".join(f"{row.name}: {row.numbers}{', ' if row.remark else ''}{row.remark}." for row in rows)
    return f"{title[0].upper()}{title[1:]}. {told}"


_COLUMNS = (
    "Drop beyond the reference's",
    "Verdict",
    "p (Holm)",
    "Both right when clean",
    "Flips beyond",
    "95 % interval",
)


def _cells(entry: Mapping[str, Any], result: Json) -> list[str]:
    gap, matched = entry.get("drop_difference") or {}, entry.get("matched") or {}
    found, flips = estimate(gap), estimate(matched.get("difference"))
    p, n = finite(gap.get("p_holm")), finite(matched.get("n_examples"))
    return [
        found.text(str(result["unit"]), with_sign=True) if found else "–",
        str(entry.get("verdict") or "–"),
        f"{p:.3g}" if p is not None else "–",
        f"{n:.0f}" if n is not None else "–",
        wording.signed(flips.mean, "fraction") if flips else "–",
        (flips.cell("fraction", with_sign=True).detail if flips else "") or "–",
    ]


def _data(against: Sequence[Mapping[str, Any]], result: Json) -> Grid:
    lines = [[str(entry["label"]), *_cells(entry, result)] for entry in against]
    return grid(f"Against {result['reference']}", ("Method", *_COLUMNS), lines, (0, 2))
