"""Singular values of the methods' updates, on logarithmic axes, against those of noise of the same size."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from deltaproof.report.drawing.plot import SMALL, Axis, Plot
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.figures.weights import in_layers, role_name, roles_of, with_matrices
from deltaproof.report.grid import grid
from deltaproof.report.study import Study
from deltaproof.theory.marchenko_pastur import noise_profile

Result = dict[str, Any]
Curve = list[tuple[float, float]]
NOISE = Style("axis", "", hollow=True)
_LOWEST = 1e-3
"""Below this share of noise's edge nothing is drawn: four decades hold what can be read."""


def figure(study: Study, result: Result) -> Figure:
    methods = with_matrices(result)
    everything = [row for method in methods for row in in_layers(method)]
    curves = {
        role: {method["label"]: curve for method in methods if (curve := median_curve(method, role))}
        for role in roles_of(everything)
    }
    curves = {role: found for role, found in curves.items() if found}
    shapes = {role: _shape(everything, role) for role in curves}
    low, high = _domain(curves)
    return Figure(
        "singular-values",
        "Singular values of the updates",
        "Each line is the median over the layers, each matrix divided by the edge of Gaussian noise of its own norm "
        "and shape. Above the line at 1 a direction stands out of noise; the dashed curve is noise itself. A curve "
        "that falls steeply is an update of few directions, which a low rank can hold; one that follows the dashed "
        "curve has no low-rank form, or is mostly noise. A line ends where its rank does.",
        tuple(
            Panel(
                f"{role_name(role)}, {shapes[role][0]} × {shapes[role][1]}",
                _description(role, found),
                _draw(study, found, shapes[role], low, high),
            )
            for role, found in curves.items()
        ),
        grid(
            "Singular values over the edge of noise, median over the layers",
            ("Method", "Role", "Position", "Singular value / edge"),
            [
                [label, role_name(role), f"{position:.0f}", f"{height:.3g}"]
                for role, found in curves.items()
                for label, curve in found.items()
                for position, height in curve
            ],
            (0, 1),
        ),
        (*((method["label"], study.style(method["label"])) for method in methods), ("noise", NOISE)),
        columns=3,
    )


def median_curve(method: Result, role: str) -> Curve:
    """(position, singular value over the matrix's noise edge), median over the layers; zeros have no place on it."""
    heights: dict[float, list[float]] = {}
    for row in in_layers(method):
        if row["role"] == role and row["noise_edge"]:
            for position, singular in zip(row["positions"], row["singular_values"], strict=True):
                heights.setdefault(float(position), []).append((singular or 0.0) / row["noise_edge"])
    found = [(position, median(values)) for position, values in sorted(heights.items())]
    return [(position, height) for position, height in found if height > _LOWEST]


def _shape(rows: Sequence[Result], role: str) -> tuple[int, int]:
    shapes = [tuple(round(side) for side in row["shape"]) for row in rows if row["role"] == role]
    m, n = max(set(shapes), key=shapes.count)
    return m, n


def _domain(curves: dict[str, dict[str, Curve]]) -> tuple[float, float]:
    heights = [height for found in curves.values() for curve in found.values() for _, height in curve]
    return (min([*heights, 0.1]) / 1.3, max([*heights, 1.0]) * 1.5) if heights else (0.1, 1.0)


def _draw(study: Study, curves: dict[str, Curve], shape: tuple[int, int], low: float, high: float) -> Drawing:
    last = min(shape)
    plot = Plot(
        Axis("position, largest first", 0.9, max(last, 2) * 1.1, lambda value: f"{value:.0f}", log=True),
        Axis("singular value ÷ noise's edge", low, high, lambda value: f"{value:g}", log=True, ticks={"n": 5}),
        height=240,
    )
    plot.drawing.line((plot.left, plot.y(1)), (plot.right, plot.y(1)), "ink", 1.1)
    plot.drawing.text((plot.right, plot.y(1) - 4), "edge of noise", "end", "muted", SMALL)
    positions = np.unique(np.geomspace(1, last, 40).round())
    noise = zip(positions.tolist(), noise_profile(*shape, positions).tolist(), strict=True)
    within = [plot.at(position, height) for position, height in noise if low <= height <= high]
    plot.drawing.path(within, NOISE.colour, 1.6, NOISE.dash)
    for label, curve in curves.items():
        style = study.style(label)
        points = [plot.at(position, height) for position, height in curve]
        plot.drawing.path(points, style.colour, 1.6, style.dash)
        plot.drawing.marker(points[0], style, 4, f"{label}: largest at {curve[0][1]:.3g} times the edge")
        if len(points) > 1:
            plot.drawing.marker(points[-1], style, 4, f"{label}: position {curve[-1][0]:.0f}, {curve[-1][1]:.2g}")
    return plot.drawing


def _description(role: str, curves: dict[str, Curve]) -> str:
    return f"Singular values of the {role_name(role)} updates over the edge of noise. " + " ".join(
        f"{label}: largest {curve[0][1]:.3g}, at position {curve[-1][0]:.0f} {curve[-1][1]:.2g}."
        for label, curve in curves.items()
    )
