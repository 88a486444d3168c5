"""How the entries of each change are spread: the figure of the paper, made of the last layer's queries."""

import math
from typing import Any

from deltaproof.report.drawing.plot import Axis, Plot
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.figures.weights import percent, role_name
from deltaproof.report.grid import grid
from deltaproof.report.study import Study

Result = dict[str, Any]
_FLOOR = 0.5
"""Bins of one entry stand above the axis."""
_N_POINTS = 60


def figure(study: Study, result: Result) -> Figure:
    methods = [method for method in result["methods"] if sum(method["increments"]["histogram"]["counts"]) > 0]
    return Figure(
        "increments",
        "How the entries of a change are spread",
        "Counts of entries by size, on a logarithmic scale: the change of the last layer's queries, or what the "
        "heading names where those did not change; all seeds together. The dashed curve is a Gaussian of the same "
        "width. Tails above it, a positive kurtosis, mean that few entries carry the change. Each panel has its own "
        "scale: compare shapes here and widths in the table. The paper (arXiv 2505.22355) takes a steep "
        "distribution for a sign of fragility; the robustness suite measures that.",
        tuple(
            Panel(f"{method['label']}: {what(method)}", _description(method), _draw(study, method))
            for method in methods
        ),
        grid(
            "Entries of the change",
            ("Method", "Of", "Entries", "Standard deviation", "Excess kurtosis", "Largest", "Below 1e-6"),
            [
                [
                    method["label"],
                    what(method),
                    _thousands(method["increments"]["n"]),
                    *(_number(method["increments"][name]) for name in ("std", "excess_kurtosis", "largest")),
                    percent(method["increments"]["negligible_fraction"]),
                ]
                for method in methods
            ],
            (0, 1),
        ),
        columns=3,
    )


def what(method: Result) -> str:
    """Which numbers a histogram is of."""
    found = method["increments"]
    layer = "all layers" if found["layer"] is None else f"layer {found['layer'] + 1}"
    if found["part"] == "parameters":
        return f"its own parameters, {layer}"
    plural = {"weight": "weights", "bias": "biases"}[found["part"]]
    return f"{role_name(found['role'])} {plural}, {layer}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}".replace("-", "−")


def _description(method: Result) -> str:
    found = method["increments"]
    return (
        f"Histogram of {found['n']} entries: standard deviation {_number(found['std'])}, largest "
        f"{_number(found['largest'])}, excess kurtosis {_number(found['excess_kurtosis'])}; "
        f"{percent(found['negligible_fraction'])} lie below 1e-6."
    )


def _draw(study: Study, method: Result) -> Drawing:
    found = method["increments"]
    edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
    reach = max(abs(edges[0]), abs(edges[-1]))
    plot = Plot(
        Axis(f"size; std {_number(found['std'])}, kurtosis {_number(found['excess_kurtosis'])}", -reach, reach, _tick,
             ticks={"n": 4}),
        Axis("entries", _FLOOR, max(2.0, max(counts) * 2), _thousands, log=True, ticks={"n": 4}),
        height=220,
    )  # fmt: skip
    style = study.style(method["label"])
    outline = [(plot.x(edges[0]), plot.bottom)]
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        top = plot.y(count) if count > 0 else plot.bottom
        outline += [(plot.x(start), top), (plot.x(end), top)]
    outline.append((plot.x(edges[-1]), plot.bottom))
    plot.drawing.polygon(outline, style.colour, 0.25)
    plot.drawing.path(outline, style.colour, 1.4)
    plot.drawing.path(_gaussian(plot, found, reach), "ink", 1.2, "4 3")
    return plot.drawing


def _thousands(count: float) -> str:
    return f"{count:,.0f}".replace(",", "\u202f")


def _tick(value: float) -> str:
    return f"{value:.2g}".replace("-", "−") if value else "0"


def _gaussian(plot: Plot, found: Result, reach: float) -> list[tuple[float, float]]:
    """Counts that entries from a Gaussian of the same standard deviation would give, where there are any."""
    edges, std = found["histogram"]["edges"], found["std"]
    if not std or len(edges) < 2:
        return []
    peak = sum(found["histogram"]["counts"]) * (edges[1] - edges[0]) / (std * math.sqrt(2 * math.pi))
    top = plot.y.high
    sizes = [reach * (2 * at / _N_POINTS - 1) for at in range(_N_POINTS + 1)]
    heights = [(size, peak * math.exp(-((size / std) ** 2) / 2)) for size in sizes]
    return [plot.at(size, min(height, top)) for size, height in heights if height >= _FLOOR]
