"""Loss and score along the change that tuning made, short of the tuned model and beyond it."""

from collections.abc import Sequence
from typing import Any

from deltaproof.metrics import METRICS, Metric
from deltaproof.report.drawing.plot import HALF, SMALL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import grid
from deltaproof.report.numbers import metric_name, metric_title, value
from deltaproof.report.study import Study

Result = dict[str, Any]
_LOG_FROM = 20.0
"""A loss that spans more than this factor is drawn on a logarithmic axis."""
_LOSSES = {"nll": "validation loss, nats", "mse": "validation loss, squared error in standard deviations"}


def figure(study: Study, result: Result) -> Figure:
    metric, methods = METRICS[result["metric"]], result["methods"]
    left_out = "; ".join(f"{label} ({why})" for label, why in result["left_out"].items())
    without = f" Without a line: {left_out}." if left_out else ""
    panels: tuple[Panel, ...] = ()
    if methods:
        panels = (
            Panel(
                "Loss",
                _description(result, "loss", f"{result['loss']}"),
                _draw_loss(study, result),
            ),
            Panel(
                metric_title(metric),
                _description(result, "score", metric_name(metric)),
                _draw_score(study, result, metric),
            ),
        )
    return Figure(
        "along-the-change",
        "Along the change",
        "Loss and score on validation at W0 + t (W1 − W0): t = 0 is the base, t = 1 the tuned model, both with the "
        "trained head; bars are 95 % intervals over seeds and examples. A lowest loss at t = 1 is a minimum that "
        "training found, one before it says that training overshot, one beyond it that it stopped short; a score "
        "that holds at half the change means that "
        "much of it could be scaled away, as is done to forget less." + without,
        panels,
        grid(
            "Along the change",
            ("Method", "t", "Loss", "95 % interval", metric_title(metric)),
            [
                [
                    method["label"],
                    _number(step),
                    _number(method["loss"][at]),
                    f"{_number(method['loss_low'][at])} to {_number(method['loss_high'][at])}",
                    value(method["score"][at], metric.unit),
                ]
                for method in methods
                for at, step in enumerate(result["steps"])
            ],
        ),
        tuple((method["label"], study.style(method["label"])) for method in methods),
        columns=2,
    )


def _number(number: float | None) -> str:
    return "–" if number is None else f"{number:.3g}".replace("-", "−")


def _draw_loss(study: Study, result: Result) -> Drawing:
    found = [loss for method in result["methods"] for loss in method["loss"] if loss is not None]
    log = bool(found) and min(found) > 0 and max(found) / min(found) > _LOG_FROM
    low, high = padded(found or [0.0, 1.0], 0.1, log)
    plot = _plot(result, Axis(_LOSSES.get(result["loss"], "validation loss"), low, high, lambda loss: f"{loss:g}", log))
    for method in result["methods"]:
        bars = zip(result["steps"], method["loss_low"], method["loss_high"], strict=True)
        for step, start, end in bars:
            if start is not None and end is not None and end >= low and start <= high:
                x = plot.x(step)
                ends = plot.y(max(start, low)), plot.y(min(end, high))
                plot.drawing.add(
                    "line", x1=x, y1=ends[0], x2=x, y2=ends[1], stroke=study.style(method["label"]).colour,
                    stroke_opacity=0.45,
                )  # fmt: skip
        _line(study, plot, method["label"], result["steps"], method["loss"], _number)
    return plot.drawing


def _draw_score(study: Study, result: Result, metric: Metric) -> Drawing:
    found = [score for method in result["methods"] for score in method["score"] if score is not None]
    low, high = padded(found or [0.0, 1.0], 0.1)
    axis = Axis(
        metric_title(metric, "validation "),
        low,
        high,
        lambda score: value(score, metric.unit),
        falling=not metric.higher_is_better,
    )
    plot = _plot(result, axis)
    for method in result["methods"]:
        _line(study, plot, method["label"], result["steps"], method["score"], lambda s: value(s, metric.unit))
    return plot.drawing


def _plot(result: Result, y: Axis) -> Plot:
    steps = result["steps"]
    room = 0.05 * (max(steps) - min(steps))
    x = Axis("t, share of the change", min(steps) - room, max(steps) + room, _number)
    plot = Plot(x, y, HALF, 270)
    for step, name in ((0.0, "base"), (1.0, "tuned")):
        plot.drawing.line((plot.x(step), plot.top), (plot.x(step), plot.bottom), "axis", 1, "3 3")
        plot.drawing.text((plot.x(step) + 4, plot.top + 9), name, colour="muted", size=SMALL)
    return plot


def _line(
    study: Study, plot: Plot, label: str, steps: Sequence[float], heights: Sequence[float | None], write: Any
) -> None:
    style = study.style(label)
    points = [(step, height) for step, height in zip(steps, heights, strict=True) if height is not None]
    plot.drawing.path([plot.at(*point) for point in points], style.colour, 1.8, style.dash)
    for step, height in points:
        plot.drawing.marker(plot.at(step, height), style, 4, f"{label} at t = {_number(step)}: {write(height)}")


def _description(result: Result, name: str, what: str) -> str:
    metric = METRICS[result["metric"]]
    parts = []
    for method in result["methods"]:
        at = dict(zip(result["steps"], method[name], strict=True))
        said = [
            f"{value(at[t], metric.unit) if name == 'score' else _number(at[t])} at t = {_number(t)}"
            for t in (0.0, 0.5, 1.0, 1.5)
            if t in at
        ]
        parts.append(f"{method['label']}: {', '.join(said)}.")
    return f"{what[:1].upper() + what[1:]} along the change. " + " ".join(parts)
