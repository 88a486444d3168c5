"""How far the answers moved, how far the capacity theorem says that they may have, and how steep the models are."""

from collections.abc import Sequence
from typing import Any

from deltaproof.report.drawing.plot import PAGE, PANEL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.strips import Spread, Strip, strips
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import grid
from deltaproof.report.numbers import power_of_ten
from deltaproof.report.study import Study
from deltaproof.studies.quantiles import median_of

Result = dict[str, Any]
BASE = Style("axis", "circle", hollow=True)


def figure(study: Study, result: Result) -> Figure:
    methods = result["methods"]
    panels = [_moved(study, methods), _tightness(study, methods), _slopes(study, methods)]
    return Figure(
        "displacement",
        "How far the answers moved, and how far they may have",
        "Measured: distance of the tuned model's logits from those of the base under the same head, over validation "
        "examples and seeds: the line holds 90 % of them, the bar the middle half. Of what the bound allows: that "
        "distance as a share of the capacity theorem's bound, its median and its largest; the line at 1 would be "
        "the bound reached. The bound speaks of full fine-tuning as of any other change of weights: where all marks "
        "lie far left, it limits none of them and does not set them apart. Local slopes: how much the logits change "
        "per unit of change in the input's vectors, at the same examples for base (hollow) and tuned model; further "
        "right is more easily disturbed.",
        tuple(panel for panel in panels if panel is not None),
        grid(
            "Displacement, bound and slopes",
            (
                "Method",
                "Mean displacement",
                "95 % interval",
                "Median, of the base's length",
                "Bound",
                "Of the bound, median",
                "Of the bound, at most",
                "Slope of the base",
                "Slope of the tuned",
                "Radius, % of the input",
            ),
            [_line(method) for method in methods],
            (0, 4),
        ),
        columns=3,
    )


def _line(method: Result) -> list[str]:
    moved, bound, slopes = method["displacement"], method["bound"], method["slopes"]
    radius = slopes and slopes["tuned"]["relative_radius"]
    return [
        method["label"],
        _number(moved["mean"]),
        f"{_number(moved['low'])} to {_number(moved['high'])}",
        _number(method["relative_displacement"]),
        power_of_ten(bound["log10"]) if bound else (method["why_no_bound"] or "nothing moved"),
        power_of_ten(bound["log10_tightness"]) if bound else "–",
        power_of_ten(bound["log10_tightness_high"]) if bound else "–",
        *(_number(median_of(slopes[name]["lipschitz"])) if slopes else "–" for name in ("base", "tuned")),
        _number(100 * median_of(radius)) if radius else "–",
    ]


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3g}".replace("-", "−")


def _moved(study: Study, methods: Sequence[Result]) -> Panel | None:
    rows, values = [], []
    for method in methods:
        quantiles = method["displacement"]["quantiles"]
        style, label = study.style(method["label"]), method["label"]
        if all(value is not None and value > 0 for value in quantiles):
            text = f"median {_number(median_of(quantiles))}, {_number(method['relative_displacement'])} × base"
            rows.append(Strip(label, text, (Spread(style, quantiles, f"{label}: {text}"),)))
            values += quantiles
        else:
            rows.append(Strip(label, "logits as those of the base" if not any(quantiles) else "some did not move"))
    if not values:
        return None
    axis = Axis("distance of the logits", *padded(values, 0.08, log=True), lambda value: f"{value:g}", log=True)
    description = "Displacement of the logits. " + " ".join(f"{row.name}: {row.text}." for row in rows)
    return Panel("Measured", description, strips(rows, axis))


def _tightness(study: Study, methods: Sequence[Result]) -> Panel | None:
    """On an axis of exponents, since no float holds the numbers themselves."""
    rows, lowest = [], 0.0
    for method in methods:
        bound, label = method["bound"], method["label"]
        if bound is None:
            still = not any(method["displacement"]["quantiles"])
            rows.append(
                Strip(label, "nothing moved" if still else "no change of weights" if _why(method) else "no bound")
            )
            continue
        median, most = bound["log10_tightness"], bound["log10_tightness_high"]
        text = f"median {power_of_ten(median)}, at most {power_of_ten(most)}"
        rows.append(Strip(label, text, (Spread(study.style(label), (median, median, most), f"{label}: {text}"),)))
        lowest = min(lowest, median)
    if not lowest:
        return None
    axis = Axis("measured ÷ bound", 1.08 * lowest, -0.08 * lowest, power_of_ten)
    description = "Measured displacement as a share of the bound. " + " ".join(
        f"{row.name}: {row.text}." for row in rows
    )
    return Panel("Of what the bound allows", description, strips(rows, axis, line_at=0.0))


def _why(method: Result) -> bool:
    return bool(method["why_no_bound"])


def _slopes(study: Study, methods: Sequence[Result]) -> Panel | None:
    rows, values = [], []
    for method in methods:
        slopes, label = method["slopes"], method["label"]
        pairs = (
            [(BASE, slopes["base"]["lipschitz"]), (study.style(label), slopes["tuned"]["lipschitz"])] if slopes else []
        )
        pairs = [(style, found) for style, found in pairs if found and all(value > 0 for value in found)]
        ratio = median_of(slopes["ratio"]) if slopes else float("nan")
        text = f"{_number(ratio)} times the base's" if len(pairs) == 2 and ratio == ratio else "not measured"
        rows.append(Strip(label, text, tuple(Spread(style, found) for style, found in pairs)))
        values += [value for _, found in pairs for value in found]
    if not values:
        return None
    axis = Axis("slope of the logits", *padded(values, 0.08, log=True), lambda value: f"{value:g}", log=True)
    description = "Largest slope of the logits in the input's vectors. " + " ".join(
        f"{row.name}: {row.text}." for row in rows
    )
    return Panel("Local slopes", description, strips(rows, axis))


def layers_figure(study: Study, result: Result) -> Figure:
    """Where in depth a method begins to move what passes through."""
    curves = {
        method["label"]: [(at + 1, value) for at, value in enumerate(method["layers"]) if value is not None]
        for method in result["methods"]
    }
    moving = {label: curve for label, curve in curves.items() if any(value > 0 for _, value in curve)}
    panels: tuple[Panel, ...] = ()
    if moving:
        description = "Relative change of each layer's output. " + " ".join(
            f"{label}: {_number(curve[0][1])} in the first layer, {_number(curve[-1][1])} in the last."
            for label, curve in moving.items()
        )
        panels = (Panel("", description, *(_depth(study, moving, width) for width in (PAGE, PANEL))),)
    still = [label for label in curves if label not in moving]
    note = f" No layer moved under {', '.join(still)}." if still and moving else ""
    return Figure(
        "layers-moved",
        "Where in depth the change sets in",
        "How far each layer's output moved from the base's, as a share of its length, mean over validation examples "
        "and seeds. A curve that rises late leaves the lower layers' features as they were; what a method does "
        f"there could perhaps be left out.{note}",
        panels,
        grid(
            "Relative change of each layer's output",
            ("Method", "Layer", "Change"),
            [[label, f"{layer}", _number(value)] for label, curve in curves.items() for layer, value in curve],
        ),
        tuple((label, study.style(label)) for label in moving),
    )


def _depth(study: Study, curves: dict[str, list[tuple[int, float]]], width: float) -> Drawing:
    last = max(layer for curve in curves.values() for layer, _ in curve)
    top = max(value for curve in curves.values() for _, value in curve)
    plot = Plot(
        Axis("layer", 0.7, last + 0.3, lambda layer: f"{layer:.0f}", ticks={"n": min(last, 8), "whole": True}),
        Axis("change of the layer's output, as a share of its length", 0.0, 1.06 * top, lambda value: f"{value:g}"),
        width,
        280 if width > PANEL else 240,
    )
    for label, curve in curves.items():
        style = study.style(label)
        plot.drawing.path([plot.at(layer, value) for layer, value in curve], style.colour, 1.8, style.dash)
        for layer, value in curve:
            plot.drawing.marker(plot.at(layer, value), style, 4, f"{label}, layer {layer}: {_number(value)}")
    return plot.drawing
