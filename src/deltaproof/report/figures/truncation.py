"""The full update cut to each rank, beside LoRA trained at that rank: what a rank loses, and what training misses."""

from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS, Metric
from deltaproof.report.drawing.plot import PAGE, PANEL, SMALL, Plot
from deltaproof.report.drawing.plot import Axis as PlotAxis
from deltaproof.report.drawing.ranks import rank_axis
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Cell, Grid, grid
from deltaproof.report.numbers import SIGNS, interval, mean_of, metric_name, metric_title, plural, value
from deltaproof.report.study import Study

Result = dict[str, Any]
AT_BUDGET = Style("muted", "circle", hollow=True)
REST_AT_BASE = Style("warn", "down", hollow=True)
_LINES = (("validation_rest_at_base", REST_AT_BASE), ("validation_at_budget", AT_BUDGET))


def figure(study: Study, result: Result) -> Figure:
    metric, chosen = METRICS[result["metric"]], result["chosen_rank"]
    lora = "; the marks of LoRA contestants are models trained at that rank" if result["trained"] else ""
    return Figure(
        "truncated-and-trained",
        "The full update, cut to a rank",
        f"The solid line is full fine-tuning's own update, cut to its best rank-r form in every linear map, and asked "
        f"again; pale lines are single seeds{lora}. What is missing to the dashed line is what the rank cannot "
        f"express; what LoRA misses of the solid line is left to training. The band holds losses within the margin of "
        f"{wording.amount(result['margin'], metric.unit)}; the ring marks rank {chosen}, the lowest whose mean lies in "
        f"it. All of this is on validation; the table below has the test set, opened at that rank alone.",
        (Panel("", _description(result, metric), *(_draw(study, result, metric, width) for width in (PAGE, PANEL))),),
        _data(result, metric),
        _legend(study, result),
    )


def means(result: Result, name: str) -> list[tuple[int, float]]:
    """(rank, mean over seeds) of one of the curves, where it is known."""
    columns = zip(result["ranks"], *(curve["points"] for curve in result["curves"]), strict=True)
    found = [(int(rank), mean_of(point[name] for point in points)) for rank, *points in columns]
    return [(rank, mean) for rank, mean in found if mean is not None]


def verdicts(result: Result) -> Grid:
    """The two gaps on the test set, as a table."""
    metric, scores = METRICS[result["metric"]], result["test"]["scores"]
    rank = result["chosen_rank"]
    lora = (result["lora"] or {}).get("label", "")
    meanings = {
        "expressivity": f"from the full update to its cut to rank {rank}: what that rank cannot express",
        "optimisation": f"from that cut to {lora}: what training at a low rank missed",
    }
    lines: list[list[str | Cell]] = []
    for kind, gap in result["test"]["gaps"].items():
        before, after = (mean_of(scores[gap[end]]) for end in ("against", "of"))
        difference = Cell(
            wording.signed(gap["difference"], metric.unit), interval(gap["low"], gap["high"], metric.unit, True)
        )
        verdict = Cell(gap["verdict"], gap["note"], gap["verdict"].replace(" ", "-"), SIGNS[gap["verdict"]])
        lines.append(
            [
                Cell(kind, meanings[kind]),
                value(before, metric.unit),
                value(after, metric.unit),
                difference,
                verdict,
            ]
        )
    return grid(
        f"Expressivity and optimisation: {metric_title(metric, 'test ').lower()}",
        ("Gap", "From", "To", "Difference", "Verdict"),
        lines,
        (0, 4),
        f"Intervals at 95 % over {plural(len(scores['full']), 'seed')} and all test examples; positive differences are "
        f"better. Verdicts are against the margin of {wording.amount(result['margin'], metric.unit)}; where they "
        "cannot tell, more seeds usually would.",
    )


def _legend(study: Study, result: Result) -> tuple[tuple[str, Style], ...]:
    return (
        ("cut to rank r in every map", study.style("full")),
        ("cut where the energy is, at equal size", AT_BUDGET),
        ("cut, with norms, biases and embeddings at the base", REST_AT_BASE),
        *((entry["label"], study.style(entry["label"])) for entry in result["trained"]),
    )


def _draw(study: Study, result: Result, metric: Metric, width: float) -> Drawing:
    curves = {name: means(result, name) for name in ("validation", *(name for name, _ in _LINES))}
    seeds = [
        [(p["rank"], p["validation"]) for p in c["points"] if p["validation"] is not None] for c in result["curves"]
    ]
    trained = {entry["label"]: (entry["rank"], entry["validation"]) for entry in result["trained"]}
    scores = [score for curve in (*curves.values(), *seeds) for _, score in curve]
    scores += [score for _, found in trained.values() for score in found if score is not None]
    axis, place = rank_axis(
        "rank that the update is cut to (the last is the whole update)"
        if width > PANEL
        else "rank (the last is whole)",
        [*result["ranks"], *(rank for rank, _ in trained.values())],
    )
    low, high = padded(scores, 0.1)
    y_axis = PlotAxis(
        metric_title(metric, "validation "),
        low,
        high,
        lambda score: value(score, metric.unit),
        falling=not metric.higher_is_better,
    )
    plot = Plot(axis, y_axis, width, 340 if width > PANEL else 280)
    _levels(plot, result, curves, metric)
    own = study.style("full")
    for curve in seeds if len(seeds) > 1 else []:
        plot.drawing.path([plot.at(place(rank), score) for rank, score in curve], own.colour, 1, opacity=0.3)
    for name, style in (*_LINES, ("validation", own)):
        points = [(rank, plot.at(place(rank), score), score) for rank, score in curves[name]]
        plot.drawing.path([at for _, at, _ in points], style.colour, 2 if name == "validation" else 1.4, style.dash)
        for rank, at, score in points:
            plot.drawing.marker(
                at, style, 4.5 if name == "validation" else 3.2, f"rank {rank}: {value(score, metric.unit)}"
            )
            if name == "validation" and rank == result["chosen_rank"]:
                plot.drawing.add("circle", cx=at[0], cy=at[1], r=10, fill="none", stroke="ink", stroke_width=1.6)
    for label, (rank, found) in trained.items():
        x, style = plot.x(place(rank)), study.style(label)
        there = [score for score in found if score is not None]
        if there:
            plot.drawing.line((x, plot.y(min(there))), (x, plot.y(max(there))), style.colour, 1.6)
            mean = sum(there) / len(there)
            plot.drawing.marker((x, plot.y(mean)), style, 5.5, f"{label}: {value(mean, metric.unit)}")
    return plot.drawing


def _levels(plot: Plot, result: Result, curves: dict[str, list[tuple[int, float]]], metric: Metric) -> None:
    """The whole update's score with the margin below it, and the base's."""
    if not curves["validation"]:
        return
    full = curves["validation"][-1][1]
    end = full - result["margin"] * (1 if metric.higher_is_better else -1)
    top, bottom = sorted((plot.y(full), min(max(plot.y(end), plot.top), plot.bottom)))
    plot.drawing.rect((plot.left, top), plot.right - plot.left, bottom - top, "accent", 0.1)
    base = next((score for rank, score in curves["validation_rest_at_base"] if rank == 0), None)
    for level, name in ((full, "whole update"), (base, "base, tuned head")):
        if level is not None:
            y = plot.y(level)
            plot.drawing.line((plot.left, y), (plot.right, y), "ink", 1.1, "5 4")
            plot.drawing.text((plot.right, y - 8), name, "end", "muted", SMALL)


def _description(result: Result, metric: Metric) -> str:
    cut = ", ".join(f"{value(score, metric.unit)} at rank {rank}" for rank, score in means(result, "validation"))
    lora = " ".join(
        f"{entry['label']}, trained at rank {entry['rank']}: {value(mean_of(entry['validation']), metric.unit)}."
        for entry in result["trained"]
    )
    return (
        f"Validation {metric_name(metric)} against the rank that full fine-tuning's update is cut to: {cut}. Chosen: "
        f"rank {result['chosen_rank']}. {lora}"
    )


def _data(result: Result, metric: Metric) -> Grid:
    unit = metric.unit
    columns = zip(result["ranks"], *(curve["points"] for curve in result["curves"]), strict=True)
    cut = {rank: points for rank, *points in columns}
    lines = []
    for rank in sorted({*cut, *(entry["rank"] for entry in result["trained"])}):
        points, energy = cut.get(rank, []), mean_of(point["energy"] for point in cut.get(rank, []))
        trained = [
            f"{entry['label']}: {value(mean_of(entry['validation']), unit)}"
            for entry in result["trained"]
            if entry["rank"] == rank
        ]
        lines.append(
            [
                f"{rank}",
                "–" if energy is None else wording.share(energy),
                wording.count(points[0]["n_dimensions"]) if points else "–",
                *(
                    value(mean_of(point[name] for point in points), unit)
                    for name in ("validation", "validation_at_budget", "validation_rest_at_base")
                ),
                ", ".join(value(point["validation"], unit) for point in points) or "–",
                ", ".join(trained) or "–",
            ]
        )
    return grid(
        f"Validation {metric_name(metric)} by rank",
        (
            "Rank",
            "Energy kept",
            "Dimensions",
            "Cut",
            "Cut at equal size",
            "Cut, rest at the base",
            "Cut, by seed",
            "Trained",
        ),
        lines,
        (6, 7),
    )
