"""Robustness: what perturbations cost each method, and whether one stands them better beyond being better or worse."""

from functools import partial

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS
from deltaproof.report import robustness_tables as tables
from deltaproof.report.chapter import Chapter
from deltaproof.report.estimates import estimate
from deltaproof.report.figure import Figure
from deltaproof.report.figures import (
    robustness_checkpoints,
    robustness_curves,
    robustness_differences,
    robustness_map,
    robustness_scatter,
)
from deltaproof.report.grid import Grid
from deltaproof.report.numbers import metric_name, plural, value
from deltaproof.report.perturbed_texts import perturbed_texts
from deltaproof.report.robustness_searches import searches
from deltaproof.report.robustness_sets import KEEPS, SEARCHED, Json, groups, methods, number
from deltaproof.report.study import Study

_MOST_NAMED = 4
"""More methods are counted; the tables name them."""
_VERDICTS = ("more fragile", "more robust", "equivalent", "cannot tell")


def robustness(study: Study) -> Chapter | None:
    result = study.studies.get("robustness")
    if result is None:
        return None
    blocks: tuple[Figure | Grid | None, ...] = (
        tables.answer(result) if result.get("overall") else None,
        robustness_differences.overall_figure(result, study),
        robustness_map.figure(result, study),
        robustness_curves.figure(result, study),
        robustness_differences.matched_figure(result, study),
        robustness_checkpoints.figure(result, study),
        robustness_checkpoints.slopes_table(result),
        robustness_scatter.figure(result, study),
        searches(result),
        tables.own_sets(result),
        tables.contrast_sets(result),
    )
    shown = tuple(block for block in blocks if block is not None and (isinstance(block, Grid) or block.panels))
    lead, notes = tuple(_lead(result)), tuple(_notes(result))
    return Chapter("robustness", "Robustness", lead, shown, notes, partial(perturbed_texts, study, result))


def _lead(result: Json) -> list[str]:
    told = (_overall(result), _verdicts(result), _equal(result), _hardest(result), _searched(result))
    return [sentence for sentence in told if sentence]


def _overall(result: Json) -> str:
    overall, unit = result.get("overall") or {}, str(result["unit"])
    drops = {name: number(overall.get("methods"), name, "drop") for name in methods(result)}
    told = {name: drop for name, drop in drops.items() if drop is not None}
    if not told:
        return ""
    metric, points = metric_name(METRICS[result["metric"]]), "points of " if unit == "fraction" else ""
    where = f"Lost {points}{metric} over {overall.get('sets', 'all sets')}"
    if len(told) > _MOST_NAMED:
        least, most = min(told, key=lambda name: told[name].mean), max(told, key=lambda name: told[name].mean)
        return f"{where}: {told[least].text(unit)} by {least}, the least, to {told[most].text(unit)} by {most}."
    return f"{where}: {'; '.join(f'{name} {drop.text(unit)}' for name, drop in told.items())}."


def _verdicts(result: Json) -> str:
    against = (result.get("overall") or {}).get("against_reference") or []
    by_verdict: dict[str, list[str]] = {verdict: [] for verdict in _VERDICTS}
    for entry in against:
        if entry.get("verdict") in by_verdict:
            by_verdict[entry["verdict"]].append(str(entry["label"]))
    told = [f"{verdict}: {_named(names)}" for verdict, names in by_verdict.items() if names]
    if not told:
        return ""
    flips = {str(entry["label"]): robustness_differences.flips_beyond(entry) for entry in against}
    more = [name for name, found in flips.items() if found is not None and found.sign > 0]
    fewer = [name for name, found in flips.items() if found is not None and found.sign < 0]
    sentence = f"Against {result['reference']}, {'; '.join(told)}."
    if any(flips.values()):
        sentence += " On examples that both had right when clean, "
        parts = [f"{_these(more)} more often"] * bool(more) + [f"{_these(fewer)} less often"] * bool(fewer)
        sentence += f"{' and '.join(parts)}." if parts else f"none flips shown to differ from {result['reference']}."
    return sentence


def _named(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= _MOST_NAMED else f"{len(names)} methods"


def _these(names: list[str]) -> str:
    return f"{_named(names)} {'flips' if len(names) == 1 else 'flip'}"


def _equal(result: Json) -> str:
    reason = str(result.get("at_equal_accuracy_reason") or "")
    if reason:
        return f"The drop at equal clean score is not known: {reason}."
    entry = next((one for one in result.get("at_equal_accuracy") or [] if one.get("set") == "overall"), None)
    gaps = {name: estimate(gap) for name, gap in ((entry or {}).get("differences") or {}).items()}
    told = {name: gap for name, gap in gaps.items() if gap is not None}
    if not told:
        return ""
    unit, shown = str(result["unit"]), [name for name, gap in told.items() if gap.sign != 0]
    if not shown:
        return f"At equal clean score no method is shown to lose more or less than {result['reference']}."
    if len(shown) > _MOST_NAMED:
        n_more = sum(told[name].sign > 0 for name in shown)
        return (
            f"At equal clean score {n_more} methods lose more than {result['reference']}, {len(shown) - n_more} less."
        )
    parts = [f"{name} {wording.signed(told[name].mean, unit)} ({told[name].cell(unit, True).detail})" for name in shown]
    return f"At equal clean score a method loses, beyond {result['reference']}: {'; '.join(parts)}."


def _hardest(result: Json) -> str:
    """The label-keeping perturbation that costs the reference most."""
    reference = str(result["reference"])
    found = _worst(result, KEEPS)
    if found is None:
        return ""
    if not found:
        return f"At its middle strength nothing that keeps labels is shown to cost {reference} anything."
    return (
        f"At middle strength the perturbation that keeps labels and hurts {reference} most is {found}. If your users' "
        "texts look like that, train on such texts or clean them first."
    )


def _searched(result: Json) -> str:
    """The search that costs the reference most: edits that were chosen against the model, which users do not make."""
    reference = str(result["reference"])
    found = _worst(result, SEARCHED)
    if found is None:
        return ""
    if not found:
        return f"At middle strength no search is shown to cost {reference} anything."
    return f"The search that hurts {reference} most, each model by itself, is {found}."


def _worst(result: Json, category: str) -> str | None:
    """What of a category costs the reference most at middle strength, as `char swap, 0.2: from 90.0 to 70.0`; empty
    where nothing is shown to cost it anything, None where nothing was asked."""
    reference, unit = str(result["reference"]), str(result["unit"])
    drops = [
        (drop, group)
        for group in groups(result)
        if group.category == category and (drop := number(group.middle["methods"], reference, "drop")) is not None
    ]
    if not drops:
        return None
    shown = [(drop.mean, at, group) for at, (drop, group) in enumerate(drops) if drop.sign > 0]
    if not shown:
        return ""
    _, _, group = max(shown)
    clean = number(group.middle["methods"], reference, "clean")
    after = number(group.middle["methods"], reference, "perturbed")
    if clean is None or after is None:
        return None
    return f"{group.middle_name}: from {value(clean.mean, unit)} to {value(after.mean, unit)}"


def _notes(result: Json) -> list[str]:
    n, n_test = result.get("n_examples"), result.get("n_test")
    rows = f"{n} of {n_test} test rows" if n_test else f"{n} test rows"
    notes = [
        f"On {rows}, with {plural(int(result.get('n_seeds') or 1), 'seed')} of each method. Perturbed texts are made "
        "from the sealed test rows, which counts as an opening of them; the exact texts stand in the run folder, in "
        "robustness/sets."
    ]
    notes += [f"Left out, {name}: {why}" for name, why in (result.get("left_out") or {}).items()]
    return notes + [str(note) for note in result.get("notes") or []]
