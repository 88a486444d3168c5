"""Compressed updates over the tasks of a suite: what is retained, drawn and as tables, and the claims."""

from typing import Any

from deltaproof.evidence.claim import Span
from deltaproof.evidence.words import interval as ends
from deltaproof.evidence.words import number
from deltaproof.experiments import wording
from deltaproof.report.drawing.marks import Mark, Series, draw_series
from deltaproof.report.drawing.plot import PAGE, PANEL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Cell, Grid, Section
from deltaproof.report.numbers import SIGNS, interval, sentence
from deltaproof.report.suite import SuiteResult

Found = dict[str, Any]
_SHAPES = ("diamond", "circle", "square", "up", "down", "plus")


def blocks(document: dict[str, Any], suite: SuiteResult) -> list[Figure | Grid]:
    """None where no task was compressed."""
    found = document.get("compression")
    if not found:
        return []
    titles = {task.name: task.title for task in suite.run}
    drawn = figure(found)
    return [*([drawn] if drawn.panels else []), table(found, titles), claims(found), measured(found)]


def figure(found: Found) -> Figure:
    """The mean difference over tasks against the ratio to fp16."""
    methods = list(dict.fromkeys(row["method"] for row in found["rows"]))
    styles = {name: Style(f"series-{at % 7}", _SHAPES[at % 6]) for at, name in enumerate(methods)}
    rows = [row for row in found["rows"] if row["difference"]]
    lines = [
        (Cell(row["method"]), Cell(row["density"]), Cell(f"{row['fp16_ratio']:.1f}"), _reach(row["difference"], True))
        for row in rows
    ]
    panels = []
    if rows:
        panels = [Panel("", _description(rows), *(_draw(rows, styles, found, width) for width in (PAGE, PANEL)))]
    return Figure(
        "compression-over-tasks",
        "How much smaller, and what it costs over the tasks",
        f"Each mark is a method at one density: the ratio of its compressed tensors to fp16, and the mean difference "
        f"of its test score to that of the updates as tuned, over {len(found['tasks'])} tasks. Bars are 95 % intervals "
        f"over tasks. The band holds differences within the margin of {wording.amount(found['margin'], 'fraction')}.",
        tuple(panels),
        Grid("Differences over the tasks", ("Method", "Density", "Times smaller than fp16", "Difference, points"),
             (Section(tuple(lines)),), (0, 1)),
        tuple(styles.items()),
    )  # fmt: skip


def _draw(rows: list[Found], styles: dict[str, Style], found: Found, width: float) -> Drawing:
    low, high = padded(
        [0.0, -found["margin"], *(row["difference"][end] for row in rows for end in ("low", "high"))], 0.06
    )
    plot = Plot(
        Axis("times smaller than fp16 (by factors)", *padded([row["fp16_ratio"] for row in rows], 0.06, log=True),
             lambda ratio: f"{ratio:g}", log=True),
        Axis("difference to as tuned, points", low, high, lambda gap: wording.signed(gap, "fraction")),
        width, 340 if width > PANEL else 280,
    )  # fmt: skip
    top, bottom = (min(max(plot.y(sign * found["margin"]), plot.top), plot.bottom) for sign in (1, -1))
    plot.drawing.rect((plot.left, top), plot.right - plot.left, bottom - top, "accent", 0.1)
    plot.drawing.line((plot.left, plot.y(0)), (plot.right, plot.y(0)), "ink", 1.1, "5 4")
    series = []
    for name, style in styles.items():
        marks = tuple(
            Mark(row["fp16_ratio"], row["difference"]["mean"], row["difference"]["low"], row["difference"]["high"],
                 f"{name}, density {row['density']}: {wording.signed(row['difference']['mean'], 'fraction')}")
            for row in rows if row["method"] == name
        )  # fmt: skip
        series.append(Series(name, style, marks))
    draw_series(plot, series)
    return plot.drawing


def _description(rows: list[Found]) -> str:
    told = [
        f"{row['method']} at density {row['density']}, {row['fp16_ratio']:.0f} times smaller: "
        f"{wording.signed(row['difference']['mean'], 'fraction')} points"
        for row in rows
    ]
    return f"Mean difference over tasks against the ratio to fp16: {'; '.join(told)}."


def table(found: Found, titles: dict[str, str]) -> Grid:
    """Score retained by method and density, a column for each task."""
    tasks = found["tasks"]
    columns = ("Density", "Of fp16", "Of fp32", "Of all as stored", "Difference over tasks", "Verdict", "Retained, %",
               "Of the gain, %", *(titles.get(name, name) for name in tasks))  # fmt: skip
    sections = []
    for ends_of in found["methods"]:
        method = ends_of["method"]
        before = ", ".join(f"{titles.get(name, name)} {wording.score(one['mean'], 'fraction')}"
                           for name, one in ends_of["before"].items())  # fmt: skip
        rows = tuple(_row(row, tasks) for row in found["rows"] if row["method"] == method)
        sections.append(Section(rows, f"{method}; as tuned: {before}"))
    seeds = {n for one in found["methods"] for n in one["n_seeds"].values()}
    note = (
        "Per task: test score of the compressed update, below it the difference to the update as tuned, in points, "
        "with its verdict's sign. Ratios are means over tasks: compressed tensors in fp16 and fp32 over their code, "
        "and all tensors as stored over the whole file. Difference, verdict and retained are over tasks, with 95 % "
        "intervals over tasks; of the gain: above the base with the tuned head, over tasks where such a gain is shown. "
        f"Scope and scale by validation. {'One kept model each. ' if seeds == {1} else ''}Signs: "
        f"{', '.join(f'{SIGNS[v]} {v}' for v in ('better', 'equivalent', 'worse', 'cannot tell'))}."
    )
    return Grid("What compressed updates retain", columns, tuple(sections), (0, 5), note)


def _row(row: Found, tasks: list[str]) -> tuple[Cell, ...]:
    return (
        Cell(row["density"]),
        *(Cell(f"{row[field]:.1f} ×") for field in ("fp16_ratio", "fp32_ratio", "stored_ratio")),
        _reach(row["difference"], True),
        Cell(row["verdict"], row["note"], row["verdict"].replace(" ", "-"), SIGNS[row["verdict"]]),
        _reach(row["retained"], False),
        Cell(_reach(row["gain_retained"], False).text, f"{row['n_gains']} tasks"),
        *(_task(row["tasks"].get(name)) for name in tasks),
    )


def _task(found: Found | None) -> Cell:
    if found is None:
        return Cell("–")
    gap = wording.signed(found["difference"], "fraction")
    return Cell(wording.score(found["score"], "fraction"), f"{gap} {SIGNS[found['verdict']]}")


def _reach(found: dict[str, float] | None, with_sign: bool) -> Cell:
    if found is None:
        return Cell("–")
    write = wording.signed if with_sign else wording.score
    return Cell(write(found["mean"], "fraction"), interval(found["low"], found["high"], "fraction", with_sign))


def claims(found: Found) -> Grid:
    """ComPEFT's claims and what these tasks say of each."""
    rows = tuple(
        (
            Cell(claim["title"], claim["source"]),
            Cell(claim["verdict"], "", claim["verdict"].replace(" ", "-"), SIGNS[claim["verdict"]]),
            Cell(sentence(claim["because"])),
            Cell(f"{claim['tested_as']} {claim['rule']}"),
            Cell(claim["not_shown"]),
        )
        for claim in found["claims"]
    )
    columns = ("Claim", "Verdict here", "What was found", "How it was tested", "Not shown")
    return Grid("ComPEFT's claims, and what these tasks say", columns, (Section(rows),), (0, 1, 2, 3, 4))


def measured(found: Found) -> Grid:
    """The findings behind the verdicts."""
    sections = tuple(
        Section(tuple(_finding(finding) for finding in claim["findings"]), claim["title"])
        for claim in found["claims"]
        if claim["findings"]
    )
    note = "Rows marked “beside” do not enter the verdict on the claim."
    columns = ("Of", "Measured", "Value", "Tasks", "Verdict", "Because")
    return Grid("What was measured for the claims", columns, sections, (0, 1, 4, 5), note)


def _finding(finding: Found) -> tuple[Cell, ...]:
    value = Cell("–")
    if finding["value"] is not None:
        span = Span(**finding["value"])
        value = Cell(number(span.mean, span.unit), ends(span))
    verdict = finding["verdict"]
    return (
        Cell(finding["of"]),
        Cell(finding["quantity"]),
        value,
        Cell(str(finding["n_seeds"])),
        Cell(verdict, "" if finding["counts"] else "beside", verdict.replace(" ", "-"), SIGNS[verdict]),
        Cell(finding["because"]),
    )
