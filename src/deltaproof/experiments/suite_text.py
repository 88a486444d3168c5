"""A suite's results as a terminal shows them: a table for each category, and a line for each task without a result."""

import io
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from deltaproof.experiments import wording

_SIGNS = {"better": "▲", "worse": "▼", "equivalent": "≈", "cannot tell": "?"}
_SIDE_BY_SIDE = 4
"""Tasks in one table, so that it fits a terminal."""


def suite_text(document: dict[str, Any], width: int = 110) -> str:
    """Scores with their intervals and the verdicts' signs, tasks in columns; for a dry run the estimates."""
    out = io.StringIO()
    entries = document["tasks"]
    run = [entry for entry in entries if entry["result"]]
    wide = Console(file=out, width=max(width, 40 + 24 * _SIDE_BY_SIDE), highlight=False, color_system=None)
    for category in dict.fromkeys(entry["category"] for entry in run):
        within = [entry for entry in run if entry["category"] == category]
        for start in range(0, len(within), _SIDE_BY_SIDE):
            wide.print(_grid(category, within[start : start + _SIDE_BY_SIDE]), markup=False)
    console = Console(file=out, width=width, highlight=False, color_system=None)
    if run:
        signs = ", ".join(f"{sign} {verdict}" for verdict, sign in _SIGNS.items())
        reference = run[0]["result"]["reference"]
        console.print(
            f"In brackets 95 % intervals over seeds and test examples. Against {reference}: {signs}.", markup=False
        )
    if document.get("compression"):
        console.print("", *_compressed(document["compression"]), sep="\n", markup=False)
    told = {entry["name"]: entry["estimated_seconds"] for entry in entries if entry["status"] == "estimated"}
    for name, seconds in told.items():
        console.print(f"{name}: about {wording.duration(seconds)}", markup=False)
    if told:
        console.print(f"in all about {wording.duration(sum(told.values()))}", markup=False)
    for entry in entries:
        if not entry["result"] and entry["status"] not in ("left_out", "estimated", "planned"):
            state = "failed" if entry["status"] == "failed" else "not run"
            console.print(f"{entry['name']} ({entry['category']}): {state}: {entry['reason']}", markup=False)
        elif entry["result"] and entry["reason"]:
            console.print(f"{entry['name']}: {entry['reason']}", markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def _grid(category: str, entries: list[dict[str, Any]]) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(category), title_justify="left", title_style="")
    grid.add_column("method", overflow="fold", min_width=8, max_width=40)
    for entry in entries:
        metric = entry["result"]["metric"].replace("_", " ")
        grid.add_column(Text(f"{entry['title']}\n{metric}"), justify="right", no_wrap=True)
    for part in ("methods", "baselines"):
        for name in dict.fromkeys(row["name"] for entry in entries for row in entry["result"][part]):
            grid.add_row(name, *(_cell(entry, name) for entry in entries))
        grid.add_section()
    return grid


def _cell(entry: dict[str, Any], name: str) -> str:
    result = entry["result"]
    row = next((row for row in (*result["methods"], *result["baselines"]) if row["name"] == name), None)
    if row is None or row["mean"] is None:
        return "–" if row is None else str(row["status"]).replace("_", " ")
    unit = result["unit"]
    reach = f"{wording.score(row['low'], unit)}–{wording.score(row['high'], unit)}"
    return f"{wording.score(row['mean'], unit)} ({reach}) {_SIGNS.get(row['verdict'], ' ')}"


def _compressed(found: dict[str, Any]) -> list[str]:
    """What compressed updates retain, over the tasks, and what that says of each claim."""
    lines = [f"compressed updates, over {len(found['tasks'])} tasks, differences to the updates as tuned in points",
             f"{'method':12} {'density':>7}  {'fp16':>7}  {'fp32':>7}  {'stored':>7}  {'difference':>22}  "
             f"{'verdict':12}  retained, %"]  # fmt: skip
    for row in found["rows"]:
        lines.append(
            f"{row['method']:12} {row['density']:>7}  {row['fp16_ratio']:6.1f}x  {row['fp32_ratio']:6.1f}x  "
            f"{row['stored_ratio']:6.1f}x  {_reach(row['difference'], True):>22}  {row['verdict']:12}  "
            f"{_reach(row['retained'], False)}"
        )
    lines += [f"in brackets 95 % intervals over tasks; margin {wording.amount(found['margin'], 'fraction')}", ""]
    return [*lines, *(f"{claim['title']}: {claim['verdict']}; {claim['because']}" for claim in found["claims"]), ""]


def _reach(found: dict[str, float] | None, with_sign: bool) -> str:
    if found is None:
        return "–"
    write = wording.signed if with_sign else wording.score
    mean, low, high = (write(found[end], "fraction") for end in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
