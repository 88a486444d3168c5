"""The page of a suite: an index over its tasks' own pages, with the tables and the forest plot over all of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from deltaproof.experiments import wording
from deltaproof.records.store import write_atomically
from deltaproof.report import suite_compression
from deltaproof.report import suite_tables as tables
from deltaproof.report.drawing.theme import DARK, LIGHT, css_variables
from deltaproof.report.figure import swatch
from deltaproof.report.figures import suite_forest
from deltaproof.report.numbers import plural
from deltaproof.report.origin import day_of, version_of
from deltaproof.report.rendering import render
from deltaproof.report.suite import SuiteResult

FILE_NAME = "report.html"


@dataclass(frozen=True)
class Fact:
    """A term of the protocol and what it is here."""

    term: str
    text: str


def write_suite_page(out: Path, document: dict[str, Any]) -> Path:
    """Write `report.html` to the suite's folder, whole or not at all; returns its path."""
    path = out / FILE_NAME
    write_atomically(path, suite_page(document))
    return path


def suite_page(document: dict[str, Any]) -> str:
    """The page as text, from what `suite.json` holds."""
    suite = SuiteResult(document)
    has_results = bool(suite.run)
    versions_known = (run.result["versions"] for run in suite.run if run.result["versions"].get("deltaproof"))
    return render(
        "suite.html",
        title=document["title"],
        about=document["about"],
        date=day_of(document.get("finished") or document.get("created")),
        is_finished=bool(document.get("finished")),
        what=_what(suite),
        sentences=sentences(suite),
        results=tables.results(suite) if has_results else None,
        verdicts=tables.verdicts(suite) if has_results else None,
        forest=suite_forest.figure(suite) if has_results else None,
        adversarial=tables.adversarial(suite) if has_results else None,
        compression=suite_compression.blocks(document, suite) if has_results else [],
        tasks=tables.tasks(suite) if has_results else None,
        not_run=tables.not_run(suite),
        troubles=tables.troubles(suite),
        facts=_facts(suite),
        version=version_of(next(versions_known, {})),
        swatch=swatch,
        style=Markup(render("style.css")),
        light=Markup(css_variables(LIGHT)),
        dark=Markup(css_variables(DARK)),
    )


def sentences(suite: SuiteResult) -> list[str]:
    """What was found, in one sentence for each category and method."""
    found = []
    for category, run in suite.categories.items():
        for method in suite.methods:
            counts = suite.verdicts(method, category)
            if counts:
                said = ", ".join(f"{verdict} on {n}" for verdict, n in counts.items())
                found.append(
                    f"{category}, {method} against {run[0].result['reference']}: {said} of {plural(len(run), 'task')}."
                )
    return found


def _what(suite: SuiteResult) -> str:
    categories = f" in {plural(len(suite.categories), 'category')}".replace("categorys", "categories")
    more = f"; {len(suite.not_run)} stand without a result" if suite.not_run else ""
    return f"{plural(len(suite.run), 'task')} measured{categories if suite.run else ''}{more}"


def _facts(suite: SuiteResult) -> list[Fact]:
    def each(field: str) -> str:
        return ", ".join(dict.fromkeys(str(task.result[field]) for task in suite.run))

    if not suite.run:
        return []
    models = dict.fromkeys(
        f"{task.result['model']['name']} ({wording.count(task.result['model']['n_parameters'])} parameters)"
        for task in suite.run
    )
    seconds = [task.result["measured_seconds"] for task in suite.run if task.result["measured_seconds"]]
    told = [task.entry["estimated_seconds"] for task in suite.run if task.entry["estimated_seconds"]]
    facts = [
        Fact("Model", ", ".join(models)),
        Fact("Final runs per method", f"{each('seeds')} seeds"),
        Fact("Tuning", _tuning(each("trials"))),
        Fact("Tokens per example, at most", each("max_length")),
        Fact("Trainings took", f"{wording.duration(sum(seconds))}; estimated were {wording.duration(sum(told))}"),
    ]
    if suite.document["studies"]:
        facts.append(Fact("Studies of each task", ", ".join(suite.document["studies"])))
    return facts


def _tuning(trials: str) -> str:
    if trials == "1":
        return "one learning rate for each method, so nothing to choose"
    return f"{trials} learning rates for each method, chosen on validation"
