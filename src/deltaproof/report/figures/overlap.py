"""Does a method change the weights in the directions in which full fine-tuning does? Beside what chance would give."""

from collections.abc import Sequence
from typing import Any

from deltaproof.report.drawing.heatmap import HeatCell, heat_map
from deltaproof.report.drawing.plot import HALF, PAGE, PANEL, Axis, Plot
from deltaproof.report.drawing.ranks import rank_axis
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.figures.weights import in_layers, percent
from deltaproof.report.grid import grid
from deltaproof.report.study import Study

Result = dict[str, Any]
CHANCE = Style("axis", "plus", hollow=True)
SIDES = {"out": "output side", "in": "input side"}


def compared(result: Result) -> list[Result]:
    """The methods whose directions were held against full fine-tuning's."""
    return [method for method in result["methods"] if method["against_full"]]


def name_of(method: Result) -> str:
    """Full fine-tuning itself is held against another seed of its own."""
    return f"{method['label']}, another seed" if method["label"] == "full" else str(method["label"])


def captured_figure(study: Study, result: Result) -> Figure:
    methods = compared(result)
    curves = {name_of(method): _known(method, "captured") for method in methods}
    styles = {name_of(method): study.style(method["label"]) for method in methods}
    widest = max((rank for curve in curves.values() for rank, _ in curve), default=0)
    chance = [(rank, share) for rank, share in captured_by_chance(methods) if rank <= widest]
    everything = {**curves, "chance": chance}
    panels: tuple[Panel, ...] = ()
    if any(curves.values()):
        description = "Share of full fine-tuning's energy by rank. " + " ".join(
            f"{name}: " + ", ".join(f"{percent(share)} at {rank}" for rank, share in curve) + "."
            for name, curve in everything.items()
            if curve
        )
        panels = (Panel("", description, *(_lines(everything, styles, width) for width in (PAGE, PANEL))),)
    return Figure(
        "captured-energy",
        "How much of full fine-tuning's update lies in a method's directions",
        "Energy of full fine-tuning's update inside the leading directions of output and input of each method's "
        "update, mean over matrices and seeds. A method that does the same thing with fewer directions comes near "
        "100 %. Full fine-tuning against another seed of its own shows what to expect at best, random "
        "directions are the least.",
        panels,
        grid(
            "Captured energy by rank",
            ("Method", "Rank", "Captured"),
            [[name, f"{rank}", percent(share)] for name, curve in everything.items() for rank, share in curve],
        ),
        (*styles.items(), ("chance", CHANCE)),
    )


def captured_by_chance(methods: Sequence[Result]) -> list[tuple[int, float]]:
    """(rank, share) that random directions would capture, r / m of the outputs times r / n of the inputs, at ranks that
    every matrix has; of the first method's matrices, as the others have the same shapes."""
    shapes = [row["shape"] for row in in_layers(methods[0])] if methods else []
    if not shapes:
        return []
    ranks = [rank for rank in methods[0]["against_full"]["ranks"] if all(rank <= min(shape) for shape in shapes)]
    return [(rank, sum(rank * rank / (m * n) for m, n in shapes) / len(shapes)) for rank in ranks]


def _known(method: Result, name: str) -> list[tuple[int, float]]:
    against = method["against_full"]
    return [(rank, value) for rank, value in zip(against["ranks"], against[name], strict=True) if value is not None]


def _lines(curves: dict[str, list[tuple[int, float]]], styles: dict[str, Style], width: float) -> Drawing:
    axis, place = rank_axis(
        "leading directions of the method", [rank for curve in curves.values() for rank, _ in curve]
    )
    top = max(share for curve in curves.values() for _, share in curve)
    plot = Plot(
        axis,
        Axis("captured energy, %", 0.0, 1.06 * min(1.0, top) or 1.0, lambda share: f"{100 * share:.3g}"),
        width,
        290 if width > PANEL else 250,
    )
    for name, curve in curves.items():
        style = styles.get(name, CHANCE)
        points = [plot.at(place(rank), share) for rank, share in curve]
        plot.drawing.path(points, style.colour, 1.8, style.dash)
        for point, (rank, share) in zip(points, curve, strict=True):
            plot.drawing.marker(point, style, 4.5, f"{name}, {rank} directions: {percent(share)}")
    return plot.drawing


def maps_figure(study: Study, result: Result) -> Figure:
    methods = compared(result)
    panels, lines = [], []
    for method in methods:
        ranks = method["against_full"]["ranks"]
        for side, side_name in SIDES.items():
            found, chance = method["against_full"][f"overlap_{side}"], chance_of(method, side)
            if not any(any_in(row) for row in found):
                continue
            panels.append(
                Panel(
                    f"{name_of(method)}: {side_name}",
                    _map_description(method, side_name, ranks, found, chance),
                    _map(ranks, found, chance),
                )
            )
            lines += [
                [name_of(method), side_name, f"{ranks[i]}", f"{ranks[j]}", percent(found[i][j]), percent(chance[i][j])]
                for i in range(len(ranks))
                for j in range(len(ranks))
                if found[i][j] is not None
            ]
    return Figure(
        "shared-directions",
        "Directions shared with full fine-tuning",
        "How much of the first i directions of a method (rows) and the first j of full fine-tuning (columns) is "
        "common, in %, mean over matrices and seeds. Tints begin where chance ends: a cell without tint shares no "
        "more than random directions would.",
        tuple(panels),
        grid(
            "Overlap of leading directions",
            ("Method", "Side", "Method's", "Full's", "Overlap", "By chance"),
            lines,
            (0, 1),
        ),
        columns=2,
    )


def any_in(row: Sequence[float | None]) -> bool:
    return any(value is not None for value in row)


def chance_of(method: Result, side: str) -> list[list[float]]:
    """Overlap of random directions, max(i, j) / d, mean over the matrices; d is the size of that side."""
    ranks = method["against_full"]["ranks"]
    sizes = [row["shape"][0 if side == "out" else 1] for row in in_layers(method)]
    if not sizes:
        found: list[list[float]] = method["against_full"]["by_chance"]
        return found
    return [[sum(min(1.0, max(i, j) / size) for size in sizes) / len(sizes) for j in ranks] for i in ranks]


def _map(ranks: Sequence[int], found: list[list[float | None]], chance: list[list[float]]) -> Drawing:
    rows = [at for at, row in enumerate(found) if any_in(row)]
    columns = [at for at in range(len(ranks)) if any(row[at] is not None for row in found)]
    cells = {}
    for row, i in enumerate(rows):
        for column, j in enumerate(columns):
            value = found[i][j]
            if value is not None:
                beyond = max(0.0, value - chance[i][j]) / max(1e-9, 1 - chance[i][j])
                title = f"{ranks[i]} and {ranks[j]}: {percent(value)}, by chance {percent(chance[i][j])}"
                cells[row, column] = HeatCell(f"{100 * value:.0f}", beyond**0.5, title)
    first, second = ([f"{ranks[at]}" for at in kept] for kept in (rows, columns))
    return heat_map(
        first, second, cells, "method's", "first directions of full fine-tuning", 30, ("chance", "all"), HALF
    )


def _map_description(
    method: Result, side: str, ranks: Sequence[int], found: list[list[float | None]], chance: list[list[float]]
) -> str:
    diagonal = [
        f"{percent(found[at][at])} of the first {rank} (chance: {percent(chance[at][at])})"
        for at, rank in enumerate(ranks)
        if found[at][at] is not None
    ]
    return f"Overlap of {name_of(method)} with full fine-tuning, {side}: {', '.join(diagonal) or 'none known'}."
