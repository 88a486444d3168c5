"""A merge in words: what was tried, what it scores, and what can be said of the difference."""

from typing import Any

from deltaproof.experiments.wording import score as shown
from deltaproof.experiments.wording import signed, size
from deltaproof.metrics import METRICS

_BEST = 8
_KINDS = {"expert": "", "body": " (its body, this head)", "base": " (the base's body, this head)"}


def merge_text(found: dict[str, Any]) -> str:
    """The merge of `MergeRun.to_json`, one block for each task."""
    lines = [_head(found), "", *_experts(found)]
    if found["tried"]:
        lines += ["", *_tried(found)]
    for run in found["runs"]:
        lines += ["", *_run(run)]
    if not found["runs"]:
        lines += ["", "no score: no expert lies in a run folder; `--run` names one"]
    return "\n".join([*lines, *(f"note: {note}" for note in found["notes"])])


def _head(found: dict[str, Any]) -> str:
    recipe = found["recipe"]
    density = f", density {recipe['density']:g}" if recipe["density"] < 1 else ""
    rank = f", every matrix cut to rank {recipe['rank']}" if recipe["rank"] is not None else ""
    base = found["experts"][0]["base"]
    return f"{recipe['how']} of {len(found['experts'])} experts of {base}{density}{rank}"


def _experts(found: dict[str, Any]) -> list[str]:
    names = [one["name"] for one in found["experts"]]
    width = max(map(len, names), default=0)
    cells = max(7, width)
    lines = [
        f"{'expert':{width}}  weight    stored  cosine of its update with " + "  ".join(f"{n:>{cells}}" for n in names)
    ]
    for at, one in enumerate(found["experts"]):
        row = "  ".join(f"{_cosine(value):>{cells}}" for value in found["cosines"][at])
        lines.append(f"{one['name']:{width}}  {one['weight']:6.3g}  {size(one['stored_bytes']):>8}  {'':26}{row}")
    return lines


def _cosine(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def _tried(found: dict[str, Any]) -> list[str]:
    of = {"validation": "validation rows", "examples": "labelled examples"}[found["chosen_on"]]
    best = sorted(found["tried"], key=lambda one: (-one["value"], one["loss"]))
    shown_ = [
        f"{one['value']:10.4f}  {one['loss']:8.4f}  {', '.join(f'{weight:g}' for weight in one['weights'])}"
        for one in best[:_BEST]
    ]
    more = [f"           … and {len(best) - _BEST} more"] if len(best) > _BEST else []
    return [
        f"weights chosen on {of}, {len(best)} evaluations; the best:",
        " objective      loss  weights",
        *shown_,
        *more,
    ]


def _run(run: dict[str, Any]) -> list[str]:
    unit = METRICS[run["metric"]].unit
    has_test = run["test"] is not None
    n_test = f", {run['test']['n']} test rows" if has_test else ""
    names = ["the merge", *(one["name"] + _KINDS[one["kind"]] for one in run["compared"]), "head trained alone"]
    width = max(map(len, names))
    where = run["run"].rstrip("/").rpartition("/")[2]
    lines = [
        f"{where}: {run['metric']}, {run['validation']['n']} validation rows{n_test}; head {run['head']}",
        f"{'':{width}}  validation{'  test' if has_test else ''}  the merge's difference ("
        f"{'test' if has_test else 'validation'} rows, 95 %)",
        _line("the merge", width, run["validation"]["merged"], run["test"]["merged"] if has_test else None, unit, ""),
    ]
    for one in run["compared"]:
        found = one["difference"]["test" if has_test and one["difference"]["test"] else "validation"]
        said = (
            f"{signed(found['difference'], unit):>6} ({signed(found['low'], unit)} to {signed(found['high'], unit)})  "
            f"{found['verdict']}"
        )
        lines.append(_line(one["name"] + _KINDS[one["kind"]], width, one["validation"], one["test"], unit, said))
    if run["head_only"] is not None:
        only = run["head_only"]
        lines.append(
            _line("head trained alone", width, only["validation"], only["test"] if has_test else None, unit, "")
        )
    if run["chosen_on"] == "validation":
        lines.append("the weights were chosen on these validation rows: that score is a little too good")
    lines.append(f"record {run['key']}")
    return lines


def _line(name: str, width: int, validation: float, test: float | None, unit: str, said: str) -> str:
    of_test = f"  {shown(test, unit):>4}" if test is not None else ""
    return f"{name:{width}}  {shown(validation, unit):>10}{of_test}  {said}".rstrip()
