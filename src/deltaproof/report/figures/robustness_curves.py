"""Robustness curves: what is left of the score as a perturbation grows, one panel for each."""

from collections.abc import Sequence
from itertools import pairwise

from deltaproof.metrics import METRICS
from deltaproof.report.drawing.marks import Mark, Series, draw_series
from deltaproof.report.drawing.plot import SMALL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing, text_width
from deltaproof.report.estimates import Estimate
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import grid
from deltaproof.report.numbers import metric_name, metric_title, value
from deltaproof.report.robustness_sets import (
    HANDED_ON,
    KEEPS,
    NOISE,
    SEARCHED,
    Group,
    Json,
    groups,
    methods,
    number,
)
from deltaproof.report.score_axis import score_axis
from deltaproof.report.study import Study

_AXIS = 245.0
"""About how long an axis is, in the units of the drawing."""

_LETTERS = {"Embeddings, PGD": "ε", "Weights, noise": "size s"}


def figure(result: Json, study: Study) -> Figure:
    metric, names = METRICS[result["metric"]], methods(result)
    shown = [group for group in groups(result) if group.has_strength and _points(group, names)]
    panels = tuple(
        Panel(
            heading(group),
            _description(group, result),
            _draw(
                group,
                result,
                study,
                _domain([other for other in shown if _kind(other) == _kind(group)], names, metric.unit),
            ),
        )
        for group in shown
    )
    lines = [
        [group.name, f"{strength:.3g}", name, value(score.mean, metric.unit), score.cell(metric.unit).detail or "–"]
        for group in shown
        for name, strength, score in _points(group, names)
    ]
    return Figure(
        "robustness-curves",
        f"{metric_name(metric)[0].upper()}{metric_name(metric)[1:]} under growing perturbation",
        "Each panel disturbs something else; to the right it grows, at 0 nothing is disturbed. A curve that stays "
        "level is robust; one that falls faster than the reference's, from the same height, is fragile. Compare "
        "slopes, not heights: a method that starts lower is not less robust for that. All panels of texts have one "
        "scale, and so have those of weights. Bars are 95 % intervals. What is called noise may change "
        "what the right answer is. Weight noise asks three questions: on all weights in proportion, on what was "
        "trained in proportion, and of one length for every method.",
        panels,
        grid(
            "Scores by strength",
            ("Perturbation", "Strength", "Method", metric_title(metric), "95 % interval"),
            lines,
            (0, 2),
        ),
        tuple((name, study.style(name)) for name in names),
        columns=3,
    )


def _kind(group: Group) -> str:
    """Panels of one kind share their heights, so that they can be compared."""
    return "texts" if group.category in (KEEPS, NOISE, SEARCHED, HANDED_ON) else group.category


def _domain(alike: Sequence[Group], names: list[str], unit: str) -> tuple[float, float]:
    scores = [_drawn(score, unit) for group in alike for _, _, score in _points(group, names)]
    return padded([end for score in scores for end in score.ends], 0.05)


def _have_room(strengths: Sequence[float]) -> bool:
    """Whether each strength can stand on the axis with its number."""
    top = strengths[-1] or 1.0
    return all(
        (right - left) / top * _AXIS > (text_width(f"{left:.3g}", SMALL) + text_width(f"{right:.3g}", SMALL)) / 2 + 6
        for left, right in pairwise(strengths)
    )


def heading(group: Group) -> str:
    name = group.name[0].upper() + group.name[1:]
    return f"{name} (noise)" if group.category == NOISE else name


def _points(group: Group, names: list[str]) -> list[tuple[str, float, Estimate]]:
    """Method, strength and score, by method and rising strength; clean at 0."""
    found = []
    for name in names:
        at = [(group.strength(entry), number(entry["methods"], name, "perturbed")) for entry in group.sets]
        usable = [(strength, score) for strength, score in at if strength is not None and score is not None]
        clean = next((score for entry in group.sets if (score := number(entry["methods"], name, "clean"))), None)
        if usable and usable[0][0] > 0 and clean is not None:
            usable.insert(0, (0.0, clean))
        found += [(name, strength, score) for strength, score in usable]
    return found


def _drawn(score: Estimate, unit: str) -> Estimate:
    return score.within(0, 1) if unit == "fraction" else score


def _description(group: Group, result: Json) -> str:
    unit, summary = str(result["unit"]), str(group.middle.get("summary") or "")
    parts = []
    for name in methods(result):
        of = [(strength, score) for who, strength, score in _points(group, [name]) if who == name]
        if of:
            told = ", ".join(f"{value(score.mean, unit)} at {strength:.3g}" for strength, score in of)
            parts.append(f"{name}: {told}.")
    return f"{summary} {metric_title(METRICS[result['metric']])} by {_axis_title(group)}. {' '.join(parts)}".strip()


def _axis_title(group: Group) -> str:
    unit = str(group.middle.get("unit") or "")
    return f"{_LETTERS.get(group.category, 'strength')}{', ' if unit else ''}{unit}"


def _draw(group: Group, result: Json, study: Study, domain: tuple[float, float]) -> Drawing:
    metric, names = METRICS[result["metric"]], methods(result)
    points = _points(group, names)
    strengths = sorted({strength for _, strength, _ in points})
    top = strengths[-1] or 1.0
    plot = Plot(
        Axis(
            _axis_title(group),
            -0.03 * top,
            1.05 * top,
            lambda strength: f"{strength:.3g}",
            at=strengths if _have_room(strengths) else (),
        ),
        score_axis(metric, *domain),
    )
    series = []
    for name in names:
        marks = []
        for who, strength, score in points:
            drawn, title = _drawn(score, metric.unit), f"{name} at {strength:.3g}: {score.text(metric.unit)}"
            if who == name:
                marks.append(Mark(strength, drawn.mean, drawn.low, drawn.high, title))
        series.append(Series(name, study.style(name), tuple(marks)))
    draw_series(plot, series, radius=3.6)
    return plot.drawing
