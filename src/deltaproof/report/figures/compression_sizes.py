"""Size against score: every update at every density, beside the uncompressed one and the base."""

from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS, Metric
from deltaproof.report.drawing.marks import whisker
from deltaproof.report.drawing.plot import PAGE, PANEL, SMALL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Cell, Grid, Section
from deltaproof.report.numbers import SIGNS, interval, metric_name, metric_title, value
from deltaproof.report.score_axis import score_axis
from deltaproof.report.study import Study
from deltaproof.studies.compression_findings import BASE, BEFORE, WITHOUT
from deltaproof.studies.compression_text import chosen_words, mean_size, share_words

Result = dict[str, Any]
UNCOMPRESSED = Style("ink", "diamond", hollow=True)
_LINES = ((BEFORE, "as tuned"), (BASE, "base, tuned head"))


def figure(study: Study, result: Result) -> Figure:
    metric = METRICS[result["metric"]]
    entries = [entry for entry in result["contestants"] if entry["densities"]]
    widths = (PAGE, PANEL) if len(entries) == 1 else (PANEL,)
    panels = tuple(
        Panel(
            f"{entry['label']}",
            _description(result, entry, metric),
            *(_draw(study, result, entry, metric, width) for width in widths),
        )
        for entry in entries
    )
    return Figure(
        "compression-sizes",
        f"Size and {metric_name(metric)} of compressed updates",
        f"Each mark is the whole file of an update at one density (written beside it), heads and all else that is kept "
        f"whole included, and its {metric_name(metric)} on the test rows. Bars are 95 % intervals of the difference to "
        f"the update as tuned, paired by example. The open mark and the upper line are the update as tuned, the band "
        f"around it the margin of {wording.amount(result['margin'], metric.unit)}; the lower line is the base with "
        f"nothing but the tuned head. Sizes go up by factors.",
        panels,
        results(result),
        (),
        min(3, len(panels)) or 1,
    )


def _draw(study: Study, result: Result, entry: Result, metric: Metric, width: float) -> Drawing:
    label = entry["label"]
    points = [
        (name, mean_size(result, label, name, "file_bytes"), entry["intervals"][name]["mean"],
         (found["high"] - found["low"]) / 2)
        for name, found in entry["densities"].items()
    ]  # fmt: skip
    whole = mean_size(result, label, points[0][0], "stored_bytes")
    levels = {end: entry["intervals"][end]["mean"] for end, _ in _LINES if end in entry["intervals"]}
    ends = [score + sign * half for _, _, score, half in points for sign in (-1, 1)]
    low, high = padded([*ends, *levels.values()], 0.1)
    x_axis = Axis(
        "size of the file (by factors)", *padded([size for _, size, _, _ in points] + [whole], 0.1, log=True),
        wording.size, log=True, ticks={"n": 4},
    )  # fmt: skip
    plot = Plot(x_axis, score_axis(metric, low, high), width, 330 if width > PANEL else 270)
    _levels(plot, result, levels)
    style = study.style(label)
    for _, size, score, half in points:
        whisker(plot, size, score - half, score + half, style.colour)
    plot.drawing.path([plot.at(size, score) for _, size, score, _ in points], style.colour, 1.6, style.dash)
    for name, size, score, _ in points:
        at = plot.at(size, score)
        plot.drawing.marker(at, style, 4.5, f"density {name}: {value(score, metric.unit)} in {wording.size(size)}")
        plot.drawing.text((at[0] + 6, at[1] + 13), name, "start", "ink", SMALL)
    plot.drawing.marker(plot.at(whole, levels[BEFORE]), UNCOMPRESSED, 5, f"as tuned, {wording.size(whole)}")
    return plot.drawing


def _levels(plot: Plot, result: Result, levels: dict[str, float]) -> None:
    margin = result["margin"]
    top, bottom = sorted(min(max(plot.y(levels[BEFORE] + sign * margin), plot.top), plot.bottom) for sign in (-1, 1))
    plot.drawing.rect((plot.left, top), plot.right - plot.left, bottom - top, "accent", 0.1)
    for end, name in _LINES:
        if end in levels:
            y = plot.y(levels[end])
            plot.drawing.line((plot.left, y), (plot.right, y), "ink", 1.1, "5 4")
            plot.drawing.text((plot.left + 4, y - 5), name, "start", "muted", SMALL)


def _description(result: Result, entry: Result, metric: Metric) -> str:
    told = [
        f"{value(entry['intervals'][name]['mean'], metric.unit)} at density {name} in "
        f"{wording.size(mean_size(result, entry['label'], name, 'file_bytes'))}"
        for name in entry["densities"]
    ]
    ends = [f"{value(entry['intervals'][end]['mean'], metric.unit)} {words}"
            for end, words in _LINES if end in entry["intervals"]]  # fmt: skip
    return f"{metric_title(metric)} of {entry['label']} against size: {', '.join(told)}; {', '.join(ends)}."


def results(result: Result) -> Grid:
    """Sizes with their denominators, scores, differences with verdicts, and what is retained."""
    unit = METRICS[result["metric"]].unit
    columns = (
        "Density", "File", "Smaller than as stored", "Compressed tensors, of fp16", "Of fp32",
        metric_title(METRICS[result["metric"]], "test "), "Less the update as tuned", "Verdict", "Retained, %",
        "Of the gain, %", "Scale, by validation",
    )  # fmt: skip
    sections = tuple(
        Section(tuple(_row(result, entry, name, unit) for name in entry["densities"]), _heading(entry, unit))
        for entry in result["contestants"]
        if entry["densities"]
    )
    note = (
        "Smaller than as stored: all tensors of the update, in the precision they were saved in, over the whole file, "
        "by stat. The other two: compressed tensors alone, in fp16 and in fp32, over their code; published ratios are "
        "against fp16. Retained: score over that of the update as tuned; of the gain: the same above the base with the "
        "tuned head, where that gain is shown. 95 % intervals, paired by example; verdicts are corrected over the "
        "densities of a method. Each density asked the test rows once."
    )
    return Grid("Compressed updates on the test rows", columns, sections, (0, 7, 10), note)


def _heading(entry: Result, unit: str) -> str:
    said = [f"{value(entry['intervals'][end]['mean'], unit)} {words}"
            for end, words in ((BEFORE, "as tuned"), (WITHOUT, "with what is kept whole alone"),
                               (BASE, "with the tuned head alone")) if end in entry["intervals"]]  # fmt: skip
    seeds = "1 model" if entry["n_seeds"] == 1 else f"{entry['n_seeds']} models"
    return f"{entry['label']} ({seeds}): {', '.join(said)}"


def _row(result: Result, entry: Result, name: str, unit: str) -> tuple[Cell, ...]:
    label, found = entry["label"], entry["densities"][name]

    def ratio(field: str) -> Cell:
        return Cell(f"{mean_size(result, label, name, field):.1f} ×")

    return (
        Cell(name),
        Cell(wording.size(mean_size(result, label, name, "file_bytes"))),
        ratio("stored_ratio"),
        ratio("fp16_ratio"),
        ratio("fp32_ratio"),
        Cell(value(entry["intervals"][name]["mean"], unit)),
        Cell(wording.signed(found["difference"], unit), interval(found["low"], found["high"], unit, True)),
        Cell(found["verdict"], "", found["verdict"].replace(" ", "-"), SIGNS[found["verdict"]]),
        _share(found["retained"]),
        _share(found["gain_retained"]),
        Cell(chosen_words(result, label, name)),
    )


def _share(found: dict[str, float] | None) -> Cell:
    mean, _, ends = share_words(found).partition(" (")
    return Cell(mean, ends.rstrip(")"))
