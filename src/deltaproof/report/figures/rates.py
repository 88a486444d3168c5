"""Learning-rate curves: what tuning tried, what it chose, and whether the best may lie beyond."""

import math
from dataclasses import dataclass

from deltaproof.report.drawing.plot import PAGE, PANEL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Cell, grid
from deltaproof.report.numbers import ENDINGS, learning_rate, metric_name, metric_title, value
from deltaproof.report.study import Study

_MOST_TICKS = 8
"""Up to so many rates stand on the axis themselves."""


@dataclass(frozen=True)
class Trial:
    """One learning rate of one contestant and how it did on validation."""

    rate: float
    score: float | None
    status: str


def trials_of(study: Study, name: str) -> list[Trial]:
    """A contestant's tuning trials, by learning rate."""
    found = []
    for entry in study.contestants.get(name, {}).get("trials") or []:
        record = study.record(entry["key"]) if entry.get("key") else None
        score = record.validation.get(study.table.metric.name) if record else entry.get("score")
        status = entry.get("status") or (record.status if record else "missing")
        usable = status == "done" and score is not None and math.isfinite(score)
        found.append(Trial(float(entry["learning_rate"]), score if usable else None, status))
    return sorted(found, key=lambda trial: trial.rate)


def figure(study: Study) -> Figure:
    metric = study.table.metric
    trials = {row.name: found for row in study.table.rows if (found := trials_of(study, row.name))}
    scored = [trial for found in trials.values() for trial in found if trial.score is not None]
    lines: list[list[str | Cell]] = []
    for name, found in trials.items():
        row = study.table.row(name)
        for trial in found:
            chosen = row.learning_rate is not None and math.isclose(trial.rate, row.learning_rate, rel_tol=1e-6)
            mark = ("chosen, at the edge" if row.at_edge else "chosen") if chosen else ""
            lines.append(
                [
                    name,
                    learning_rate(trial.rate),
                    value(trial.score, metric.unit),
                    ENDINGS.get(trial.status, trial.status),
                    mark,
                ]
            )
    return Figure(
        "learning-rates",
        "What learning rates did",
        "Scores of the tuning runs on validation. A ring marks the rate that was chosen, a ring with an arrow one at "
        "the edge of those "
        "tried: a better one may lie beyond. A cross at the bottom is a run that did not come through.",
        (_panel(trials, study),) if scored else (),
        grid(
            "Tuning trials",
            ("Method", "Learning rate", f"Validation {metric_name(metric)}", "Ended", "Choice"),
            lines,
            (0, 3, 4),
        ),
        tuple((name, study.styles[name]) for name in trials),
    )


def _panel(trials: dict[str, list[Trial]], study: Study) -> Panel:
    return Panel("", _description(trials, study), *(_draw(trials, study, width) for width in (PAGE, PANEL)))


def _draw(trials: dict[str, list[Trial]], study: Study, width: float) -> Drawing:
    metric = study.table.metric
    tried = sorted({trial.rate for found in trials.values() for trial in found})
    low, high = padded([trial.score for found in trials.values() for trial in found if trial.score is not None], 0.1)
    plot = Plot(
        Axis(
            "learning rate",
            *padded([trial.rate for found in trials.values() for trial in found], log=True),
            learning_rate,
            log=True,
            at=tried if len(tried) <= _MOST_TICKS else (),
            ticks={"n": 8 if width > PANEL else 4},
        ),
        Axis(
            metric_title(metric, "validation "),
            low,
            high,
            lambda score: value(score, metric.unit),
            falling=not metric.higher_is_better,
        ),
        width,
        320 if width > PANEL else 260,
    )
    for name, found in trials.items():
        style, row = study.styles[name], study.table.row(name)
        plot.drawing.path(
            [plot.at(trial.rate, trial.score) for trial in found if trial.score is not None],
            style.colour,
            1.8,
            style.dash,
        )
        for trial in found:
            if trial.score is None:
                plot.drawing.cross(
                    (plot.x(trial.rate), plot.bottom - 6),
                    style.colour,
                    3.5,
                    f"{name} at {learning_rate(trial.rate)}: {ENDINGS.get(trial.status, trial.status)}",
                )
                continue
            at = plot.at(trial.rate, trial.score)
            if row.learning_rate is not None and math.isclose(trial.rate, row.learning_rate, rel_tol=1e-6):
                plot.drawing.add("circle", cx=at[0], cy=at[1], r=9, fill="none", stroke=style.colour, stroke_width=1.6)
                if row.at_edge and len(found) > 1:
                    direction = -1 if trial.rate == found[0].rate else 1
                    tip = at[0] + direction * 17
                    plot.drawing.polygon(
                        [(tip, at[1]), (tip - direction * 6, at[1] - 4), (tip - direction * 6, at[1] + 4)], style.colour
                    )
            plot.drawing.marker(
                at, style, 4.5, f"{name} at {learning_rate(trial.rate)}: {value(trial.score, metric.unit)}"
            )
    return plot.drawing


def _description(trials: dict[str, list[Trial]], study: Study) -> str:
    parts = []
    for name, found in trials.items():
        row = study.table.row(name)
        parts.append(
            f"{name}: {len(found)} rates from {learning_rate(found[0].rate)} to {learning_rate(found[-1].rate)}, "
            "chosen "
            f"{learning_rate(row.learning_rate)}{', at the edge' if row.at_edge else ''}."
        )
    return f"Validation {metric_name(study.table.metric)} against learning rate. " + " ".join(parts)
