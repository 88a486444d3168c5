"""How steep the models are where examples lie, and how far an answer therefore holds."""

from collections.abc import Sequence
from typing import Any

from deltaproof.report.drawing.plot import HALF, Axis
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.strips import Spread, Strip, strips
from deltaproof.report.drawing.svg import Style
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.figures.displacement import short
from deltaproof.report.grid import grid
from deltaproof.report.study import Study
from deltaproof.studies.quantiles import median_of

Result = dict[str, Any]
BASE = Style("axis", "circle", hollow=True)


def figure(study: Study, result: Result) -> Figure:
    methods = result["methods"]
    panels = (_slopes(study, methods), _radii(study, methods))
    return Figure(
        "local-slopes",
        "How steep the models are, and how far answers hold",
        f"At {result['n_lipschitz_examples']} validation examples and every seed, base (hollow, under the same head) "
        "and tuned model: lines hold 90 % of them, bars the middle half. Slopes: how much the logits change per "
        "unit of change in the input's vectors. Tuning makes logits larger and slopes with them, so a steeper model "
        "need not be more fragile. How far answers hold sets the margin between the two best answers against the "
        "slope, to first order: further right is sturdier.",
        tuple(panel for panel in panels if panel is not None),
        grid(
            "Slopes and radii, medians",
            ("Method", "Slope of the base", "Slope of the tuned", "Ratio", "Base holds, %", "Tuned holds, %"),
            [
                [
                    method["label"],
                    *(short(_median(method, end, "lipschitz")) for end in ("base", "tuned")),
                    short(median_of((method["slopes"] or {}).get("ratio"))),
                    *(short(100 * _median(method, end, "relative_radius")) for end in ("base", "tuned")),
                ]
                for method in methods
            ],
        ),
        columns=2,
    )


def _median(method: Result, end: str, name: str) -> float:
    return median_of(((method["slopes"] or {}).get(end) or {}).get(name))


def _slopes(study: Study, methods: Sequence[Result]) -> Panel | None:
    rows: list[Strip] = []
    found: list[Spread] = []
    for method in methods:
        ratio = median_of((method["slopes"] or {}).get("ratio"))
        spreads = _base_and_tuned(study, method, "lipschitz")
        text = f"{short(ratio)} times the base's" if spreads and ratio == ratio else "not measured"
        rows.append(Strip(method["label"], text, spreads))
        found += spreads
    return _beside("Slopes", "slope of the logits", "Largest slope of the logits in the input's vectors.", rows, found)


def _radii(study: Study, methods: Sequence[Result]) -> Panel | None:
    rows: list[Strip] = []
    found: list[Spread] = []
    for method in methods:
        spreads = _base_and_tuned(study, method, "relative_radius", 100.0)
        text = f"median {short(spreads[-1].values[2])} %" if spreads else "not measured"
        rows.append(Strip(method["label"], text, spreads))
        found += spreads
    title = "shift of the input, % of its length"
    return _beside("How far answers hold", title, "Shift of the input within which no answer changes.", rows, found)


def _base_and_tuned(study: Study, method: Result, name: str, unit: float = 1.0) -> tuple[Spread, ...]:
    """Both where both are there, on a logarithmic axis; else none."""
    label, found = method["label"], []
    for end, style in (("base", BASE), ("tuned", study.style(label))):
        values = ((method["slopes"] or {}).get(end) or {}).get(name)
        if values and min(values) > 0:
            scaled = [unit * value for value in values]
            found.append(Spread(style, scaled, f"{label}, {end}: median {short(scaled[2])}"))
    return tuple(found) if len(found) == 2 else ()


def _beside(heading: str, title: str, what: str, rows: list[Strip], found: Sequence[Spread]) -> Panel | None:
    if not found:
        return None
    values = [value for spread in found for value in spread.values]
    axis = Axis(title, *padded(values, 0.08, log=True), lambda value: f"{value:g}", log=True)
    return Panel(
        heading, f"{what} " + " ".join(f"{row.name}: {row.text}." for row in rows), strips(rows, axis, width=HALF)
    )
