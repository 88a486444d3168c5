"""`experiment.json`: the plan as resolved, the facts of data and model, and the keys of the runs as they end."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from deltaproof.data.dataset import Dataset
from deltaproof.experiments.resolve import Resolved
from deltaproof.records.store import Store

Document = dict[str, Any]
PLACES = ("engine", "address", "memory", "reuse")
"""Fields of a plan that say where its runs take place or stand already, and decide nothing else."""


def new_document(resolved: Resolved) -> Document:
    """The document as it stands before the first run."""
    plan, facts = resolved.plan, resolved.facts
    return {
        "format": 1,
        "name": resolved.store.folder.resolve().name,
        "created": now(),
        "finished": None,
        "plan": plan.model_dump(mode="json"),
        "data": _data(resolved),
        "model": {
            "name": plan.model,
            "fingerprint": facts.fingerprint,
            "revision": facts.revision,
            "n_parameters": facts.n_parameters,
            "notes": list(facts.notes),
        },
        "task": resolved.task.to_json(),
        "margin": resolved.margin,
        "alpha": plan.alpha,
        "look": None,
        "reference": plan.reference_label,
        "fallback_reference": plan.fallback_reference_label,
        "device": facts.device,
        "precision": facts.precision,
        "workers": resolved.slots.n_workers,
        "threads": resolved.slots.n_threads,
        "environment": facts.environment,
        "contestants": [
            {
                "name": name,
                "method": method.to_dict(),
                "centre": method.grid_centre,
                "trials": [],
                "learning_rate": None,
                "at_edge": False,
                "status": None,
                "final": [],
                "notes": [],
                "estimate": None,
                "measured": None,
            }
            for name, method in resolved.contestants.items()
        ],
        "baselines": [],
        "estimated_seconds": None,
        "measured_seconds": None,
    }


def _data(resolved: Resolved) -> dict[str, Any]:
    dataset = resolved.dataset
    return {
        "name": dataset.name,
        "kind": dataset.kind,
        "labels": dataset.labels,
        "text_columns": list(dataset.text_columns),
        "label_column": dataset.label_column,
        "fingerprint": dataset.fingerprint,
        "rows": asdict(resolved.rows),
        "notes": list(dataset.notes),
        "truncated_fraction": resolved.facts.truncated_fraction,
        "openings": len(dataset.test.openings()),
        "class_counts": _class_counts(dataset),
    }


def _class_counts(dataset: Dataset) -> dict[str, int] | None:
    if dataset.kind != "classification" or not dataset.labels:
        return None
    classes = dataset.train.targets[:, 0].astype(int)
    return {label: int((classes == at).sum()) for at, label in enumerate(dataset.labels)}


def write_document(store: Store, document: Document) -> None:
    """Write the document, unless a finished one of the same experiment stands there and this one is not finished.

    Two processes may work on one folder, and a finished experiment may be run again: neither makes it unfinished.
    """
    if document["finished"] is None and (store.folder / "experiment.json").exists():
        before = store.experiment()
        if before["finished"] is not None and _identity(before) == _identity(document):
            return
    store.write_experiment(document)


def trials_before(store: Store, document: Document) -> int | None:
    """Trials per contestant that the same plan came to when it began here; None where it begins now.

    How many fit a budget in minutes depends on the moment; an experiment that goes on keeps to what it began with.
    """
    if not (store.folder / "experiment.json").exists():
        return None
    before = store.experiment()
    trials: int = before["plan"]["trials"]
    same = {**_what(before), "trials": None} == {**_what(document), "trials": None}
    return trials if same and document["plan"]["budget"]["minutes"] is not None else None


def _identity(document: Document) -> list[Any]:
    return [_what(document), document["data"]["fingerprint"], document["model"], document["environment"]["versions"]]


def _what(document: Document) -> dict[str, Any]:
    """The plan, wherever it is carried out."""
    return {field: value for field, value in document["plan"].items() if field not in PLACES}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
