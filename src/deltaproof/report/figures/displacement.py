"""How far the answers moved, and how far the capacity theorem says that they may have."""

from collections.abc import Sequence
from typing import Any

from deltaproof.report.drawing.plot import HALF, PAGE, PANEL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.strips import Spread, Strip, strips
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import grid
from deltaproof.report.numbers import power_of_ten
from deltaproof.report.study import Study
from deltaproof.studies.quantiles import median_of

Result = dict[str, Any]


def figure(study: Study, result: Result) -> Figure:
    methods = result["methods"]
    panels = [_moved(study, methods), _tightness(study, methods)]
    return Figure(
        "displacement",
        "How far the answers moved, and how far they may have",
        "Measured: distance of the tuned model's logits from those of the base under the same head, over validation "
        "examples and seeds, and as a multiple of the base's own logits (× base); lines hold 90 % of the examples, "
        "bars the middle half. Of what the bound allows: that distance as a share of the capacity theorem's bound, "
        "its median and its largest; at 1 the bound would be reached. It speaks of full fine-tuning as of any other "
        "change of weights: where all marks lie far left, it limits none of them and does not set them apart.",
        tuple(panel for panel in panels if panel is not None),
        grid(
            "Displacement and bound",
            (
                "Method",
                "Mean displacement",
                "95 % interval",
                "Median, of the base's length",
                "Bound",
                "Of the bound, median",
                "Of the bound, at most",
            ),
            [_line(method) for method in methods],
            (0, 4),
        ),
        columns=2,
    )


def _line(method: Result) -> list[str]:
    moved, bound = method["displacement"], method["bound"]
    return [
        method["label"],
        short(moved["mean"]),
        f"{short(moved['low'])} to {short(moved['high'])}",
        short(method["relative_displacement"]),
        power_of_ten(bound["log10"]) if bound else (method["why_no_bound"] or "nothing moved"),
        power_of_ten(bound["log10_tightness"]) if bound else "–",
        power_of_ten(bound["log10_tightness_high"]) if bound else "–",
    ]


def short(value: float | None) -> str:
    """Three digits; a dash for what is not known."""
    return "–" if value is None or value != value else f"{value:.3g}".replace("-", "−")


def _moved(study: Study, methods: Sequence[Result]) -> Panel | None:
    rows, values = [], []
    for method in methods:
        quantiles = method["displacement"]["quantiles"]
        style, label = study.style(method["label"]), method["label"]
        if all(value is not None and value > 0 for value in quantiles):
            text = f"median {short(median_of(quantiles))}, {short(method['relative_displacement'])} × base"
            rows.append(Strip(label, text, (Spread(style, quantiles, f"{label}: {text}"),)))
            values += quantiles
        else:
            rows.append(Strip(label, "logits as those of the base" if not any(quantiles) else "some did not move"))
    if not values:
        return None
    axis = Axis("distance of the logits", *padded(values, 0.08, log=True), lambda value: f"{value:g}", log=True)
    description = "Displacement of the logits. " + " ".join(f"{row.name}: {row.text}." for row in rows)
    return Panel("Measured", description, strips(rows, axis, width=HALF))


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
    return Panel("Of what the bound allows", description, strips(rows, axis, 0.0, HALF))


def _why(method: Result) -> bool:
    return bool(method["why_no_bound"])


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
            f"{label}: {short(curve[0][1])} in the first layer, {short(curve[-1][1])} in the last."
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
            [[label, f"{layer}", short(value)] for label, curve in curves.items() for layer, value in curve],
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
            plot.drawing.marker(plot.at(layer, value), style, 4, f"{label}, layer {layer}: {short(value)}")
    return plot.drawing
