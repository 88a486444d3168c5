"""What a merge leaves in each run folder: a record of stage `merging`, and an entry in `studies/merging.json`.

An entry of `merges` holds

    key             of the record; entries are told apart by it
    contestant      the merge in words
    recipe          how, weights (one per expert), density, rank, seed
    chosen_on       what the weights were chosen on: null, `validation` or `examples`; n_evaluations; n_rows of it
    experts         name, contestant, key of its record (null for what others made), data, digest, stored_bytes,
                    weight, is_of_this_task
    cosines         of every two experts' updates, null where one changes nothing
    head            in words, where the head that answers here is from
    validation      n, merged: the deciding metric's score
    test            the same on the sealed test rows; null where they were not opened
    compared        one entry for each model beside the merge: name, kind (`expert`: its own body and head, `body`: an
                    expert's body under the head of this merge, `base`: the base under that head), validation, test
                    (scores, or null), and `difference`: by `validation` and `test` the paired difference of the merge
                    less this model, positive for better: difference, low, high, n, verdict, note
    head_only       validation and test means of the run's own `head` contestant, null where it has none
    folder          name of the folder that was last written of it, or null
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deltaproof.errors import RecordError
from deltaproof.experiments.document import now
from deltaproof.experiments.environment import environment, versions
from deltaproof.merging.combine import Recipe
from deltaproof.merging.sources import ExpertSource
from deltaproof.metrics import per_unit
from deltaproof.records.record import Predictions, Record
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store, read_json, write_json
from deltaproof.stats import compare
from deltaproof.studies.grounds import Ground
from deltaproof.tasks.text import TextTask

STUDY, STAGE = "merging", "merging"
WHOLE = {"name": "full"}
"""A merge may differ from the base in every weight: it is stored and loaded as full fine-tuning is."""


@dataclass
class Answers:
    """Of one model: on the validation rows and, where they were opened, on the test rows."""

    validation: Predictions
    test: Predictions | None = None


@dataclass(frozen=True)
class Choice:
    """What the weights were chosen on."""

    chosen_on: str | None = None
    n_evaluations: int = 0
    n_rows: int = 0
    tried: Sequence[dict[str, Any]] = field(default_factory=tuple)


def merge_spec(
    ground: Ground, task: TextTask, sources: Sequence[ExpertSource], recipe: Recipe, choice: Choice, head: str
) -> Spec:
    """The merge as a run on this ground: its key stands for everything that decides the result."""
    first = sources[0]
    return Spec(
        contestant=in_words(recipe, [source.name for source in sources]),
        method=WHOLE,
        model={"name": first.base, "fingerprint": first.fingerprint, "revision": first.revision or ""},
        task=task.to_json(),
        data=_data_of(ground),
        training={
            "merging": {
                **recipe.to_json(),
                "experts": [{"name": one.name, "contestant": one.contestant, "digest": one.digest} for one in sources],
                "chosen_on": choice.chosen_on,
                "head": head,
            },
            **ground.training,
            "versions": versions(),
        },
        seed=recipe.seed,
        stage=STAGE,
        parents=tuple(key for one in sources if (key := one.key) is not None),
    )


def in_words(recipe: Recipe, names: Sequence[str]) -> str:
    """
    >>> in_words(Recipe("ties", (1.0, 0.5), 0.2), ["sst2", "subj"])
    'ties of sst2 and 0.5 subj, density 0.2'
    """
    weighted = [
        name if weight == 1 else f"{weight:.3g} {name}" for name, weight in zip(names, recipe.weights, strict=True)
    ]
    listed = ", ".join(weighted[:-1]) + (" and " if weighted[:-1] else "") + weighted[-1]
    density = f", density {recipe.density:g}" if recipe.density < 1 else ""
    rank = f", rank {recipe.rank}" if recipe.rank is not None else ""
    return f"{recipe.how} of {listed}{density}{rank}"


def write_merge(
    ground: Ground, spec: Spec, sources: Sequence[ExpertSource], recipe: Recipe, choice: Choice, head: str,
    merged: Answers, beside: Mapping[str, tuple[str, Answers]], cosines: list[list[float | None]],
) -> dict[str, Any]:  # fmt: skip
    """Store the record and the entry; returns the entry.

    Args:
        beside: other models by name, each with its kind.
    """
    record = Record(
        spec, "done", ground.scores(merged.validation), ground.scores(merged.test) if merged.test is not None else {},
        environment=environment(), started=now(), notes=[f"head: {head}"],
    )  # fmt: skip
    ground.store.write(record, merged.test)
    entry = {
        "key": spec.key,
        "contestant": spec.contestant,
        "recipe": recipe.to_json(),
        "chosen_on": choice.chosen_on,
        "n_evaluations": choice.n_evaluations,
        "n_rows": choice.n_rows,
        "experts": [_expert(one, weight, at in ground.members) for at, (one, weight) in
                    enumerate(zip(sources, recipe.weights, strict=True))],
        "cosines": cosines,
        "head": head,
        "validation": {"n": len(merged.validation.ids), "merged": ground.score(merged.validation)},
        "test": None if merged.test is None else {"n": len(merged.test.ids), "merged": ground.score(merged.test)},
        "compared": [_compared(ground, name, kind, merged, other) for name, (kind, other) in beside.items()],
        "head_only": _head_only(ground),
        "folder": None,
        "written": now(),
    }  # fmt: skip
    append(ground, entry)
    return entry


def known_merge(ground: Ground, key: str, with_test: bool) -> dict[str, Any] | None:
    """The entry of a merge that was scored here before, if it holds what is asked for."""
    found = next((entry for entry in _study(ground.store)["merges"] if entry["key"] == key), None)
    is_enough = found is not None and (not with_test or found["test"] is not None)
    return found if is_enough and ground.store.find(key) is not None else None


def append(ground: Ground, entry: dict[str, Any]) -> None:
    """Put an entry into the study, in the place of one of the same key; safe beside other processes.

    A folder that was written of the merge before stays named.
    """
    with ground.store.lock(STUDY):
        study = _study(ground.store)
        before = next((other for other in study["merges"] if other["key"] == entry["key"]), None)
        if before is not None:
            entry["folder"] = entry["folder"] or before["folder"]
        others = [other for other in study["merges"] if other["key"] != entry["key"]]
        write_json(
            ground.store.study_path(STUDY),
            {**study, "metric": ground.metric.name, "unit": ground.metric.unit, "merges": [*others, entry]},
        )


def _study(store: Store) -> dict[str, Any]:
    path = store.study_path(STUDY)
    study: dict[str, Any] = read_json(path) if path.is_file() else {"format": 1, "merges": []}
    if study.get("format") != 1 or not isinstance(study.get("merges"), list):
        raise RecordError(f"`{path}` must hold merges in format 1, found another; move it away and merge again")
    return study


def _data_of(ground: Ground) -> dict[str, Any]:
    data, dataset = ground.experiment["data"], ground.dataset
    return {
        "name": data["name"],
        "fingerprint": data["fingerprint"],
        "rows": data["rows"],
        "training_ids": dataset.train.fingerprint,
        "text_columns": list(dataset.text_columns),
    }


def _expert(source: ExpertSource, weight: float, is_of_this_task: bool) -> dict[str, Any]:
    return {
        "name": source.name,
        "contestant": source.contestant,
        "key": source.key,
        "data": source.spec["data"].get("name") if source.spec is not None else None,
        "digest": source.digest,
        "stored_bytes": source.stored_bytes,
        "weight": weight,
        "is_of_this_task": is_of_this_task,
    }


def _compared(ground: Ground, name: str, kind: str, merged: Answers, other: Answers) -> dict[str, Any]:
    both = merged.test is not None and other.test is not None
    return {
        "name": name,
        "kind": kind,
        "validation": ground.score(other.validation),
        "test": None if other.test is None else ground.score(other.test),
        "difference": {
            "validation": difference(ground, merged.validation, other.validation),
            "test": difference(ground, merged.test, other.test) if both else None,
        },
    }


def difference(ground: Ground, own: Predictions | None, other: Predictions | None) -> dict[str, Any]:
    """Of one model less another paired by example or group, with its interval; positive for better."""
    assert own is not None
    assert other is not None
    metric = ground.metric
    found = compare(
        {"other": per_unit(metric, other)[None, :], "own": per_unit(metric, own)[None, :]}, "other",
        ground.experiment["margin"], ground.experiment["alpha"], metric.higher_is_better, metric.unit,
    )["own"]  # fmt: skip
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "n": found.n_units,
        "verdict": found.verdict,
        "note": found.note,
    }


def _head_only(ground: Ground) -> dict[str, float] | None:
    """What the run's own `head` contestant reached: the base with nothing but a head trained on it."""
    keys: list[str] = next((one["final"] for one in ground.experiment["contestants"] if one["name"] == "head"), [])
    records = [record for key in keys if (record := ground.store.find(key)) is not None and record.status == "done"]
    name = ground.metric.name
    if not records or any(name not in record.test for record in records):
        return None
    return {
        "validation": float(np.mean([record.validation[name] for record in records])),
        "test": float(np.mean([record.test[name] for record in records])),
        "n_seeds": len(records),
    }
