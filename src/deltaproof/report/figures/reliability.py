"""Reliability: of the answers given with a confidence of so much, how many were right?"""

import numpy as np

from deltaproof.experiments.row import Row
from deltaproof.metrics import N_BINS
from deltaproof.report.drawing.plot import Axis, Plot
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import grid
from deltaproof.report.study import Study


def bins(study: Study, row: Row) -> list[tuple[float, float, int]]:
    """Mean confidence, share right and number of answers for each bin that has any, all seeds together.

    The bins are those of the calibration error. Source: Guo et al., 2017, arXiv:1706.04599, sec. 2.
    """
    answers = study.answers(row)
    confidence = np.concatenate([answer.outputs.max(axis=1) for answer in answers])
    right = np.concatenate([answer.outputs.argmax(axis=1) == answer.targets[:, 0] for answer in answers])
    index = np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)
    counts = np.bincount(index, minlength=N_BINS)
    means = np.bincount(index, confidence, N_BINS) / np.maximum(counts, 1)
    shares = np.bincount(index, right, N_BINS) / np.maximum(counts, 1)
    return [(float(means[b]), float(shares[b]), int(counts[b])) for b in range(N_BINS) if counts[b]]


def figure(study: Study) -> Figure:
    rows = study.done if study.kind == "classification" else []
    found = {row.name: bins(study, row) for row in rows}
    low = min([0.5, *(min(mean, share) for entries in found.values() for mean, share, _ in entries)]) - 0.02
    lines = [
        [name, f"{100 * mean:.0f}", f"{100 * share:.0f}", f"{n}"]
        for name, entries in found.items()
        for mean, share, n in entries
    ]
    return Figure(
        "reliability",
        "How far to trust the confidence",
        "A point on the dashed line is right as often as it says. Below it the method is too sure of itself, above it "
        "too modest. Larger "
        "points stand for more answers; all seeds together.",
        tuple(Panel(name, _description(entries), _draw(study, name, entries, low)) for name, entries in found.items()),
        grid("Confidence and truth", ("Method", "Mean confidence, %", "Right, %", "Answers"), lines),
        columns=3,
    )


def _description(entries: list[tuple[float, float, int]]) -> str:
    return "Share of right answers against confidence. " + " ".join(
        f"At {100 * mean:.0f} %: {100 * share:.0f} % of {n} right." for mean, share, n in entries
    )


def _draw(study: Study, name: str, entries: list[tuple[float, float, int]], low: float) -> Drawing:
    plot = Plot(
        Axis("confidence, %", low, 1.02, lambda value: f"{100 * value:.0f}"),
        Axis("right, %", low, 1.02, lambda value: f"{100 * value:.0f}"),
        height=230,
    )
    plot.drawing.line(plot.at(low, low), plot.at(1.02, 1.02), "axis", 1.2, "4 4")
    style = study.styles[name]
    plot.drawing.path([plot.at(mean, share) for mean, share, _ in entries], style.colour, 1.4, opacity=0.6)
    most = max(n for _, _, n in entries)
    for mean, share, n in entries:
        x, y = plot.at(mean, share)
        plot.drawing.add(
            "circle",
            f"{n} answers at {100 * mean:.0f} %: {100 * share:.0f} % right",
            cx=x,
            cy=y,
            r=2.5 + 6 * (n / most) ** 0.5,
            fill=style.colour,
            fill_opacity=0.75,
        )
    return plot.drawing
