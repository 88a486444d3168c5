"""The page: one HTML file that needs nothing else, drawn from records alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from deltaproof.experiments import wording
from deltaproof.experiments.row import Row
from deltaproof.experiments.standings import Standings
from deltaproof.records.store import write_atomically
from deltaproof.report import protocol, tables
from deltaproof.report.chapters import all_chapters
from deltaproof.report.drawing.theme import DARK, LIGHT, css_variables
from deltaproof.report.examples import agreement, disagreements
from deltaproof.report.figure import swatch
from deltaproof.report.figures import all_figures
from deltaproof.report.figures.confusion import confused_pairs
from deltaproof.report.figures.pareto import memory_of
from deltaproof.report.numbers import interval, metric_name, metric_title, value
from deltaproof.report.origin import day_of, version_of
from deltaproof.report.plan_text import plan_toml
from deltaproof.report.rendering import render
from deltaproof.report.study import Study

FILE_NAME = "report.html"


@dataclass(frozen=True)
class Tile:
    """One number of the recommended contestant, beside the reference's."""

    term: str
    value: str
    detail: str


def write_report(table: Standings, *, with_examples: bool = True) -> Path:
    """Write `report.html` to the experiment's folder, whole or not at all; returns its path.

    Args:
        with_examples: show texts of test examples; False makes a page that can be shared without them, and without the
            folders that the plan names.
    """
    path = Path(table.folder) / FILE_NAME
    write_atomically(path, page(table, with_examples=with_examples))
    return path


def page(table: Standings, *, with_examples: bool = True) -> str:
    """The page as text."""
    study = Study(table)
    return render("page.html", **_context(study, with_examples))


def _context(study: Study, with_examples: bool) -> dict[str, Any]:
    table, experiment = study.table, study.experiment
    return {
        "study": study,
        "table": table,
        "data_name": experiment["data"]["name"],
        "n_test": (experiment["data"].get("rows") or {}).get("test"),
        "title": str(experiment["name"]),
        "model": Path(str(experiment["model"]["name"])).name or "model",
        "date": day_of(experiment.get("finished") or experiment.get("created")),
        "unfinished": _unfinished(table),
        "metric_name": metric_name(table.metric),
        "metric": table.metric,
        "margin": wording.amount(table.margin, table.metric.unit),
        "alpha": wording.share(table.alpha),
        "tiles": _tiles(table),
        "gate_value": lambda value: "–" if value is None else f"{value:.4g}",
        "results": tables.results(study),
        "every_metric": tables.every_metric(study),
        "figures": all_figures(study),
        "confused_pairs": confused_pairs(study),
        "label_scores": tables.label_scores(study),
        "agreement": agreement(study),
        "chapters": all_chapters(study),
        "with_examples": with_examples,
        "examples": disagreements(study) if with_examples else [],
        "costs": [
            grid
            for grid in (
                tables.training_costs(study),
                tables.use_costs(study),
                tables.measurements(study),
                tables.estimates(study),
            )
            if grid.sections[0].rows
        ],
        "spent": wording.duration(experiment.get("measured_seconds")) if experiment.get("measured_seconds") else "",
        "foretold": wording.duration(experiment.get("estimated_seconds"))
        if experiment.get("estimated_seconds")
        else "",
        "checks": protocol.checks(study),
        "facts": protocol.facts(study),
        "training": protocol.training_facts(study),
        "ledger": tables.ledger(study),
        "notes": protocol.notes(study),
        "environment": protocol.environment_facts(study),
        "plan": plan_toml(experiment["plan"], hide_folders=not with_examples),
        "folder": Path(table.folder).resolve().name,
        "version": version_of((experiment.get("environment") or {}).get("versions", {})),
        "swatch": swatch,
        "style": Markup(render("style.css")),
        "light": Markup(css_variables(LIGHT)),
        "dark": Markup(css_variables(DARK)),
    }


def _unfinished(table: Standings) -> str:
    """Which contestants have no result yet; empty for a finished experiment."""
    missing = [row.name for row in table.rows if row.status == "missing"]
    if missing:
        return f"still without results: {', '.join(missing)}"
    return "" if table.experiment.get("finished") else "its last steps have not run"


def _tiles(table: Standings) -> list[Tile]:
    """What the recommended contestant reaches and costs."""
    name = table.recommendation.name
    if name is None:
        return []
    chosen, reference = table.row(name), next((row for row in table.rows if row.name == table.reference), None)
    other = reference if reference is not None and reference.name != name and reference.status == "done" else None
    tiles = []
    score = chosen.scores.get(table.metric.name)
    if score is not None:
        unit = table.metric.unit
        beside = f"; {other.name}: {value(other.scores[table.metric.name].mean, unit)}" if other else ""
        tiles.append(
            Tile(metric_title(table.metric), value(score.mean, unit), interval(score.low, score.high, unit) + beside)
        )
    for term, of, write in (
        ("Peak memory", memory_of, wording.size),
        ("Training time", _of("train_seconds"), wording.duration),
        ("Stored per task", _of("stored_bytes"), wording.size),
    ):
        mine, theirs = of(chosen), of(other) if other else None
        if mine is not None:
            tiles.append(
                Tile(term, write(mine), f"{other.name}: {write(theirs)}" if other and theirs is not None else "")
            )
    return tiles


def _of(field: str) -> Any:
    def read(row: Row) -> float | None:
        return row.cost.get(field)

    return read
