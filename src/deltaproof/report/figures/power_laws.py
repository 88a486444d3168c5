"""Power laws of the error: how fast more data helps, and the floor that more data would not get below."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from deltaproof.metrics import METRICS, Metric
from deltaproof.report.drawing.marks import Mark, Series, between, curve, draw_series
from deltaproof.report.drawing.plot import PAGE, PANEL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.estimates import Estimate, estimate
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.figures.scale_examples import MOST_TICKS, methods_of, plain, sizes_of
from deltaproof.report.grid import Cell, Grid, grid
from deltaproof.report.numbers import metric_name
from deltaproof.report.study import Study
from deltaproof.studies.scale_text import power_law_sentence


def laws_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Methods through whose errors a power law was put."""
    return [method for method in methods_of(result) if method.get("power_law")]


def figure(result: dict[str, Any], study: Study) -> Figure:
    metric, methods = METRICS[result["metric"]], laws_of(result)
    drawable = [method for method in methods if any(_error(score) for _, score, _ in sizes_of(method))]
    panels: tuple[Panel, ...] = ()
    if drawable:
        drawings = (_draw(drawable, metric, study, width) for width in (PAGE, PANEL))
        panels = (Panel("", _description(drawable), *drawings),)
    lines = [
        [str(method["label"]), f"{n:,.0f}", f"{1 - score.mean:.4f}", _fitted(method["power_law"], n)]
        for method in methods
        for n, score, _ in sizes_of(method)
    ]
    return Figure(
        "power-laws",
        "Error against the size of the training set",
        f"Error is 1 − {metric_name(metric)}. On these logarithmic axes a pure power law a n⁻ᵇ is a straight line, "
        "and steeper means that more data helps more; a line that flattens to the right nears a floor that more data "
        "of this kind will not lower. Lines are the fitted laws, drawn only over sizes that were measured; bars are "
        "95 % intervals. A method without a line has no law that these sizes determine.",
        panels,
        grid("Errors, measured and fitted", ("Method", "Examples", "Error", "Fitted"), lines),
        tuple((str(method["label"]), study.style(str(method["label"]))) for method in drawable),
    )


def _law(found: dict[str, Any], n: float) -> float:
    return float(found["floor"]["value"] + found["scale"]["value"] * n ** -found["exponent"]["value"])


def _fitted(found: dict[str, Any], n: float) -> str:
    return "–" if found.get("is_at_edge") else f"{_law(found, n):.4f}"


def _error(score: Estimate) -> tuple[float, float | None, float | None] | None:
    """The error with its interval; None where a logarithm has no place for it."""
    mean = 1 - score.mean
    if mean <= 0:
        return None
    if score.low is None or score.high is None or score.high >= 1:
        return mean, None, None
    return mean, 1 - score.high, 1 - score.low


def _description(methods: Sequence[dict[str, Any]]) -> str:
    parts = [f"{method['label']}: {power_law_sentence(method['power_law'])}." for method in methods]
    return f"Error against examples, both logarithmic. {' '.join(parts)}"


def _draw(methods: Sequence[dict[str, Any]], metric: Metric, study: Study, width: float) -> Drawing:
    errors = {
        str(method["label"]): [(n, error) for n, score, _ in sizes_of(method) if (error := _error(score))]
        for method in methods
    }
    ends = [end for found in errors.values() for _, error in found for end in error if end is not None]
    sizes = sorted({n for found in errors.values() for n, _ in found})
    plot = Plot(
        Axis(
            "training examples n (logarithmic)",
            *padded(sizes, 0.05, log=True),
            plain,
            log=True,
            at=sizes if len(sizes) <= MOST_TICKS else (),
        ),
        Axis(
            f"error, 1 − {metric_name(metric)} (logarithmic) ↓ better",
            *padded(ends, 0.06, log=True),
            lambda error: f"{error:.2g}",
            log=True,
            ticks={"n": 6},
        ),
        width,
        330 if width > PANEL else 270,
    )
    series = []
    for method in methods:
        name, law = str(method["label"]), method["power_law"]
        style = study.style(name)
        marks = [
            Mark(n, mean, low, high, f"{name}, {n:,.0f}: error {mean:.3f}") for n, (mean, low, high) in errors[name]
        ]
        series.append(Series(name, style, tuple(marks)))
        if not law.get("is_at_edge"):
            curve(plot, partial(_law, law), between(sizes[0], sizes[-1], log=True), style, 1.6)
    draw_series(plot, series, joined=False)
    return plot.drawing


def law_table(result: dict[str, Any]) -> Grid | None:
    """Floors and exponents; None where no law was put through the points."""
    methods = laws_of(result)
    if not methods:
        return None
    lines: list[list[str | Cell]] = []
    for method in methods:
        law = method["power_law"]
        floor, exponent = estimate(law["floor"]), estimate(law["exponent"])
        if law.get("is_at_edge") or floor is None or exponent is None:
            lines.append([str(method["label"]), Cell("not determined", tone="warn", sign="!"), "–", "–"])
            continue
        lines.append(
            [
                str(method["label"]),
                "error = c + a n⁻ᵇ",
                floor.cell("fraction"),
                Cell(f"{exponent.mean:.2f}", _plain(exponent)),
            ]
        )
    note = (
        "The floor is the error that would be left with endless data of this kind; the exponent says how fast it is "
        "neared: at 0.5, four times the data halve what lies above the floor. Intervals are at 95 %, over seeds and "
        "test examples; a wide one means that these sizes leave it open. Not determined: the exponent ran to the edge "
        "of the range that was searched."
    )
    return grid("Power laws of the error", ("Method", "Law", "Floor c, %", "Exponent b"), lines, (0, 1), note)


def _plain(exponent: Estimate) -> str:
    return "" if exponent.low is None else f"{exponent.low:.2f} to {exponent.high:.2f}"
