"""Scaling: what more parameters and more data were worth, and what one more doubling would be asked to bring."""

from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS
from deltaproof.report.chapter import Chapter
from deltaproof.report.estimates import estimate
from deltaproof.report.figure import Figure
from deltaproof.report.figures import power_laws, scale_examples, scale_gains, scale_parameters, scale_rates
from deltaproof.report.figures.scale_gains import Growing
from deltaproof.report.grid import Grid
from deltaproof.report.study import Study

_SHRINKS = {
    "diminishing": "Returns diminish: each doubling brings less than the one before",
    "not diminishing": "Returns do not diminish in this range: each doubling brings as much as the one before, or more",
    "cannot tell": "Whether returns diminish cannot be told from these runs",
}
_MOST_SENTENCES = 4
"""Of more methods the tables tell the rest."""


def scaling(study: Study) -> Chapter | None:
    parameters, examples = study.studies.get("scale_parameters"), study.studies.get("scale_examples")
    if parameters is None and examples is None:
        return None
    curves = scale_gains.growing(parameters, examples)
    metric = METRICS[(parameters or examples or {})["metric"]]
    blocks: list[Figure | Grid | None] = []
    if parameters is not None:
        blocks.append(scale_parameters.figure(parameters, study))
    if examples is not None:
        blocks.append(scale_examples.figure(examples, study))
        blocks.append(scale_examples.crossover_table(examples))
        blocks += [power_laws.figure(examples, study), power_laws.law_table(examples)]
    if curves:
        blocks += [scale_gains.figure(curves, metric, study), scale_gains.returns_table(curves, metric)]
    blocks.append(scale_rates.figure(parameters, examples, study))
    shown = tuple(block for block in blocks if isinstance(block, Grid) or (isinstance(block, Figure) and block.panels))
    lead = (*_of_parameters(parameters, curves), *_of_examples(examples, curves))
    return Chapter("scaling", "Scaling", lead, shown, _notes(parameters, examples))


def _of_parameters(result: dict[str, Any] | None, curves: list[Growing]) -> list[str]:
    if result is None:
        return []
    metric, points = METRICS[result["metric"]], scale_parameters.points_of(result)
    if not points:
        return [f"No rank of {result['method']} came through."]
    sign = 1 if metric.higher_is_better else -1
    n, best, entry = max(points, key=lambda found: sign * found[1].mean)
    told = (
        f"The best mean over ranks is {best.text(metric.unit)}, of {entry['label']} with {wording.count(n)} parameters."
    )
    reach = [(size, point) for size, score, point in points if score.ends[0] <= best.mean <= score.ends[-1]]
    if reach and reach[0][0] < n:
        told += (
            f" The smallest whose interval reaches it is {reach[0][1]['label']} with {wording.count(reach[0][0])}, "
            "which is no proof that they are equal."
        )
    return [told, *(_doubling(curve, metric.unit) for curve in curves if curve.what == "parameters")]


def _doubling(curve: Growing, unit: str) -> str:
    """What the last doubling brought, and whether returns diminish."""
    low, high, gain = curve.gains[-1]
    paid = {
        1: "so more was still paying",
        0: "so more is not shown to pay at the end",
        -1: "so more was harmful at the end",
    }[gain.sign]
    bend = estimate(curve.found.get("bend"))
    change = f"; the gain per doubling changes by {bend.text(unit, with_sign=True)} at each" if bend else ""
    said = _SHRINKS.get(str(curve.found.get("verdict")), _SHRINKS["cannot tell"])
    written = wording.count if curve.what == "parameters" else scale_examples.plain
    return (
        f"{curve.label}: from {written(low)} to {written(high)} {curve.what} a doubling brought "
        f"{gain.text(unit, with_sign=True)}, {paid}. {said}{change}."
    )


def _of_examples(result: dict[str, Any] | None, curves: list[Growing]) -> list[str]:
    if result is None:
        return []
    unit = METRICS[result["metric"]].unit
    told = [f"{scale_examples.heading_of(pair)}." for pair in result.get("crossovers") or []]
    growing = [curve for curve in curves if curve.what == "examples"]
    if len(growing) <= _MOST_SENTENCES:
        return [*told[:_MOST_SENTENCES], *(_doubling(curve, unit) for curve in growing)]
    paying = [curve.label for curve in growing if curve.gains[-1][2].sign > 0]
    more = f"More data was still paying at the end for {len(paying)} of {len(growing)} methods"
    return [*told[:_MOST_SENTENCES], f"{more}{': ' if paying else ''}{', '.join(paying)}."]


def _notes(parameters: dict[str, Any] | None, examples: dict[str, Any] | None) -> tuple[str, ...]:
    points = [point for _, _, point in scale_parameters.points_of(parameters)] if parameters else []
    for method in scale_examples.methods_of(examples) if examples else []:
        points += [point for _, _, point in scale_examples.sizes_of(method)]
    n_edge = sum(bool(point.get("at_edge")) for point in points)
    notes = []
    if n_edge:
        notes.append(
            f"{n_edge} of {len(points)} points were tuned to a learning rate at the edge of those tried; widen the "
            "grid with --trials before leaning on their curve."
        )
    notes.append(
        "Curves hold in the range that was measured, for this model, data and training length; nothing is extrapolated."
    )
    return tuple(notes)
