"""The tables of a suite's page: results in the layout of papers, clean against adversarial, tasks, what was not run."""

from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS
from deltaproof.report.grid import Cell, Grid, Section, grid
from deltaproof.report.numbers import ENDINGS, SIGNS, interval, metric_name, plural
from deltaproof.report.suite import SuiteResult, TaskResult

NOTHING = Cell("–")
STATUS = {"not_run": "not run yet", "left_out": "left out", "failed": "failed", "planned": "not begun",
          "estimated": "not begun"}  # fmt: skip


def results(suite: SuiteResult) -> Grid:
    """Rows methods, columns tasks by category and their average; below, rows for the paper's values."""
    columns, groups = ["Method"], [("", 1)]
    for category, tasks in suite.categories.items():
        columns += [_heading(task) for task in tasks] + ["Average"]
        groups.append((category, len(tasks) + 1))
    sections = [Section(tuple(_measured(suite, method) for method in suite.methods), "Measured here")]
    if suite.baselines:
        sections.append(Section(tuple(_measured(suite, name) for name in suite.baselines), "Without fine-tuning"))
    sections.append(Section(tuple(_of_paper(suite, method) for method in suite.methods), "The paper's values"))
    note = (
        f"Test scores in hundredths, mean over seeds, with 95 % intervals over seeds and test examples. "
        f"{_legend(suite)} Verdicts are corrected for the comparisons within a task, not over the tasks. An average is "
        f"the plain mean of the tasks' scores and carries no interval. The paper's rows are empty until "
        f"someone who has the paper enters its values as `paper_reference_values`."
    )
    return Grid("Results on the test splits", tuple(columns), tuple(sections), (0,), note, tuple(groups))


def _legend(suite: SuiteResult) -> str:
    reference = suite.run[0].result["reference"]
    signs = ", ".join(f"{sign} {verdict}" for verdict, sign in SIGNS.items())
    return f"Signs against {reference}: {signs}."


def _heading(task: TaskResult) -> str:
    return f"{task.title}, {metric_name(METRICS[task.metric])}"


def _measured(suite: SuiteResult, method: str) -> tuple[Cell, ...]:
    cells = [Cell(method)]
    for category, tasks in suite.categories.items():
        cells += [_score(task, method) for task in tasks]
        mean = suite.average(method, category)
        cells.append(NOTHING if mean is None else Cell(wording.score(mean, "fraction")))
    return tuple(cells)


def _score(task: TaskResult, method: str) -> Cell:
    row = task.row(method)
    if row is None:
        return NOTHING
    if row["mean"] is None:
        return Cell(ENDINGS.get(row["status"], row["status"]), tone="warn", sign="!")
    reach = interval(row["low"], row["high"], task.unit)
    verdict = row["verdict"]
    if verdict is None:
        return Cell(task.score(row["mean"]), reach)
    return Cell(task.score(row["mean"]), reach, verdict.replace(" ", "-"), SIGNS[verdict])


def _of_paper(suite: SuiteResult, method: str) -> tuple[Cell, ...]:
    cells = [Cell(method)]
    for tasks in suite.categories.values():
        cells += [Cell(suite.paper(task.name, method)) for task in tasks] + [Cell("")]
    return tuple(cells)


def verdicts(suite: SuiteResult) -> Grid:
    """How often each verdict fell, by category."""
    lines = []
    for method in suite.methods:
        counts = [suite.verdicts(method, category) for category in suite.categories]
        if any(counts):
            lines.append([method, *(_counted(found) for found in counts)])
    columns = [f"{category}, {plural(len(tasks), 'task')}" for category, tasks in suite.categories.items()]
    return grid("How often each verdict fell", ("Method", *columns), lines, tuple(range(len(columns) + 1)))


def _counted(found: dict[str, int]) -> str:
    return ", ".join(f"{SIGNS[verdict]} {verdict} {n}" for verdict, n in found.items()) or "–"


def adversarial(suite: SuiteResult) -> Grid | None:
    """Clean against adversarial score, with the drop; None where no adversarial set was measured."""
    found = [(task, made) for task in suite.run for made in task.entry["adversarial"]]
    if not found:
        return None
    columns, groups = ["Method"], [("", 1)]
    for task, made in found:
        columns += ["Clean", "Adversarial", "Drop"]
        groups.append((f"{task.title}: {made['name']}, {made['n_examples']} rows", 3))
    measured = tuple(
        (Cell(method), *(cell for task, made in found for cell in _dropped(task, made, method)))
        for method in suite.methods
    )
    paper = tuple(
        (Cell(method), *(cell for task, made in found for cell in _dropped_in_paper(suite, task, made, method)))
        for method in suite.methods
    )
    note = (
        "A drop is the clean minus the adversarial score. A benchmark's adversarial sets are small and hold other rows "
        "than the test split: read the intervals, and each task's page for the flips at matched clean accuracy."
    )
    sections = (Section(measured, "Measured here"), Section(paper, "The paper's values"))
    return Grid("Clean and adversarial scores", tuple(columns), sections, (0,), note, tuple(groups))


def _dropped(task: TaskResult, made: dict[str, Any], method: str) -> list[Cell]:
    row = next((row for row in made["methods"] if row["label"] == method), None)
    if row is None:
        return [NOTHING] * 3
    return [_reach(task, row.get(part)) for part in ("clean", "perturbed", "drop")]


def _reach(task: TaskResult, found: dict[str, float] | None) -> Cell:
    if found is None:
        return NOTHING
    return Cell(task.score(found["mean"]), interval(found["low"], found["high"], task.unit))


def _dropped_in_paper(suite: SuiteResult, task: TaskResult, made: dict[str, Any], method: str) -> list[Cell]:
    clean, perturbed = suite.paper(task.name, method), suite.paper(f"{task.name}/{made['name']}", method)
    return [Cell(clean), Cell(perturbed), Cell("")]


def tasks(suite: SuiteResult) -> Grid:
    """What each task is, what was recommended and how long it took, with its own page."""
    lines = []
    for task in suite.run:
        result, rows = task.result, task.result["data"]["rows"]
        told = wording.duration(task.entry["estimated_seconds"])
        lines.append([
            Cell(task.title, href=f"{result['folder']}/report.html"),
            Cell(task.category),
            Cell(result["source"], task.entry["note"]),
            Cell(f"{rows['train']} / {rows['validation']} / {rows['test']}"),
            Cell(metric_name(METRICS[task.metric])),
            Cell(wording.amount(result["margin"], task.unit)),
            Cell(result["recommended"] or "–"),
            Cell(wording.duration(result["measured_seconds"]), f"estimated {told}"),
        ])  # fmt: skip
    columns = (
        "Task, with its page",
        "Category",
        "Data",
        "Rows: train / validation / test",
        "Metric",
        "Margin",
        "Recommended",
        "Trainings took",
    )
    return grid("Tasks that were run", columns, lines, (0, 1, 2, 4, 6))


def not_run(suite: SuiteResult) -> Grid | None:
    """Tasks without a result, and why; None where there are none."""
    lines = [
        [
            Cell(entry["title"]),
            Cell(entry["category"]),
            Cell(entry["source"]),
            Cell(STATUS.get(entry["status"], entry["status"]), tone="warn" if entry["status"] == "failed" else ""),
            Cell(entry["reason"]),
        ]
        for entry in suite.not_run
    ]
    if not lines:
        return None
    return grid("Tasks without a result", ("Task", "Category", "Data", "State", "Why"), lines, (0, 1, 2, 3, 4))


def troubles(suite: SuiteResult) -> list[str]:
    """What did not come through within tasks that have a result."""
    found = [f"{task.title}: {task.entry['reason']}" for task in suite.run if task.entry["reason"]]
    for task in suite.run:
        found += [f"{task.title}: the study {name} failed: {why}" for name, why in task.entry["study_errors"].items()]
    return found
