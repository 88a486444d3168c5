"""Between the base and a tuned model: scores along the change, and clean against shifted scores."""

from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS, Metric
from deltaproof.report.drawing.marks import Mark, Series, draw_series
from deltaproof.report.drawing.plot import PAGE, PANEL, SMALL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Cell, Grid, Section
from deltaproof.report.numbers import SIGNS, interval, metric_name, metric_title, value
from deltaproof.report.score_axis import score_axis

Result = dict[str, Any]
_SHAPES = ("diamond", "circle", "square", "up", "down", "plus")


def figure(result: Result) -> Figure:
    """For each tuned model its scores along the change; with shifted rows also clean against shifted score."""
    metric = METRICS[result["metric"]]
    styles: dict[str, Style] = {}
    for model in result["models"]:
        for one in model["sets"]:
            styles.setdefault(one["name"], Style(f"series-{len(styles) % 7}", _SHAPES[len(styles) % 6]))
    panels: list[Panel] = []
    for model in result["models"]:
        drawings = (_along(model, styles, metric, width) for width in (PAGE, PANEL))
        panels.append(Panel(f"{_named(model)}: along the change", _description(model, metric), *drawings))
        shifts = [one for one in model["sets"] if one["role"] == "shift"]
        if shifts:
            drawings = (_against(model, shifts, styles, metric, width) for width in (PAGE, PANEL))
            heading = f"{_named(model)}: clean against shifted"
            panels.append(Panel(heading, _description(model, metric), *drawings))
    return Figure(
        "interpolation",
        "Between the base and the tuned model",
        "Alpha is the share of the change that is taken: 0 the base with the tuned head (or its own), 1 the tuned "
        "model (WiSE-FT, arXiv:2109.01903). Bars are 95 % intervals of the difference to alpha 1, paired by example. "
        "In the second kind of panel each mark is one alpha; up and right of alpha 1 is more "
        f"{metric_name(metric)} on both. "
        "An alpha that was chosen on these very rows is a little too good on them.",
        tuple(panels),
        table(result),
        tuple(styles.items()),
    )


def _named(model: Result) -> str:
    return f"{model['contestant']}, seed {model['seed']}"


def _marks(model: Result, one: Result, unit: str) -> tuple[Mark, ...]:
    marks = []
    for alpha, score, gap in zip(model["alphas"], one["score"], one["difference"], strict=True):
        half = None if gap is None else (gap["high"] - gap["low"]) / 2
        title = f"{one['name']}, alpha {alpha:g}: {value(score, unit)}"
        low, high = (None, None) if half is None else (score - half, score + half)
        marks.append(Mark(alpha, score, low, high, title))
    return tuple(marks)


def _along(model: Result, styles: dict[str, Style], metric: Metric, width: float) -> Drawing:
    series = [Series(one["name"], styles[one["name"]], _marks(model, one, metric.unit)) for one in model["sets"]]
    reach = [end for one in series for mark in one.marks for end in (mark.low, mark.y, mark.high) if end is not None]
    low, high = padded(reach, 0.06)
    plot = Plot(
        Axis("alpha, share of the change that is taken", *padded(model["alphas"], 0.04), lambda alpha: f"{alpha:g}"),
        score_axis(metric, low, high), width, 320 if width > PANEL else 260,
    )  # fmt: skip
    draw_series(plot, series, radius=3.8)
    return plot.drawing


def _against(
    model: Result, shifts: list[Result], styles: dict[str, Style], metric: Metric, width: float
) -> Drawing:  # fmt: skip
    clean = model["sets"][0]
    ys = [score for one in shifts for score in one["score"]]
    plot = Plot(
        Axis(f"{metric_title(metric)} on {clean['name']}", *padded(clean["score"], 0.08),
             lambda score: value(score, metric.unit)),
        score_axis(metric, *padded(ys, 0.1), where="shifted rows"), width, 340 if width > PANEL else 270,
    )  # fmt: skip
    for one in shifts:
        style = styles[one["name"]]
        places = [plot.at(x, y) for x, y in zip(clean["score"], one["score"], strict=True)]
        plot.drawing.path(places, style.colour, 1.6, style.dash)
        for at, alpha in zip(places, model["alphas"], strict=True):
            plot.drawing.marker(at, style, 4, f"{one['name']}, alpha {alpha:g}")
            if alpha in (model["alphas"][0], 1.0, model["without_regression"].get(one["name"])):
                plot.drawing.text((at[0] + 6, at[1] - 6), f"{alpha:g}", "start", "ink", SMALL)
    return plot.drawing


def _description(model: Result, metric: Metric) -> str:
    told = [
        f"{one['name']} from {value(one['score'][0], metric.unit)} at alpha {model['alphas'][0]:g} to "
        f"{value(one['score'][-1], metric.unit)} at alpha {model['alphas'][-1]:g}"
        for one in model["sets"]
    ]
    return (
        f"{metric_title(metric)} of {_named(model)}: {'; '.join(told)}. Best on validation at {model['best_clean']:g}."
    )


def table(result: Result) -> Grid:
    """Scores and differences to the tuned model at each alpha."""
    unit = METRICS[result["metric"]].unit
    sections = []
    for model in result["models"]:
        lines = [
            (Cell(one["name"], f"{one['n']} rows"), Cell(f"{alpha:g}", _remark(model, one, alpha)),
             Cell(value(score, unit)), *_gap(gap, unit))
            for one in model["sets"]
            for alpha, score, gap in zip(model["alphas"], one["score"], one["difference"], strict=True)
        ]  # fmt: skip
        sections.append(Section(tuple(lines), _named(model)))
    columns = ("Rows", "Alpha", metric_title(METRICS[result["metric"]]), "Less the tuned model", "Verdict")
    return Grid("Scores along the change", columns, tuple(sections), (0, 1, 4))


def _remark(model: Result, one: Result, alpha: float) -> str:
    if one["role"] == "validation" and alpha == model["best_clean"]:
        return "best on validation"
    return "best here, none lost on validation" if alpha == model["without_regression"].get(one["name"]) else ""


def _gap(gap: Result | None, unit: str) -> tuple[Cell, Cell]:
    if gap is None:
        return Cell("–"), Cell("–")
    difference = Cell(wording.signed(gap["difference"], unit), interval(gap["low"], gap["high"], unit, True))
    return difference, Cell(gap["verdict"], "", gap["verdict"].replace(" ", "-"), SIGNS[gap["verdict"]])
