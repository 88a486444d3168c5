"""What is known of a tuned model, as data: by whom it was measured, on what, and with which gates it was shipped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltaproof import __version__
from deltaproof.errors import DeltaproofError
from deltaproof.experiments.table import Table, table_from
from deltaproof.records.record import Record
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store
from deltaproof.shipping.gate import Gate
from deltaproof.tasks.text import TextTask


@dataclass(frozen=True)
class Run:
    """The experiment that a tuned model is from."""

    store: Store
    table: Table
    record: Record


def run_of(folder: Path) -> Run | None:
    """The run folder around a tuned model's folder; None for one that was moved away from it."""
    place = folder.resolve()
    store = Store(place.parent.parent)
    if place.parent.name != "tuned" or not (store.folder / "experiment.json").is_file():
        return None
    try:
        record = store.find(place.name)
        return None if record is None else Run(store, table_from(store), record)
    except DeltaproofError:
        return None


def evidence(
    spec: dict[str, Any], task: TextTask, run: Run | None, to: str, base: str, licence: str | None,
    gates: list[Gate], stored_as: str = "fp32",
) -> dict[str, Any]:  # fmt: skip
    """Plain data for `evidence.json`: base, method, protocol, data, scores with intervals, gates."""
    key = Spec(**{**spec, "parents": tuple(spec.get("parents", ()))}).key
    return {
        "format": 1,
        "made_by": f"deltaproof {__version__}",
        "to": to,
        "stored_as": stored_as,
        "record": key,
        "base": {**spec["model"], "name": base},
        "contestant": spec["contestant"],
        "method": spec["method"],
        "seed": spec["seed"],
        "task": task.to_json(),
        "data": spec.get("data", {}),
        "training": spec.get("training", {}),
        "license": licence,
        "scores": [] if run is None else _scores(spec["contestant"], run),
        "comparison": None if run is None else _comparison(spec["contestant"], run),
        "gates": [gate.to_json() for gate in gates],
    }


def _scores(contestant: str, run: Run) -> list[dict[str, Any]]:
    """Each metric: this model's own, and the method's mean over seeds and test examples with its 95 % interval."""
    row = run.table.row(contestant)
    return [
        {
            "metric": name,
            "this_model": run.record.test.get(name),
            "mean": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "n_seeds": len(row.keys),
        }
        for name, interval in row.scores.items()
    ]


def _comparison(contestant: str, run: Run) -> dict[str, Any] | None:
    found = run.table.row(contestant).comparison
    if found is None:
        return None
    return {
        "reference": run.table.reference,
        "verdict": found.verdict,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "margin": run.table.margin,
    }
