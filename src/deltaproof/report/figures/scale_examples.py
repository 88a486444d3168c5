"""Score against the size of the training set: who is ahead with how much data, and where two methods cross."""

from collections.abc import Sequence
from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS, Metric
from deltaproof.report.drawing.marks import Mark, Series, draw_series
from deltaproof.report.drawing.plot import PAGE, PANEL, SMALL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.estimates import Estimate, estimate, finite
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.figures.scale_parameters import rate_cell
from deltaproof.report.grid import Cell, Grid, grid
from deltaproof.report.numbers import metric_name, metric_title
from deltaproof.report.score_axis import score_axis
from deltaproof.report.study import Study
from deltaproof.studies.scale_text import crossover_sentence

MOST_TICKS = 7
"""Up to so many sizes stand on the axis themselves."""


def sizes_of(method: dict[str, Any]) -> list[tuple[float, Estimate, dict[str, Any]]]:
    """Number of examples, score and the whole entry of each point that has both, smallest first."""
    found = [(finite(point.get("n_examples")), estimate(point), point) for point in method.get("points") or []]
    usable = [(n, score, point) for n, score, point in found if n is not None and n > 0 and score is not None]
    return sorted(usable, key=lambda entry: entry[0])


def methods_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [method for method in result.get("methods") or [] if sizes_of(method)]


def figure(result: dict[str, Any], study: Study) -> Figure:
    """One panel with every method; where several pairs were looked at, one more for each."""
    metric, methods, pairs = METRICS[result["metric"]], methods_of(result), result.get("crossovers") or []
    panels = []
    if methods:
        only = pairs[0] if len(pairs) == 1 else None
        heading = "" if only is None and not pairs else "Every method" if only is None else heading_of(only)
        drawings = (_draw(methods, metric, study, only, width) for width in (PAGE, PANEL))
        panels.append(Panel(heading, _description(methods, metric, [only] if only else []), *drawings))
        for pair in pairs if only is None else []:
            two = [method for method in methods if method["label"] in (pair["one"], pair["other"])]
            drawings = (_draw(two, metric, study, pair, width) for width in (PAGE, PANEL))
            panels.append(Panel(heading_of(pair), _description(two, metric, [pair]), *drawings))
    lines: list[list[str | Cell]] = [
        [str(method["label"]), plain(n), *split(score, metric.unit), rate_cell(point)]
        for method in methods
        for n, score, point in sizes_of(method)
    ]
    columns = ("Method", "Examples", metric_title(metric), "95 % interval", "Learning rate chosen")
    return Figure(
        "scale-examples",
        f"{metric_name(metric)[0].upper()}{metric_name(metric)[1:]} against the size of the training set",
        _caption(result),
        tuple(panels),
        grid("Score by size of the training set", columns, lines),
        tuple((str(method["label"]), study.style(str(method["label"]))) for method in methods),
    )


def heading_of(pair: dict[str, Any]) -> str:
    sentence = crossover_sentence(pair)
    return sentence[0].upper() + sentence[1:] if sentence.startswith("these") else sentence


def _caption(result: dict[str, Any]) -> str:
    told = [
        f"Smaller training sets are subsets of larger ones, at equal {result.get('equal', 'epochs')}; each size was "
        "tuned anew and all are scored on one test set. Bars are 95 % intervals."
    ]
    if result.get("crossovers"):
        told.append(
            "A shaded range is where two methods cross (95 % interval), the line in it the best guess: left of it one "
            "is ahead, right of it the other. A dashed line with a question mark: too few of the draws cross to say so."
        )
    if any(point.get("at_edge") for method in methods_of(result) for _, _, point in sizes_of(method)):
        told.append(
            "At a hollow mark the learning rate lies at the edge of those tried: with a better one it may stand higher."
        )
    return " ".join(told)


def _description(methods: Sequence[dict[str, Any]], metric: Metric, pairs: Sequence[dict[str, Any]]) -> str:
    parts = [
        f"{method['label']}: "
        + ", ".join(f"{score.text(metric.unit)} with {n:,.0f} examples" for n, score, _ in sizes_of(method))
        + "."
        for method in methods
    ]
    parts += [f"{heading_of(pair)}." for pair in pairs]
    return f"{metric_title(metric)} against examples. {' '.join(parts)}"


def _draw(
    methods: Sequence[dict[str, Any]], metric: Metric, study: Study, pair: dict[str, Any] | None, width: float
) -> Drawing:
    points = [(n, score) for method in methods for n, score, _ in sizes_of(method)]
    low, high = padded([end for _, score in points for end in score.ends], 0.08)
    sizes = sorted({n for n, _ in points})
    plot = Plot(
        Axis(
            "training examples (logarithmic)",
            *padded(sizes, 0.05, log=True),
            plain,
            log=True,
            at=sizes if len(sizes) <= MOST_TICKS else (),
        ),
        score_axis(metric, low, high),
        width,
        330 if width > PANEL else 270,
    )
    if pair is not None:
        _crossing(plot, pair, sizes)
    draw_series(plot, [series_of(method, metric, study) for method in methods])
    return plot.drawing


def series_of(method: dict[str, Any], metric: Metric, study: Study) -> Series:
    name = str(method["label"])
    marks = [
        Mark(
            n, score.mean, score.low, score.high, f"{name}, {n:,.0f}: {score.text(metric.unit)}", bool(p.get("at_edge"))
        )
        for n, score, p in sizes_of(method)
    ]
    return Series(name, study.style(name), tuple(marks))


def split(score: Estimate, unit: str, with_sign: bool = False) -> tuple[str, str]:
    """The number and its interval, for two columns."""
    cell = score.cell(unit, with_sign)
    return cell.text, cell.detail or "–"


def plain(n: float) -> str:
    return f"{n:,.0f}".replace(",", "\u202f")


def _crossing(plot: Plot, pair: dict[str, Any], sizes: Sequence[float]) -> None:
    """The interval of the crossing as a shaded range, or the words that there is none."""
    at = estimate(pair.get("at"))
    room = plot.right - plot.left
    if at is None or pair.get("verdict") == "no crossover in range":
        told = str(pair.get("verdict", ""))
        told = "cannot tell whether they cross" if told == "cannot tell" else told
        plot.drawing.text((plot.left + 6, plot.top + 12), told, colour="muted", size=SMALL, fit=room - 12)
        return
    low, high = (max(sizes[0], at.low or at.mean), min(sizes[-1], at.high or at.mean))
    left, right = plot.x(low), plot.x(high)
    plot.drawing.rect((left, plot.top), max(right - left, 1), plot.bottom - plot.top, "accent", 0.12)
    middle = plot.x(at.mean)
    certain = pair.get("verdict") == "crossover"
    plot.drawing.line((middle, plot.top), (middle, plot.bottom), "accent", 1.4, "" if certain else "4 3")
    told = f"n* ≈ {at.mean:,.0f}".replace(",", "\u202f") + ("" if certain else "?")
    is_left = middle < (plot.left + plot.right) / 2
    x = middle + 5 if is_left else middle - 5
    plot.drawing.text((x, plot.top + 12), told, "start" if is_left else "end", "accent", SMALL, 600)


def crossover_table(result: dict[str, Any]) -> Grid | None:
    """Where pairs cross; None where no pair was looked at."""
    pairs = result.get("crossovers") or []
    if not pairs:
        return None
    lines = []
    for pair in pairs:
        at = estimate(pair.get("at"))
        interval = "–" if at is None or at.low is None else f"{at.low:,.0f} to {at.high:,.0f}"
        lines.append(
            [
                f"{pair['one']} and {pair['other']}",
                str(pair["verdict"]),
                str(pair["ahead_before"]),
                str(pair["ahead_after"]),
                "–" if at is None else f"{at.mean:,.0f}",
                interval,
                wording.share(float(pair["crossing_fraction"])),
            ]
        )
    columns = (
        "Pair",
        "Verdict",
        "Ahead with the fewest",
        "Ahead with the most",
        "Crossing, examples",
        "95 % interval",
        "Draws that cross once",
    )
    note = (
        "From one bootstrap over seeds and test examples. A crossover, or none in range, is said when 95 % of the "
        "draws agree; the interval is of those draws that cross."
    )
    return grid("Where methods cross", columns, lines, (0, 1, 2, 3), note)
