"""Merges: the score of each beside its experts and the base, with the paired differences."""

from collections.abc import Sequence
from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS
from deltaproof.report.drawing.interval_rows import IntervalRow, common_domain, interval_rows
from deltaproof.report.drawing.plot import PAGE, PANEL
from deltaproof.report.drawing.svg import Style
from deltaproof.report.estimates import Estimate
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Cell, Grid, Section
from deltaproof.report.numbers import SIGNS, interval, metric_title, value

Result = dict[str, Any]
KINDS = {"expert": "expert, own head", "body": "expert's body, this head", "base": "base, this head"}
_STYLES = {
    "better": Style("good", "up"),
    "worse": Style("bad", "down"),
    "equivalent": Style("accent", "circle"),
    "cannot tell": Style("muted", "diamond", hollow=True),
}
_SIDES = ("← merge is worse", "better →")
_MOST_PANELS = 8


def figure(result: Result) -> Figure:
    """One panel for each merge: its difference to each model beside it, on the test rows where they were asked."""
    unit = METRICS[result["metric"]].unit
    shown = result["merges"][-_MOST_PANELS:]
    rows = [_rows(merge, unit) for merge in shown]
    every = [row for one in rows for row in one]
    domain = common_domain(every) if every else (0.0, 1.0)
    title = "merge less the other" + (", points" if unit == "fraction" else f", {unit}" if unit else "")

    def text(gap: float) -> str:
        return wording.signed(gap, unit)

    panels = tuple(
        Panel(
            _words(merge),
            _description(merge, own),
            *(interval_rows(own, title, text, _SIDES, width, domain=domain) for width in (PAGE, PANEL)),
        )
        for merge, own in zip(shown, rows, strict=True)
        if own
    )  # fmt: skip
    left = len(result["merges"]) - len(shown)
    return Figure(
        "merges",
        "Merges against their experts and the base",
        "Right of the line the merge scores higher on this task than the model named. Bars are 95 % intervals, paired "
        "by example, each of its own comparison; on the test rows where they were asked, else on validation."
        + (f" The {left} merges before these stand in the table." if left else ""),
        panels,
        table(result),
    )


def _words(merge: Result) -> str:
    return f"{merge['contestant']} ({_where(merge)})"


def _where(merge: Result) -> str:
    return "test" if merge["test"] is not None else "validation"


def _rows(merge: Result, unit: str) -> list[IntervalRow]:
    found = []
    for other in merge["compared"]:
        gap = other["difference"][_where(merge)] or other["difference"]["validation"]
        estimate = Estimate(gap["difference"], gap["low"], gap["high"])
        found.append(IntervalRow(f"{other['name']}", estimate, _STYLES[gap["verdict"]], estimate.text(unit, True),
                                 gap["verdict"]))  # fmt: skip
    return found


def _description(merge: Result, rows: Sequence[IntervalRow]) -> str:
    return f"{_words(merge)}, differences: " + "; ".join(f"{r.name} {r.numbers}, {r.remark}" for r in rows) + "."


def table(result: Result) -> Grid:
    """Every merge with the models beside it."""
    unit = METRICS[result["metric"]].unit
    sections = []
    for merge in result["merges"]:
        test = merge["test"]
        lines: list[tuple[Cell, ...]] = [
            (Cell("the merge", _chosen(merge)), Cell("merge"), Cell(value(merge["validation"]["merged"], unit)),
             Cell("–" if test is None else value(test["merged"], unit)), Cell("–"), Cell("–"))
        ]  # fmt: skip
        lines += [_other(merge, other, unit) for other in merge["compared"]]
        sections.append(Section(tuple(lines), f"{merge['contestant']}; head {merge['head']}"))
    metric = METRICS[result["metric"]]
    columns = ("Model", "What it is", metric_title(metric, "validation "), metric_title(metric, "test "),
               "Merge less this", "Verdict")  # fmt: skip
    note = (
        "Differences and verdicts are of the test rows where they were asked, else of validation; one comparison each, "
        "not corrected for their number."
    )
    return Grid("Merges of experts", columns, tuple(sections), (0, 1, 5), note)


def _chosen(merge: Result) -> str:
    weights = ", ".join(f"{expert['name']} {expert['weight']:.3g}" for expert in merge["experts"])
    if merge["chosen_on"] is None:
        return f"weights {weights}"
    return f"weights {weights}, chosen on {merge['n_rows']} {merge['chosen_on']} rows, {merge['n_evaluations']} tries"


def _other(merge: Result, other: Result, unit: str) -> tuple[Cell, ...]:
    kind = str(other["kind"])
    gap = other["difference"][_where(merge)] or other["difference"]["validation"]
    return (
        Cell(other["name"]),
        Cell(KINDS.get(kind, kind)),
        Cell(value(other["validation"], unit)),
        Cell("–" if other["test"] is None else value(other["test"], unit)),
        Cell(wording.signed(gap["difference"], unit), interval(gap["low"], gap["high"], unit, True)),
        Cell(gap["verdict"], gap["note"], gap["verdict"].replace(" ", "-"), SIGNS[gap["verdict"]]),
    )
