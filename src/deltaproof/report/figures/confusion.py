"""Confusion matrices: what was taken for what, summed over the seeds."""

import numpy as np

from deltaproof.experiments.row import Row
from deltaproof.report.drawing.plot import PANEL
from deltaproof.report.drawing.svg import Drawing, fitted, text_width
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Grid, grid
from deltaproof.report.study import Study

MOST_CLASSES = 20
"""Up to so many classes a matrix can be read; of more, the most confused pairs are listed."""
_MOST_PAIRS = 20
_WORTH_TELLING = 0.03
"""Cells too small for their count show it on pointing, from this share of their row on; the table has all."""
_DEEPEST = 0.5
"""Opacity of a cell that holds its whole row: dark text stays readable on it."""


def matrix(study: Study, row: Row) -> np.ndarray:
    """(classes, classes) counts summed over seeds: true class by answered class."""
    n = len(study.labels)
    counts = np.zeros((n, n), dtype=int)
    for answer in study.answers(row):
        np.add.at(counts, (answer.targets[:, 0].astype(int), answer.outputs.argmax(axis=1)), 1)
    return counts


def figure(study: Study) -> Figure:
    panels: tuple[Panel, ...] = ()
    rows = study.done if study.kind == "classification" and len(study.labels) <= MOST_CLASSES else []
    counts = {row.name: matrix(study, row) for row in rows}
    if counts:
        panels = tuple(Panel(name, _description(found, study), _draw(found, study)) for name, found in counts.items())
    lines = [
        [name, study.label(index), *(f"{n}" for n in found[index])]
        for name, found in counts.items()
        for index in range(len(study.labels))
    ]
    return Figure(
        "confusion",
        "What was taken for what",
        "Rows are the true classes, columns the answers; counts on the test split, summed over the seeds. The deeper "
        "the tint, the larger "
        "the share of its row: right answers on the diagonal, wrong ones beside it.",
        panels,
        grid(
            "Answers by true class",
            ("Method", "True class", *(f"answered {label}" for label in study.labels)),
            lines,
            (0, 1),
        ),
        columns=3,
    )


def confused_pairs(study: Study) -> Grid | None:
    """The most frequent mistakes, where there are too many classes for matrices."""
    if study.kind != "classification" or len(study.labels) <= MOST_CLASSES or not study.done:
        return None
    counts = {row.name: matrix(study, row) for row in study.done}
    total = sum(counts.values())
    np.fill_diagonal(total, 0)  # type: ignore[arg-type]
    order = np.argsort(-np.asarray(total).ravel(), kind="stable")[:_MOST_PAIRS]
    pairs = [divmod(int(index), len(study.labels)) for index in order if np.asarray(total).ravel()[index] > 0]
    lines = [
        [study.label(true), study.label(answer), *(f"{found[true, answer]}" for found in counts.values())]
        for true, answer in pairs
    ]
    note = (
        f"Counts on the test split, summed over the seeds; the {len(pairs)} most frequent mistakes of all contestants."
    )
    return grid("Most confused pairs", ("True class", "Answered", *counts), lines, (0, 1), note)


def _description(counts: np.ndarray, study: Study) -> str:
    totals = counts.sum(axis=1)
    found = [
        f"{study.label(index)}: {counts[index, index]} of {totals[index]} right."
        for index in range(len(totals))
        if totals[index]
    ]
    return "Confusion matrix. " + " ".join(found)


def _draw(counts: np.ndarray, study: Study) -> Drawing:
    n, width = len(counts), PANEL
    names = [study.label(index) for index in range(n)]
    size = 11 if n <= 12 else 9
    left = min(92.0, max(text_width(name, size) for name in names)) + 22
    cell = (width - left - 4) / n
    height = min(cell, 46.0)
    turned = any(text_width(name, size) > cell - 4 for name in names)
    head = (min(70.0, max(text_width(name, size) for name in names)) + 6 if turned else 16) + 16
    drawing = Drawing(width, head + n * height + 6)
    drawing.text((left + n * cell / 2, 10), "answered", "middle", "muted", 11)
    drawing.text((10, head + n * height / 2), "true", "middle", "muted", 11, turned=True)
    for index, name in enumerate(names):
        x, y = left + (index + 0.5) * cell, head + (index + 0.5) * height
        if turned:
            drawing.text((x + 4, head - 5), name, colour="ink", size=size, fit=68, turned=True)
        else:
            drawing.text((x, head - 6), name, "middle", "ink", size)
        drawing.text((left - 6, y + 4), fitted(name, 92, size), "end", "ink", size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with_counts = cell >= text_width(str(counts.max()), 11) + 2 and n <= 12
    for true in range(n):
        for answer in range(n):
            corner = (left + answer * cell, head + true * height)
            is_told = not with_counts and shares[true, answer] >= _WORTH_TELLING
            title = f"{names[true]} answered {names[answer]}: {counts[true, answer]}" if is_told else ""
            tone = "accent" if true == answer else "bad"
            if counts[true, answer]:
                drawing.rect(corner, cell, height, tone, _DEEPEST * float(shares[true, answer]) ** 0.5, title=title)
            if with_counts:
                drawing.text(
                    (corner[0] + cell / 2, corner[1] + height / 2 + 4),
                    str(counts[true, answer]),
                    "middle",
                    "ink",
                    11,
                    600 if true == answer else 400,
                )
    for index in range(n + 1):
        drawing.line((left + index * cell, head), (left + index * cell, head + n * height), "line")
        drawing.line((left, head + index * height), (left + n * cell, head + index * height), "line")
    return drawing
