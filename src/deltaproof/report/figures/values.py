"""Regression: what was predicted against what is true."""

import numpy as np

from deltaproof.report.drawing.plot import Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import grid
from deltaproof.report.study import Study

_MOST_POINTS = 300
"""Of more test examples, so many evenly spread ones are drawn."""


def figure(study: Study) -> Figure:
    rows = study.done if study.kind == "regression" else []
    panels, columns, note = [], [], ""
    if rows:
        true = study.answers(rows[0])[0].targets[:, 0]
        kept = np.unique(np.linspace(0, len(true) - 1, min(len(true), _MOST_POINTS)).astype(int))
        predicted = {row.name: study.mean_outputs(row)[kept, 0] for row in rows}
        everything = [float(value) for values in (true[kept], *predicted.values()) for value in values]
        low, high = padded(everything, 0.04)
        for name, values in predicted.items():
            panels.append(
                Panel(name, _description(true[kept], values), _draw(study, name, true[kept], values, low, high))
            )
        columns = [true[kept], *predicted.values()]
        note = f" {len(kept)} of {len(true)} examples are drawn." if len(kept) < len(true) else ""
    lines = [
        [f"{index + 1}", *(f"{column[index]:.4g}" for column in columns)]
        for index in range(len(columns[0]) if columns else 0)
    ]
    return Figure(
        "values",
        "Predicted and true values",
        f"Each dot is a test example, the mean over the seeds; on the dashed line the prediction is right.{note}",
        tuple(panels),
        grid("Predicted and true values", ("Example", "True", *(row.name for row in rows)), lines),
        columns=3,
    )


def _description(true: np.ndarray, predicted: np.ndarray) -> str:
    return (
        f"True values from {true.min():.3g} to {true.max():.3g}, predicted ones from {predicted.min():.3g} to "
        f"{predicted.max():.3g}; "
        f"mean absolute error {np.abs(true - predicted).mean():.3g}."
    )


def _draw(study: Study, name: str, true: np.ndarray, predicted: np.ndarray, low: float, high: float) -> Drawing:
    plot = Plot(
        Axis("true", low, high, lambda value: f"{value:.3g}"),
        Axis("predicted", low, high, lambda value: f"{value:.3g}"),
        height=300,
    )
    plot.drawing.line(plot.at(low, low), plot.at(high, high), "axis", 1.2, "4 4")
    points = [plot.at(float(x), float(y)) for x, y in zip(true, predicted, strict=True)]
    plot.drawing.dots(points, study.styles[name].colour)
    return plot.drawing
