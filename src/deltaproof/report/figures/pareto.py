"""Pareto plots: quality against what it costs. On the front nothing is both better and cheaper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from deltaproof.experiments import wording
from deltaproof.experiments.row import Row
from deltaproof.report.drawing.labels import name_points
from deltaproof.report.drawing.plot import Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import grid
from deltaproof.report.numbers import interval, metric_name, metric_title, value
from deltaproof.report.score_axis import score_axis
from deltaproof.report.study import Study

_LOG_FROM = 8.0
"""A cost that spans more than this factor is drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Expense:
    """One thing that a method costs."""

    heading: str
    title: str
    of: Callable[[Row], float | None]
    text: Callable[[float | None], str]
    is_time: bool = False


def memory_of(row: Row) -> float | None:
    """Peak memory of training: of the accelerator where there is one, else of the host."""
    return row.cost.get("peak_device_memory_bytes") or row.cost.get("peak_memory_bytes")


EXPENSES = (
    Expense("Memory", "peak memory in training", memory_of, wording.size),
    Expense(
        "Time", "training time of one run", lambda row: row.cost.get("train_seconds"), wording.duration, is_time=True
    ),
    Expense("Storage", "bytes that one more task adds", lambda row: row.cost.get("stored_bytes"), wording.size),
)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats: (cost, quality), less cost and more quality being better.

    A point is beaten by one that is at least as good in both and better in one.

    >>> front([(1, 0.8), (2, 0.9), (3, 0.85), (2, 0.9)])
    [0, 1, 3]
    """

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one[0] <= other[0] and one[1] >= other[1] and one != other

    return [index for index, point in enumerate(points) if not any(beats(other, point) for other in points)]


def figure(study: Study) -> Figure:
    panels, lines = [], []
    for expense in EXPENSES:
        rows = [row for row in study.done if (expense.of(row) or 0) > 0]
        if len(rows) < 2:
            continue
        on_front = {rows[index].name for index in front([_point(row, expense, study) for row in rows])}
        panels.append(_panel(rows, expense, on_front, study))
        for row in rows:
            lines.append(_line(row, expense, row.name in on_front, study))
    name = metric_name(study.table.metric)
    return Figure(
        "costs-and-quality",
        f"What {name} costs",
        "Up is better, left is cheaper. The dotted line is the Pareto front: no contestant on it is beaten in both. "
        "It is drawn through "
        "means; where the bars (95 % intervals) overlap, so may the places on it.",
        tuple(panels),
        grid(
            "Quality and cost",
            ("Method", "Cost", "Amount", metric_title(study.table.metric), "95 % interval", "On the front"),
            lines,
            (0, 1, 5),
        ),
        tuple((row.name, study.styles[row.name]) for row in study.done),
        columns=3,
    )


def _point(row: Row, expense: Expense, study: Study) -> tuple[float, float]:
    sign = 1 if study.table.metric.higher_is_better else -1
    return expense.of(row) or 0.0, sign * row.scores[study.table.metric.name].mean


def _line(row: Row, expense: Expense, is_on_front: bool, study: Study) -> list[str]:
    score, unit = row.scores[study.table.metric.name], study.table.metric.unit
    return [
        row.name,
        expense.title,
        expense.text(expense.of(row)),
        value(score.mean, unit),
        interval(score.low, score.high, unit),
        "yes" if is_on_front else "no",
    ]


def _panel(rows: list[Row], expense: Expense, on_front: set[str], study: Study) -> Panel:
    metric = study.table.metric
    costs = {row.name: expense.of(row) or 0.0 for row in rows}
    scores = {row.name: row.scores[metric.name] for row in rows}
    log = max(costs.values()) / min(costs.values()) > _LOG_FROM
    low, high = padded([end for score in scores.values() for end in (score.low, score.high)])
    x_low, x_high = padded(list(costs.values()), 0.12, log)
    plot = Plot(
        Axis(
            expense.title,
            x_low if log else max(0.0, x_low),
            x_high,
            expense.text,
            log,
            ticks={"n": 4, "seconds": expense.is_time},
        ),
        score_axis(metric, low, high),
        height=260,
    )
    best_first = sorted((row for row in rows if row.name in on_front), key=lambda row: costs[row.name])
    steps = [(plot.x(costs[row.name]), plot.y(scores[row.name].mean)) for row in best_first]
    corners = [corner for before, after in pairwise(steps) for corner in (before, (after[0], before[1]))]
    plot.drawing.path([*corners, *steps[-1:]], "axis", 1.4, "2 3")
    for row in rows:
        x, score = plot.x(costs[row.name]), scores[row.name]
        plot.drawing.line((x, plot.y(score.low)), (x, plot.y(score.high)), study.styles[row.name].colour, 1.2)
    for row in rows:
        title = f"{row.name}: {value(scores[row.name].mean, metric.unit)} for {expense.text(costs[row.name])}"
        plot.drawing.marker(plot.at(costs[row.name], scores[row.name].mean), study.styles[row.name], 5.5, title)
    name_points(plot, {row.name: plot.at(costs[row.name], scores[row.name].mean) for row in rows}, on_front)
    description = f"{metric_title(metric)} against {expense.title}. " + " ".join(
        f"{row.name}: {value(scores[row.name].mean, metric.unit)} for {expense.text(costs[row.name])}"
        f"{', on the front' if row.name in on_front else ''}."
        for row in rows
    )
    return Panel(expense.heading, description, plot.drawing)
