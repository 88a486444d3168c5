"""Layer by role: how large each change is beside its weight, how its rank differs from noise, where intruders are."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deltaproof.report.drawing.heatmap import HeatCell, heat_map
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.figures.weights import in_layers, role_name, roles_of, with_matrices
from deltaproof.report.grid import grid
from deltaproof.report.numbers import mean_of
from deltaproof.report.study import Study

Result = dict[str, Any]
_SPAN = 1000.0
"""Changes smaller than the largest by more than this factor are all palest."""


@dataclass(frozen=True)
class Quantity:
    """What a map shows of each matrix."""

    name: str
    title: str
    caption: str
    of: Callable[[Result], float | None]
    text: Callable[[float], str]
    unit: str
    is_log: bool = False
    most: float | None = None
    """What the deepest tint stands for; the largest value there is, when None."""


def _robust(row: Result) -> float | None:
    return None if row["intruders"] is None else row["intruders"]["n_robust"]


def _plain(value: float) -> str:
    return f"{value:.0f}" if value == round(value) or value >= 9.95 else f"{value:.1f}"


def _percent(value: float) -> str:
    """Two digits of a percentage, without its sign."""
    percent = 100 * value
    return (
        f"{percent:.0f}"
        if percent >= 9.95 or percent == 0
        else f"{percent:.1f}"
        if percent >= 0.95
        else f"{percent:.1g}"
    )


QUANTITIES = (
    Quantity(
        "change-sizes",
        "How large each change is",
        "Spectral norm of the change as a share of the weight's own, |D|₂ / |W0|₂ in %, mean over the seeds. Strong "
        "tints are where a method works; rows and columns with little tint are candidates to leave out, with "
        "`on_layers(…)` or fewer roles. At the same total size a change of low rank has the larger spectral norm, "
        "since it is spread over fewer directions.",
        lambda row: row["ratio_2"],
        _percent,
        "%",
        is_log=True,
    ),
    Quantity(
        "ranks-over-noise",
        "How many directions each change needs",
        "r90, the rank that holds 90 % of a change's energy, in % of what Gaussian noise of the same shape would need; "
        "mean over the seeds. Near 100 the rank says no more than that of noise would; weak tints are changes of few "
        "directions, which a low rank could hold.",
        lambda row: row["r90_over_noise"],
        _percent,
        "%",
        most=1.0,
    ),
    Quantity(
        "intruders",
        "Intruder dimensions",
        "How many of the ten leading singular vectors of each tuned weight resemble none of the base's (cosine "
        "below 0.5) and lie, for the most part, outside of what noise as large as the change would mix; mean over "
        "the seeds. Shuttleworth et al. (2024) found such vectors under LoRA and tied them to forgetting. Matrices "
        "outside of layers are counted in the table of updates alone.",
        _robust,
        _plain,
        "",
        most=10.0,
    ),
)


def figures(study: Study, result: Result) -> list[Figure]:
    """One figure per quantity, one panel per method."""
    made = [_figure(study, result, quantity) for quantity in QUANTITIES]
    return [figure for figure in made if figure.panels]


def cells_of(method: Result, quantity: Quantity) -> dict[tuple[int, str], float]:
    """By layer and role; the mean where a layer has several matrices of a role."""
    found: dict[tuple[int, str], list[float | None]] = {}
    for row in in_layers(method):
        found.setdefault((int(row["layer"]), row["role"]), []).append(quantity.of(row))
    means = {place: mean_of(values) for place, values in found.items()}
    return {place: mean for place, mean in means.items() if mean is not None}


def _figure(study: Study, result: Result, quantity: Quantity) -> Figure:
    by_method = {method["label"]: cells_of(method, quantity) for method in with_matrices(result)}
    by_method = {label: cells for label, cells in by_method.items() if cells}
    roles = roles_of([row for method in with_matrices(result) for row in in_layers(method)])
    values = [value for cells in by_method.values() for value in cells.values()]
    shade, key = _shades(values, quantity)
    layers = {layer for cells in by_method.values() for layer, _ in cells}
    depth = sorted(layers)
    return Figure(
        quantity.name,
        quantity.title,
        quantity.caption + _tint(quantity),
        tuple(
            Panel(label, _description(label, cells, quantity), _draw(label, cells, depth, roles, quantity, shade, key))
            for label, cells in by_method.items()
        ),
        grid(
            quantity.title + (f", {quantity.unit}" if quantity.unit else ""),
            ("Method", "Layer", *map(role_name, roles)),
            [
                [label, f"{layer + 1}", *(_text(cells.get((layer, role)), quantity) for role in roles)]
                for label, cells in by_method.items()
                for layer in sorted({layer for layer, _ in cells})
            ],
        ),
        columns=3,
    )


def _tint(quantity: Quantity) -> str:
    return " Tints go by the logarithm, one scale for all methods." if quantity.is_log else ""


def _text(value: float | None, quantity: Quantity) -> str:
    return "–" if value is None else quantity.text(value)


def _shades(values: Sequence[float], quantity: Quantity) -> tuple[Callable[[float], float], tuple[str, str]]:
    """From a value to its tint, and what the ends of the scale are called."""
    top = quantity.most or max([*values, 0.0]) or 1.0
    if not quantity.is_log:
        return lambda value: value / top, ("0", quantity.text(top))
    low = max(min([value for value in values if value > 0], default=top), top / _SPAN)
    span = math.log(top / low) or 1.0

    def shade(value: float) -> float:
        return 0.08 + 0.92 * max(0.0, math.log(value / low) / span) if value > 0 else 0.0

    return (shade if top > low else lambda value: 0.5), (quantity.text(low), quantity.text(top))


def _draw(
    label: str,
    cells: dict[tuple[int, str], float],
    layers: Sequence[int],
    roles: Sequence[str],
    quantity: Quantity,
    shade: Callable[[float], float],
    key: tuple[str, str],
) -> Drawing:
    places = {
        (layers.index(layer), roles.index(role)): HeatCell(
            quantity.text(value),
            shade(value),
            f"{label}, layer {layer + 1}, {role_name(role)}: {quantity.text(value)} {quantity.unit}".rstrip(),
        )
        for (layer, role), value in cells.items()
    }
    names = [f"{layer + 1}" for layer in layers]
    return heat_map(names, [role_name(role) for role in roles], places, "layer", "", tallest=20, key=key)


def _description(label: str, cells: dict[tuple[int, str], float], quantity: Quantity) -> str:
    (low_at, low), (high_at, high) = (end(cells.items(), key=lambda item: item[1]) for end in (min, max))
    unit = f" {quantity.unit}" if quantity.unit else ""
    return (
        f"{quantity.title}, {label}, by layer and role: from {quantity.text(low)}{unit} (layer {low_at[0] + 1}, "
        f"{role_name(low_at[1])}) to {quantity.text(high)}{unit} (layer {high_at[0] + 1}, {role_name(high_at[1])})."
    )
