"""What compression dropped: how much of each singular direction of the update is left, and the error by role."""

from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS
from deltaproof.report.drawing.plot import PAGE, PANEL, Axis, Plot
from deltaproof.report.drawing.scales import padded
from deltaproof.report.drawing.svg import Drawing, Style
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import Cell, Grid, Section
from deltaproof.report.numbers import mean_of, metric_title, value
from deltaproof.studies.compression_findings import PRUNED, STC
from deltaproof.studies.compression_text import at_density, is_largest, models_of, scale_words

Result = dict[str, Any]
_SHAPES = ("circle", "square", "up", "down", "plus", "right")


def figure(result: Result) -> Figure:
    names = _densities(result)
    styles = {name: Style(f"series-{at % 6 + 1}", _SHAPES[at % 6]) for at, name in enumerate(names)}
    curves = {entry["label"]: _curves(result, entry) for entry in result["contestants"]}
    shown = {label: found for label, found in curves.items() if found}
    panels = tuple(
        Panel(
            label,
            _description(label, found),
            *(_draw(found, styles, width) for width in ((PAGE, PANEL) if len(shown) == 1 else (PANEL,))),
        )
        for label, found in shown.items()
    )
    lines = [
        (Cell(label), Cell(name), Cell(f"{at}"), Cell(f"{left:.3f}"), Cell(wording.share(energy)))
        for label, found in shown.items()
        for name, points in found.items()
        for at, left, energy in points
    ]
    return Figure(
        "compression-dropped",
        "What is left of the update's directions",
        "The change of each weight matrix is a sum of singular directions, the first the strongest. A mark is how much "
        "of a direction the compressed update still has along it: 1 all of it, 0 nothing, more than 1 too much, which "
        "a large scale brings about. Means over matrices, weighed by their energy there, at the "
        "scale that was chosen; large embeddings are left out.",
        panels,
        Grid("Directions by density", ("Method", "Density", "Direction", "Left", "Energy of the direction"),
             (Section(tuple(lines)),), (0, 1)),
        tuple((f"density {name}", styles[name]) for name in names),
        min(3, len(panels)) or 1,
    )  # fmt: skip


def _densities(result: Result) -> list[str]:
    return list(dict.fromkeys(name for entry in result["contestants"] for name in entry["densities"]))


def _curves(result: Result, entry: Result) -> dict[str, list[tuple[int, float, float]]]:
    """By density: the number of a direction, what is left of it and its energy, averaged over kept models."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for name in entry["densities"]:
        by_number: dict[int, list[tuple[float, float]]] = {}
        for model in models_of(result, entry["label"]):
            for at in at_density(model, name)["dropped"]["directions"]:
                by_number.setdefault(at["direction"], []).append((at["left"], at["energy"]))
        points = [
            (number, mean_of(left for left, _ in here) or 0.0, mean_of(energy for _, energy in here) or 0.0)
            for number, here in sorted(by_number.items())
        ]
        if points:
            found[name] = points
    return found


def _draw(curves: dict[str, list[tuple[int, float, float]]], styles: dict[str, Style], width: float) -> Drawing:
    numbers = [number for points in curves.values() for number, _, _ in points]
    low, high = padded([0.0, 1.0, *(left for points in curves.values() for _, left, _ in points)], 0.06)
    plot = Plot(
        Axis("singular direction, strongest first (by factors)", *padded([float(n) for n in numbers], 0.05, log=True),
             lambda number: f"{number:g}", log=True),
        Axis("left of the direction", low, high, lambda left: f"{left:.2g}"),
        width, 300 if width > PANEL else 260,
    )  # fmt: skip
    for level in (0.0, 1.0):
        plot.drawing.line((plot.left, plot.y(level)), (plot.right, plot.y(level)), "ink", 1.1, "5 4")
    for name, points in curves.items():
        style = styles[name]
        plot.drawing.path([plot.at(number, left) for number, left, _ in points], style.colour, 1.6)
        for number, left, _ in points:
            plot.drawing.marker(plot.at(number, left), style, 3.2, f"density {name}, direction {number}: {left:.2f}")
    return plot.drawing


def _description(label: str, curves: dict[str, list[tuple[int, float, float]]]) -> str:
    told = [
        f"at density {name} {points[0][1]:.2f} of the first direction and {points[-1][1]:.2f} of number {points[-1][0]}"
        for name, points in curves.items()
    ]
    return f"What is left of the directions of {label}: {'; '.join(told)}."


def by_role(result: Result) -> Grid:
    """The relative error of each role's weights at each density, with the share of energy that role holds."""
    names = _densities(result)
    sections = tuple(
        Section(tuple(_role_rows(result, entry, names)), entry["label"])
        for entry in result["contestants"]
        if entry["densities"]
    )
    note = (
        "Relative error: length of what is lost over length of the change, in the weights as the model uses them; the "
        "cosine of the two changes below it. Kept energy: share of the sum of squares of what is compressed (factors, "
        "gains or weights) that lies in the kept entries, what pruning alone would keep. Beside: energy of the "
        "compressed change that lies in no direction of the update, as a share of the update's: noise that ternary "
        "values add. At scales above that of least error the error exceeds 1 while directions are kept."
    )
    columns = ("Weights", "Energy", *(f"Density {name}" for name in names))
    return Grid("What was dropped, by role", columns, sections, (0,), note)


def _role_rows(result: Result, entry: Result, names: list[str]) -> list[tuple[Cell, ...]]:
    models = models_of(result, entry["label"])
    at = {name: [at_density(model, name) for model in models] for name in names if name in entry["densities"]}
    every = [role["role"] for found in at.values() for one in found for role in one["dropped"]["roles"]]
    rows = [(Cell("all"), Cell("100 %"), *(_error([one["dropped"] for one in at.get(name, [])]) for name in names))]
    for role in dict.fromkeys(every):
        found = {name: [each for one in here for each in one["dropped"]["roles"] if each["role"] == role]
                 for name, here in at.items()}  # fmt: skip
        energy = mean_of(each["energy"] for here in found.values() for each in here)
        rows.append((Cell(role.replace("_", " ")), Cell("–" if energy is None else wording.share(energy)),
                     *(_error(found.get(name, [])) for name in names)))  # fmt: skip
    for title, field in (("kept energy", "kept_energy"), ("beside", "beside")):
        values = [mean_of({**one["dropped"], **one}[field] for one in at.get(name, [])) for name in names]
        rows.append((Cell(title), Cell("–"), *(Cell("–" if v is None else wording.share(v)) for v in values)))
    return rows


def _error(found: list[dict[str, Any]]) -> Cell:
    error, cosine = mean_of(one["relative_error"] for one in found), mean_of(one["cosine"] for one in found)
    if error is None:
        return Cell("–")
    return Cell(f"{error:.2f}", "" if cosine is None else f"cosine {cosine:.2f}")


def tried(result: Result) -> Grid:
    """On validation: the chosen setting beside the scale of least error, pruning alone and STC."""
    unit = METRICS[result["metric"]].unit
    columns = (
        "Density", "Chosen", "Scale", "Least error, same scope", "Pruned alone", "STC",
    )  # fmt: skip
    sections = []
    for entry in result["contestants"]:
        models = models_of(result, entry["label"])
        rows = tuple(_tried(result, model, name, unit) for model in models for name in entry["densities"])
        before = value(mean_of(model["validation"]["before"] for model in models), unit)
        if rows:
            sections.append(Section(rows, f"{entry['label']}: {before} as tuned"))
    note = (
        "Pruned alone keeps the entries with their own values, which no ternary file holds: what it scores more is the "
        "price of equal magnitudes. STC is one threshold and the mean magnitude for all tensors. The chosen is the "
        "best of several on these very rows, so a little too good here; the test rows do not share that."
    )
    title = metric_title(METRICS[result["metric"]], "validation ")
    return Grid(f"What was tried: {title}", columns, tuple(sections), (0, 2), note)


def _tried(result: Result, model: Result, name: str, unit: str) -> tuple[Cell, ...]:
    at = at_density(model, name)
    points, chosen = at["points"], at["chosen"]
    scope = chosen.partition(":")[0]

    def score(point: str) -> Cell:
        found = points.get(point)
        if found is None or found["validation"] is None:
            return Cell("refused" if found else "–")
        return Cell(value(found["validation"], unit))

    return (
        Cell(name, f"seed {model['seed']}"),
        score(chosen),
        Cell(scale_words(chosen), "the largest tried" if is_largest(result, chosen) else ""),
        score(f"{scope}:auto"),
        score(f"{scope}:{PRUNED}"),
        score(STC),
    )
