"""The chapter on capacity: what the updates are, whether a low rank binds, what moved and what was forgotten."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deltaproof.experiments import wording
from deltaproof.report.chapter import Chapter
from deltaproof.report.figure import Figure
from deltaproof.report.figures import (
    change_line,
    displacement,
    forgetting,
    increments,
    local_slopes,
    overlap,
    singular_values,
    truncation,
    weight_maps,
)
from deltaproof.report.figures.updates_table import updates_table
from deltaproof.report.figures.weights import without_matrices
from deltaproof.report.grid import Grid
from deltaproof.report.numbers import power_of_ten, sentence
from deltaproof.report.study import Study
from deltaproof.studies.capacity_text import TITLES, sentences

Result = dict[str, Any]
NAMES = tuple(TITLES)
"""The studies that the chapter is drawn from."""


def capacity(study: Study) -> Chapter | None:
    """None where no study of the capacity suite was made."""
    found = {name: study.studies[name] for name in NAMES if name in study.studies}
    if not found:
        return None
    made = {name: result for name, result in found.items() if result.get("applicable") is not False}
    blocks = [block for name, result in made.items() for block in _BLOCKS[name](study, result)]
    return Chapter(
        "capacity",
        "Capacity",
        tuple(line for name, result in made.items() for line in _LEADS[name](study, result)),
        tuple(block for block in blocks if isinstance(block, Grid) or block.panels),
        tuple(_plain(study, note) for note in (*_left_out(made), *_missing(study, found), *_limits(study, made))),
    )


def _expressivity(study: Study, result: Result) -> list[Figure | Grid]:
    return [truncation.figure(study, result), truncation.verdicts(result)]


def _spectra(study: Study, result: Result) -> list[Figure | Grid]:
    return [
        updates_table(result),
        singular_values.figure(study, result),
        *weight_maps.figures(study, result),
        overlap.captured_figure(study, result),
        overlap.maps_figure(study, result),
        increments.figure(study, result),
    ]


def _displacement(study: Study, result: Result) -> list[Figure | Grid]:
    return [
        displacement.figure(study, result),
        displacement.layers_figure(study, result),
        local_slopes.figure(study, result),
    ]


_BLOCKS: dict[str, Callable[[Study, Result], list[Figure | Grid]]] = {
    "expressivity": _expressivity,
    "spectra": _spectra,
    "displacement": _displacement,
    "path": lambda study, result: [change_line.figure(study, result)],
    "forgetting": lambda study, result: [forgetting.figure(study, result)],
}


def _spectra_lead(study: Study, result: Result) -> list[str]:
    full = next((method for method in result["methods"] if method["label"] == "full" and method["summary"]), None)
    said = []
    if full is not None:
        summary = full["summary"]
        over_noise = summary["median_r90_over_noise"]
        said.append(
            f"Full fine-tuning changed the weights by {wording.share(summary['norm_f'] / summary['base_norm_f'])} of "
            f"their norm; 90 % of that takes rank {summary['median_r90']:.0f} in the middle matrix, "
            f"{wording.share(over_noise)} of what noise would take"
            + (": no more can be said of its rank than of noise's." if over_noise >= 0.9 else ".")
        )
    with_intruders = [m for m in result["methods"] if m["intruders"] and m["intruders"]["n_robust"] >= 1]
    if with_intruders:
        most = sorted(with_intruders, key=lambda method: -float(method["intruders"]["n_robust"]))
        counts = [f"{_of_examined(method['intruders'])} under {method['label']}" for method in most[:3]]
        more = f", fewer under {len(most) - 3} others" if len(most) > 3 else ""
        said.append(f"Intruder dimensions that noise does not explain, per model: {', '.join(counts)}{more}.")
    elif any(method["intruders"] for method in result["methods"]):
        said.append("No method brought even one intruder dimension per model that noise does not explain.")
    return said


def _of_examined(intruders: Result) -> str:
    return f"{intruders['n_robust']:.0f} of {intruders['n_examined']:.0f}"


def _displacement_lead(study: Study, result: Result) -> list[str]:
    bounds = [method["bound"]["log10_tightness_high"] for method in result["methods"] if method["bound"]]
    if not bounds:
        return []
    if max(bounds) > -1:
        return [f"Measured movement comes as near as {power_of_ten(max(bounds))} to the capacity theorem's bound."]
    slack = power_of_ten(math.floor(-max(bounds)))
    return [
        f"The capacity theorem's bound would let the answers move at least {slack} times as far as they did, under "
        "full fine-tuning as under every other change of weights measured here."
    ]


def _forgetting_lead(study: Study, result: Result) -> list[str]:
    ranked = sorted((m for m in result["methods"] if m["rise"] is not None), key=lambda method: float(method["rise"]))
    if len(ranked) < 2:
        return []
    least, most = ranked[0], ranked[-1]
    words = [
        f"{m['label']} ({m['rise']:+.2g}, {m['low']:+.2g} to {m['high']:+.2g})".replace("-", "−") for m in (least, most)
    ]
    apart = "" if least["high"] < most["low"] else ", though their intervals overlap"
    return [f"Of what the base knew, {words[0]} lost least and {words[1]} most{apart}, in {result['unit']}."]


_LEADS: dict[str, Callable[[Study, Result], list[str]]] = {
    "expressivity": lambda study, result: [sentence(said) for said in sentences("expressivity", result)],
    "spectra": _spectra_lead,
    "displacement": _displacement_lead,
    "path": lambda study, result: [],
    "forgetting": _forgetting_lead,
}


def _left_out(made: dict[str, Result]) -> list[str]:
    """Methods that have no part in the figures of weights, and why."""
    without = without_matrices(made["spectra"]) if "spectra" in made else []
    return [f"Not in the figures of weights: {'; '.join(without)}."] if without else []


def _missing(study: Study, found: dict[str, Result]) -> list[str]:
    """Questions that the page does not answer, and why."""
    has_full = any((entry.get("method") or {}).get("name") == "full" for entry in study.contestants.values())
    said, not_made = [], []
    for name, title in TITLES.items():
        if name == "expressivity" and name not in found and not has_full:
            said.append(
                f"{title} The truncation test needs a fully tuned model, and there is no `full` among the methods."
            )
        elif name not in found:
            not_made.append(f"“{title}”")
        elif found[name].get("applicable") is False:
            said.append(f"{title} Not answered: {sentence(found[name]['reason'])}")
    if not_made:
        said.append(f"Not asked yet: {', '.join(not_made)}; `deltaproof capacity` asks models kept with `--keep all`.")
    return said


def _limits(study: Study, made: dict[str, Result]) -> list[str]:
    """What limits the findings."""
    said = []
    looked_at = {key for name, result in made.items() if name != "expressivity" for key in _keys(result)}
    finals = {key for row in study.done for key in row.keys}
    if looked_at and len(looked_at & finals) < len(finals):
        said.append(
            f"Studies of kept models looked at {len(looked_at & finals)} of {len(finals)} final runs; the others were "
            "not kept, or came later."
        )
    if "displacement" in made:
        said += [f"The bound is {made['displacement']['bound']}.", sentence(made["displacement"]["head"])]
        missing = {name for method in made["displacement"]["methods"] for name in method["not_in_bound"]}
        if missing:
            said.append(f"Changes that the bound leaves out: {', '.join(sorted(missing))}.")
    return said


def _keys(result: Result) -> list[str]:
    return list((result.get("inputs") or {}).get("keys") or [])


def _plain(study: Study, text: str) -> str:
    """Without the folder that a local model lies in: pages are passed on."""
    name = str(study.experiment["model"]["name"])
    return text.replace(name, Path(name).name) if Path(name).is_absolute() else text
