"""`suite.json`: what every task of a suite came to, made from its run folder; plain data, without torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltaproof.experiments.table import Table, table_from
from deltaproof.records.store import Store, write_json

if TYPE_CHECKING:
    from deltaproof.experiments.suite_plan import SuitePlan, SuiteRun

FILE_NAME = "suite.json"
_MAY_DIFFER = {"trials", "keep", "workers", "memory", "device", "engine", "address", "reuse"}
"""Fields of a plan that do not decide what its results say, or that the run itself settles."""
Entry = dict[str, Any]
Document = dict[str, Any]


def new_suite(plan: "SuitePlan", names: list[str], studies: list[str], created: str) -> Document:
    """The document before the first run: every task of the plan, those that will not be run with the reason."""
    return {
        "format": 1,
        "title": plan.title,
        "about": list(plan.about),
        "created": created,
        "finished": None,
        "studies": studies,
        "paper_reference_values": plan.paper_reference_values,
        "tasks": [_new_entry(plan, name, name in names) for name in plan.tasks],
    }


def _new_entry(plan: "SuitePlan", name: str, is_chosen: bool) -> Entry:
    task = plan.tasks[name]
    if task.needs:
        status, reason = "not_run", f"needs {task.needs}"
    elif not is_chosen:
        status, reason = "left_out", "not among the tasks asked for"
    else:
        status, reason = "planned", ""
    return {
        "name": name,
        "title": task.title or name,
        "category": task.category,
        "note": task.note,
        "source": task.plan.get("data", ""),
        "status": status,
        "reason": reason,
        "estimated_seconds": None,
        "result": None,
        "adversarial": [],
        "study_errors": {},
    }


def with_estimate(entry: Entry, table: Table) -> None:
    """Enter what a task is expected to take."""
    entry["status"], entry["estimated_seconds"] = "estimated", table.experiment["estimated_seconds"]


def with_error(entry: Entry, reason: str) -> None:
    """Enter why a task did not come through."""
    entry["status"], entry["reason"] = "failed", reason


def with_result(entry: Entry, table: Table) -> None:
    """Enter what a task's records show, and its adversarial sets where they were measured."""
    experiment = table.experiment
    entry["status"] = "done" if experiment.get("finished") else "unfinished"
    entry["reason"] = "; ".join(table.failures)
    entry["estimated_seconds"] = experiment.get("estimated_seconds")
    entry["result"] = _plain({
        **table.to_json(),
        "unit": table.metric.unit,
        "folder": entry["name"],
        "source": experiment["plan"]["data"],
        "seeds": experiment["plan"]["seeds"],
        "trials": experiment["plan"]["trials"],
        "max_length": experiment["task"]["max_length"],
        "measured_seconds": experiment.get("measured_seconds"),
        "versions": experiment["environment"].get("versions", {}),
    })  # fmt: skip
    with_studies(entry, Path(table.folder))


def with_studies(entry: Entry, folder: Path) -> None:
    """Enter what studies of a task's run folder measured, now or since."""
    found = Store(folder).studies().get("robustness") or {}
    entry["adversarial"] = _plain([made for made in found.get("sets", []) if made.get("kind") == "adversarial"])


def with_what_stands(entry: Entry, run: "SuiteRun") -> None:
    """Enter the result of a task that is not run now, where its folder holds a finished one under the same plan."""
    store = Store(run.folder)
    if not (run.folder / "experiment.json").exists():
        return
    experiment = store.experiment()
    wanted = run.plan.model_dump(mode="json")
    usual = type(run.plan).model_fields
    held = {field: experiment["plan"].get(field, usual[field].default) for field in wanted}  # a field may be new
    if any(held[field] != value for field, value in wanted.items() if field not in _MAY_DIFFER):
        entry["reason"] += "; its folder holds a run under another plan"
    elif experiment.get("finished"):
        with_result(entry, table_from(store, experiment))


def write_suite(out: Path, document: Document) -> None:
    write_json(out / FILE_NAME, document)


def _plain(data: Any) -> Any:
    """The same as JSON holds it; what is not finite becomes None."""
    return json.loads(json.dumps(data, default=float), parse_constant=lambda _: None)
