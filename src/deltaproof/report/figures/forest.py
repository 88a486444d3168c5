"""Forest plot: each contestant's difference to the reference, its interval, and the band of what does not matter."""

from statistics import median

from deltaproof.experiments import wording
from deltaproof.experiments.row import Row
from deltaproof.report.drawing.plot import PAGE, PANEL, trimmed
from deltaproof.report.drawing.scales import Scale
from deltaproof.report.drawing.svg import Drawing, Style, text_width
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Grid, grid
from deltaproof.report.numbers import ENDINGS, SIGNS, interval, metric_name
from deltaproof.report.study import Study
from deltaproof.stats import Comparison

STYLES = {
    "better": Style("good", "up"),
    "worse": Style("bad", "down"),
    "equivalent": Style("accent", "circle"),
    "cannot tell": Style("muted", "diamond", hollow=True),
}
_FAR = 5.0
"""What lies further out than so many times the usual is cut off, with an arrow, so that the rest stays readable."""


def figure(study: Study) -> Figure:
    table = study.table
    rows = [row for row in table.rows if row.name != table.reference]
    metric, unit = metric_name(table.metric), table.metric.unit
    margin = wording.amount(table.margin, unit)
    panels: tuple[Panel, ...] = ()
    if any(row.comparison for row in rows):
        description = f"Differences in {metric} to {table.reference}. " + " ".join(_sentence(row, unit) for row in rows)
        panels = (Panel("", description, _draw(rows, study, PAGE, wide=True), _draw(rows, study, PANEL, wide=False)),)
    level = f"{1 - table.alpha:.0%}".replace("%", " %")
    cut = " An arrow marks an interval that goes beyond the scale." if panels and _is_cut(rows, table.margin) else ""
    return Figure(
        "differences",
        f"Difference in {metric} to {table.reference}",
        f"Right of the line is better. The band holds differences of less than {margin}, which count as no difference. "
        f"Bars are intervals at {level} of each comparison alone; verdicts are corrected for all of them.{cut}",
        panels,
        _data(rows, study),
    )


def _sentence(row: Row, unit: str) -> str:
    if row.comparison is None:
        return f"{row.name}: not compared, {ENDINGS[row.status]}."
    return f"{row.name}: {_numbers(row.comparison, unit)}, {row.comparison.verdict}."


def _numbers(comparison: Comparison, unit: str) -> str:
    reach = interval(comparison.low, comparison.high, unit, with_sign=True)
    return f"{wording.signed(comparison.difference, unit)} ({reach})"


def _extents(rows: list[Row]) -> list[float]:
    return [max(abs(row.comparison.low), abs(row.comparison.high)) for row in rows if row.comparison]


def _limit(rows: list[Row], margin: float) -> float:
    extents = _extents(rows)
    return min(max([*extents, 1.25 * margin]), _FAR * max(margin, median(extents)))


def _is_cut(rows: list[Row], margin: float) -> bool:
    return max(_extents(rows)) > _limit(rows, margin)


def _domain(rows: list[Row], margin: float) -> tuple[float, float]:
    limit = _limit(rows, margin)
    lows = [row.comparison.low for row in rows if row.comparison]
    highs = [row.comparison.high for row in rows if row.comparison]
    low, high = max(-limit, min([*lows, -1.25 * margin])), min(limit, max([*highs, 1.25 * margin]))
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _draw(rows: list[Row], study: Study, width: float, wide: bool) -> Drawing:
    """Wide: name, interval and numbers side by side. Narrow: the interval below its name."""
    table = study.table
    unit, step, top = table.metric.unit, 34.0 if wide else 52.0, 24.0
    bottom = top + step * len(rows) + 6
    drawing = Drawing(width, bottom + 40)
    name_width = min(250.0, max(text_width(row.name, 13, 600) for row in rows) + 16) if wide else 0
    scale = Scale(*_domain(rows, table.margin), name_width + 8, width - (256 if wide else 8))
    _background(drawing, scale, study, top, bottom)
    for index, row in enumerate(rows):
        y = top + step * index
        if wide:
            drawing.text((0, y + step / 2 + 4), row.name, size=13, weight=600, fit=name_width - 8)
            _result(drawing, row, unit, scale.end + 16, y + step / 2 + 4)
            _interval(drawing, row, scale, y + step / 2, unit)
        else:
            drawing.rect((0, y + 0.5), width, 24, "surface")  # words stand on plain ground, the band shows below them
            drawing.text((0, y + 17), row.name, size=13, weight=600, fit=165)
            _result(drawing, row, unit, width, y + 17, narrow=True)
            _interval(drawing, row, scale, y + 36, unit)
        drawing.line((0, y + step), (width, y + step), "grid")
    return drawing


def _background(drawing: Drawing, scale: Scale, study: Study, top: float, bottom: float) -> None:
    table = study.table
    left, right = scale(max(-table.margin, scale.low)), scale(min(table.margin, scale.high))
    drawing.rect((left, top), right - left, bottom - top, "accent", 0.1)
    for edge in (left, right):
        drawing.line((edge, top), (edge, bottom), "accent", dash="3 3")
    drawing.line((scale(0), top), (scale(0), bottom), "ink", 1.2)
    right = min(max(scale(0) + 8, 68), drawing.width - text_width("better →", 11))
    drawing.text((right - 16, 14), "← worse", "end", "muted", 11)
    drawing.text((right, 14), "better →", "start", "muted", 11)
    drawing.line((scale.start, bottom), (scale.end, bottom), "axis")
    ticks = scale.ticks(7 if scale.end - scale.start > 350 else 5)
    for tick, text in zip(ticks, trimmed([wording.signed(tick, table.metric.unit) for tick in ticks]), strict=True):
        drawing.line((scale(tick), bottom), (scale(tick), bottom + 4), "axis")
        drawing.text((scale(tick), bottom + 17), text, "middle", "muted", 11)
    unit = {"fraction": "points", "": ""}.get(table.metric.unit, table.metric.unit)
    title = f"difference in {metric_name(table.metric)}" + (f", {unit}" if unit else "")
    drawing.text(((scale.start + scale.end) / 2, bottom + 34), title, "middle", "muted", 11)


def _result(drawing: Drawing, row: Row, unit: str, x: float, y: float, narrow: bool = False) -> None:
    comparison = row.comparison
    if comparison is None:
        drawing.text(
            (x, y),
            ENDINGS[row.status],
            "end" if narrow else "start",
            "warn",
            12,
            fit=200 if narrow else 230,
        )
        return
    style, verdict = STYLES[comparison.verdict], f"{SIGNS[comparison.verdict]} {comparison.verdict}"
    if narrow:
        drawing.text((x, y), f"{wording.signed(comparison.difference, unit)}  {verdict}", "end", style.colour, 12, 600)
    else:
        drawing.text((x, y), _numbers(comparison, unit), size=12)
        drawing.text((drawing.width, y), verdict, "end", style.colour, 12, 600)


def _interval(drawing: Drawing, row: Row, scale: Scale, y: float, unit: str) -> None:
    comparison = row.comparison
    if comparison is None:
        return
    style = STYLES[comparison.verdict]
    low, high = max(comparison.low, scale.low), min(comparison.high, scale.high)
    if low < high:
        drawing.line((scale(low), y), (scale(high), y), style.colour, 2.4)
    for end, reached, direction in (
        (comparison.low, comparison.low >= scale.low, -1),
        (comparison.high, comparison.high <= scale.high, 1),
    ):
        if reached and scale.low <= end <= scale.high:
            drawing.line((scale(end), y - 4), (scale(end), y + 4), style.colour, 2)
        elif not reached:
            tip = scale.start if direction < 0 else scale.end
            drawing.polygon([(tip, y), (tip - direction * 9, y - 5), (tip - direction * 9, y + 5)], style.colour)
    if scale.low <= comparison.difference <= scale.high:
        drawing.marker((scale(comparison.difference), y), style, 5.5, _sentence(row, unit))


def _data(rows: list[Row], study: Study) -> Grid:
    unit = study.table.metric.unit
    lines = []
    for row in rows:
        c = row.comparison
        if c is None:
            lines.append([row.name, ENDINGS[row.status], "–", "–", "–", "–", "–"])
        else:
            lines.append(
                [
                    row.name,
                    c.verdict,
                    wording.signed(c.difference, unit),
                    interval(c.low, c.high, unit, with_sign=True),
                    f"{c.p_difference_holm:.3g}",
                    f"{c.p_equivalence_holm:.3g}",
                    wording.amount(c.detectable_difference, unit),
                ]
            )
    columns = (
        "Method",
        "Verdict",
        "Difference",
        "Interval",
        "p, no difference (Holm)",
        "p, not equivalent (Holm)",
        "Detectable difference",
    )
    return grid(f"Differences to {study.table.reference}", columns, lines, (0, 1))
