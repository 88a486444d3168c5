"""The drop at equal clean accuracy: regressed over final models and snapshots, from their stored answers."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from deltaproof.errors import DataError
from deltaproof.metrics import Metric
from deltaproof.records.record import Predictions
from deltaproof.robustness.metrics import drop_at_equal_accuracy
from deltaproof.studies.robustness_coding import interval_json

Json = dict[str, Any]
LEAST_SHARE = 0.5
"""A checkpoint counts where its accuracy is at least this far from always answering the commonest class to the best
checkpoint's: near chance there is nothing to lose, and the drop says nothing."""


class AnswersRead(Protocol):
    """What of a study is needed."""

    manifest: Json
    metric: Metric
    sign: int
    labels: list[str]
    reference: str

    def read(self, model: str, asked: str) -> Predictions:
        """A model's answers to a set."""


def at_equal_accuracy(study: AnswersRead) -> tuple[list[Json], list[Json], str]:
    """The drop regressed on clean score over checkpoints: findings, the checkpoints, why there is no finding."""
    plan = study.manifest["equal_accuracy"]
    if plan["reason"]:
        return [], [], plan["reason"]
    rows = [_checkpoint(study, place, plan["sets"]) for place in plan["checkpoints"]]
    enough = _least_score(study, rows)
    for row in rows:
        row["used"] = bool(study.sign * row["clean"] >= enough)
    used = [row for row in rows if row["used"]]
    if not any(row["label"] == study.reference for row in used):
        return [], rows, f"every checkpoint of {study.reference} is too near chance to have a drop; train it longer"
    found = []
    try:
        for name in ("overall", *(entry["name"] for entry in plan["sets"])):
            drops = [row["overall"] if name == "overall" else row["drops"][name] for row in used]
            line = drop_at_equal_accuracy(
                [study.sign * row["clean"] for row in used], drops, [row["label"] for row in used],
                [row["run"] for row in used], study.reference,
            )  # fmt: skip
            found.append({
                "set": name,
                "slope": interval_json(line.slope),
                "differences": {label: interval_json(value) for label, value in line.differences.items()},
                "n_checkpoints": line.n_checkpoints,
                "n_runs": line.n_runs,
            })  # fmt: skip
    except DataError as error:
        n_left = len(rows) - len(used)
        near = (
            f"{n_left} of {len(rows)} checkpoints are too near chance to have a drop, and of the others "
            if n_left
            else ""
        )
        return [], rows, near + str(error)
    return found, rows, ""


def _checkpoint(study: AnswersRead, place: Json, sets: Sequence[Json]) -> Json:
    def score(asked: str) -> float:
        predictions = study.read(place["model"], asked)
        return float(study.metric.per_example(predictions.targets, predictions.outputs).mean())

    clean = score(study.manifest["clean"][0])
    drops = {
        entry["name"]: study.sign * (clean - float(np.mean([score(draw) for draw in entry["draws"]]))) for entry in sets
    }
    return {
        "label": place["label"], "run": place["run"], "step": place["step"], "clean": clean, "drops": drops,
        "overall": float(np.mean(list(drops.values()))),
    }  # fmt: skip


def _least_score(study: AnswersRead, rows: Sequence[Json]) -> float:
    """Below this a checkpoint is too near chance to have a drop; minus infinity where chance is not known."""
    if study.metric.name != "accuracy":
        return -np.inf
    model = study.manifest["keys"][study.labels[0]][0]
    targets = study.read(model, study.manifest["clean"][0]).targets[:, 0]
    chance = float(np.unique(targets, return_counts=True)[1].max() / len(targets))
    best: float = max(row["clean"] for row in rows)
    return chance + LEAST_SHARE * (best - chance)
