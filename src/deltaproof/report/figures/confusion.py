"""Confusion matrices: what was taken for what, summed over the seeds."""

import numpy as np

from deltaproof.experiments.row import Row
from deltaproof.report.drawing.heatmap import HeatCell, heat_map
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Grid, grid
from deltaproof.report.study import Study

MOST_CLASSES = 20
"""Up to so many classes a matrix can be read; of more, the most confused pairs are listed."""
_MOST_PAIRS = 20
_WORTH_TELLING = 0.03
"""Cells too small for their count show it on pointing, from this share of their row on; the table has all."""


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
    names = [study.label(index) for index in range(len(counts))]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = {
        (true, answer): HeatCell(
            str(counts[true, answer]),
            float(shares[true, answer]) ** 0.5,
            f"{names[true]} answered {names[answer]}: {counts[true, answer]}"
            if shares[true, answer] >= _WORTH_TELLING
            else "",
            "accent" if true == answer else "bad",
            true == answer,
        )
        for true in range(len(counts))
        for answer in range(len(counts))
    }
    return heat_map(names, names, cells, "true", "answered")
