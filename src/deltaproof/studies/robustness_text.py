"""The robustness study as a terminal shows it: a table of drops, and what can be said of the methods."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from deltaproof.experiments.wording import amount, score, signed
from deltaproof.studies.robustness_searches_text import searches_text
from deltaproof.studies.robustness_tables import method_table, span

Result = dict[str, Any]
MARKS = {"more fragile": "▲", "more robust": "▼", "equivalent": "="}


def robustness_text(result: Result, width: int = 110) -> str:
    """Drops at the middle strength by method and set, then the findings in sentences."""
    parts = [
        "\n".join(wrap(_head(result), width)),
        *_tables(result, width),
        *searches_text(result, width),
        *_given(result, width),
        *_legend(result, width),
        _sentences(result, width),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(result: Result) -> str:
    metric = result["metric"].replace("_", " ")
    rows = f"{result['n_examples']} of {result['n_test']} test rows"
    clean = ", ".join(f"{label} {score(clean['mean'], result['unit'])}" for label, clean in result["clean"].items())
    return f"Robustness: what perturbations cost, {metric} on {rows}, {_seeds(result['n_seeds'])}. Clean: {clean}."


def _seeds(n: int) -> str:
    return f"{n} seeds" if n > 1 else "one seed, which says nothing of others"


def middle(sets: Sequence[Result]) -> list[Result]:
    """Of each perturbation the set of middle strength, in the order of the study."""
    by_name: dict[str, list[Result]] = {}
    for entry in sets:
        by_name.setdefault(entry["name"], []).append(entry)
    found = []
    for entries in by_name.values():
        ordered = sorted(entries, key=lambda entry: entry["strength"])
        found.append(ordered[(len(ordered) - 1) // 2])
    return found


def _tables(result: Result, width: int) -> list[str]:
    """Rows are methods, columns perturbations; as many tables as the width asks for."""
    sets = middle([entry for entry in result["sets"] if entry["kind"] not in ("adversarial", "transfer")])
    columns = [(_heading(entry), _cells(result, entry)) for entry in sets]
    if result["overall"] is not None:
        columns.insert(0, (["over-", "all"], _cells(result, result["overall"])))
    if not columns:
        return []
    room = width - 2 - min(40, max(map(len, result["methods"])))
    blocks: list[list[tuple[list[str], dict[str, str]]]] = [[]]
    used = 0
    for heading, cells in columns:
        size = max(map(len, [*heading, *cells.values()])) + 3
        if blocks[-1] and used + size > room:
            blocks.append([])
            used = 0
        blocks[-1].append((heading, cells))
        used += size
    return [method_table(result["methods"], block, width) for block in blocks]


def _legend(result: Result, width: int) -> list[str]:
    """What the marks of the tables mean."""
    if not result["sets"]:
        return []
    unit = "points" if result["unit"] == "fraction" else result["unit"] or result["metric"]
    legend = (
        f"Drop in {unit}, of a perturbation at its middle strength. Against {result['reference']}: ▲ more fragile, "
        f"▼ more robust, = equivalent within {amount(result['margin'], result['unit'])}, no mark: cannot tell. "
        f"* noise: may change what is true."
    )
    return ["\n".join(wrap(legend, width))]


def _heading(entry: Result) -> list[str]:
    """The name on several lines, and the strength."""
    star = "*" if entry["promise"] == "noise" else ""
    words = entry["name"].replace("weight_noise", "noise").replace("embedding_pgd", "PGD").split("_")
    return [*words[:-1], words[-1] + star, f"{entry['strength']:.2g}"]


def _cells(result: Result, entry: Result) -> dict[str, str]:
    marks = {one["label"]: MARKS.get(one["verdict"], " ") for one in entry["against_reference"]}
    return {
        one["label"]: score(one["drop"]["mean"], result["unit"]) + marks.get(one["label"], " ")
        for one in entry["methods"]
    }


def _given(result: Result, width: int) -> list[str]:
    """A table for the user's own sets: what each method scores there."""
    found = []
    for entry in (entry for entry in result["sets"] if entry["kind"] == "adversarial"):
        columns: list[tuple[list[str], dict[str, str]]] = [
            (["clean"], {one["label"]: score(one["clean"]["mean"], result["unit"]) for one in entry["methods"]}),
            (["here"], {one["label"]: span(one["perturbed"], result["unit"]) for one in entry["methods"]}),
            (["drop"], _cells(result, entry)),
            (
                [f"vs {result['reference']}"],
                {
                    one["label"]: f"{signed(one['score_difference']['mean'], result['unit'])}, {one['score_verdict']}"
                    for one in entry["against_reference"]
                    if one["score_difference"]
                },
            ),
        ]
        found.append(f"{entry['name']}, {entry['n_examples']} rows\n{method_table(result['methods'], columns, width)}")
    for entry in result["contrast"]:
        columns = [
            (["right"], {one["label"]: span(one["accuracy"], "fraction") for one in entry["methods"]}),
            (["whole set", "right"], {one["label"]: span(one["consistency"], "fraction") for one in entry["methods"]}),
        ]
        if entry["n_pairs"] > 1:
            of_pairs = {one["label"]: span(one["pair_consistency"], "fraction") for one in entry["methods"]}
            columns.append((["answer changes", "as the label does"], of_pairs))
        sets = f"{entry['n_sets']} contrast sets of {entry['n_examples']} rows"
        found.append(f"{entry['name']}, {sets}\n{method_table(result['methods'], columns, width)}")
    return found


def _sentences(result: Result, width: int) -> str:
    said = [*_overall(result), *_equal(result)]
    said += [f"left out, {name}: {why}" for name, why in result["left_out"].items()]
    said += result["notes"]
    lines = (wrap(sentence, width, initial_indent="- ", subsequent_indent="  ") for sentence in said)
    return "\n".join(line for sentence in lines for line in sentence)


def _overall(result: Result) -> list[str]:
    if result["overall"] is None:
        return []
    unit, said = result["unit"], []
    for one in result["overall"]["against_reference"]:
        gap, matched = one["drop_difference"], one["matched"]
        points = " points" if unit == "fraction" else ""
        word = "more" if gap["mean"] >= 0 else "less"
        span = f"{signed(gap['low'], unit)} to {signed(gap['high'], unit)}"
        sentence = (
            f"{one['label']} loses {score(abs(gap['mean']), unit)}{points} {word} than {result['reference']} "
            f"(difference {span}) over {result['overall']['n_sets']} sets that keep the label: {one['verdict']}"
        )
        if matched is not None:
            sentence += (
                f"; of {matched['n_examples']:.0f} rows that both had right it then has "
                f"{score(matched['method']['mean'], 'fraction')} % wrong, {result['reference']} "
                f"{score(matched['reference']['mean'], 'fraction')} % (difference "
                f"{signed(matched['difference']['low'], 'fraction')} to "
                f"{signed(matched['difference']['high'], 'fraction')})"
            )
        said.append(sentence)
    if result["worst_case"]:
        worst = ", ".join(f"{label} {score(one['mean'], unit)}" for label, one in result["worst_case"].items() if one)
        said.append(f"right when clean and in every one of these sets: {worst}")
    return said


def _equal(result: Result) -> list[str]:
    """The drop at equal clean score, or why that is not known."""
    if result["at_equal_accuracy_reason"]:
        return [f"the drop at equal clean {result['metric']} is not known: {result['at_equal_accuracy_reason']}"]
    if not result["at_equal_accuracy"]:
        return []
    overall, unit = result["at_equal_accuracy"][0], result["unit"]
    gaps = "; ".join(
        f"{label} {signed(gap['mean'], unit)} ({signed(gap['low'], unit)} to {signed(gap['high'], unit)})"
        for label, gap in overall["differences"].items()
    )
    return [
        f"drop at equal clean {result['metric']}, against {result['reference']}: {gaps} "
        f"({overall['n_checkpoints']} checkpoints of {overall['n_runs']} runs: {result['at_equal_accuracy_basis']})"
    ]
