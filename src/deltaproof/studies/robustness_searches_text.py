"""What searches against models came to, as a terminal shows it."""

from textwrap import wrap

from deltaproof.experiments.wording import score
from deltaproof.studies.robustness_tables import Result, method_table, span

_LEGEND = (
    "A search works against each model by itself. robust: the score after it; success: of the rows right "
    "when clean, the share that it turned; queries: texts asked about such a row, on average; words: share changed in "
    "a row that it turned."
)


def searches_text(result: Result, width: int) -> list[str]:
    """A table for each search and strength: what it left, and what it took."""
    sets = [entry for entry in result["sets"] if entry["kind"] == "search"]
    found = [f"{_head(entry)}\n{_table(result, entry, width)}" for entry in sets]
    return [*found, "\n".join(wrap(_LEGEND, width))] if found else []


def _head(entry: Result) -> str:
    noise = ", noise: may change what is true" if entry["promise"] == "noise" else ""
    return f"{entry['name']}, up to {100 * entry['strength']:.3g} % of the words{noise}"


def _table(result: Result, entry: Result, width: int) -> str:
    unit, methods = result["unit"], entry["methods"]
    columns = [
        (["clean"], {one["label"]: score(one["clean"]["mean"], unit) for one in methods}),
        (["robust"], {one["label"]: span(one["perturbed"], unit) for one in methods}),
        (["success"], {one["label"]: span(one["attack_success"], "fraction") for one in methods}),
        (["queries"], {one["label"]: _plain(one["n_queries"], 1) for one in methods}),
        (["words, %"], {one["label"]: _plain(one["changed"], 100) for one in methods}),
    ]
    verdicts = {one["label"]: one["verdict"] for one in entry["against_reference"]}
    if verdicts:
        columns.append(([f"vs {result['reference']}"], verdicts))
    other = next((other for other in result["sets"] if _hands_on(other, entry)), None)
    if other is not None:
        success = {one["label"]: span(one["attack_success"], "fraction") for one in other["methods"]}
        columns.append(([f"success of {result['reference']}'s"], success))
    return method_table(result["methods"], columns, width)


def _hands_on(other: Result, entry: Result) -> bool:
    """Whether a set holds the texts that a search found against the reference."""
    is_same = other["strength"] == entry["strength"] and other["name"] == f"{entry['name']}_transfer"
    return bool(other["kind"] == "transfer" and is_same)


def _plain(interval: Result | None, factor: float) -> str:
    return "–" if interval is None else f"{factor * interval['mean']:.1f}"
