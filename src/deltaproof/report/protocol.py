"""How fair the experiment was: what the records themselves say, item by item."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from deltaproof.experiments import wording
from deltaproof.records.record import Record
from deltaproof.report.figures.rates import trials_of
from deltaproof.report.numbers import ENDINGS, metric_name, plural
from deltaproof.report.study import Study

_CUT_IS_MUCH = 0.05
"""A larger share of cut texts is worth a warning."""
_FEW_SEEDS = 3


@dataclass(frozen=True)
class Check:
    """One thing that makes a comparison fair, and whether it was so."""

    holds: bool
    text: str
    detail: str = ""


@dataclass(frozen=True)
class Fact:
    """A term and what stands for it."""

    term: str
    text: str


def checks(study: Study) -> list[Check]:
    """What a reader would ask about fairness, answered from the records."""
    finals = {row.name: study.finals(row) for row in study.table.rows}
    every = [record for records in finals.values() for record in records]
    found = [_trials(study), _edges(study)]
    if every:
        found += [
            _settings(every),
            _same(
                "Same data for every run: training rows, their order by seed, and test rows",
                (record.spec.data for record in every),
            ),
            _seeds(finals),
            _same("Same library versions for every run", (record.environment.get("versions") for record in every)),
            _same(
                "Same hardware for every run",
                ((record.environment.get("processor"), record.environment.get("accelerators")) for record in every),
            ),
        ]
    return [*found, _openings(study), _cut(study), _endings(study)]


def _same(text: str, values: Iterable[Any]) -> Check:
    kinds = {json.dumps(value, sort_keys=True, default=str) for value in values}
    return Check(len(kinds) <= 1, text, "" if len(kinds) <= 1 else f"{len(kinds)} different ones")


def _trials(study: Study) -> Check:
    """A contestant that does not fit into memory is not tuned to the end: no learning rate would help it."""
    counts = {row.name: len(trials_of(study, row.name)) for row in study.table.rows if row.status != "out_of_memory"}
    text = "Same number of tuning trials for every contestant"
    if len(set(counts.values())) > 1:
        return Check(False, text, ", ".join(f"{name}: {n}" for name, n in counts.items()))
    n_trials = next(iter(counts.values()), 0)
    if n_trials == 0:
        return Check(
            False, text, "none: each runs at the learning rate it starts from, which may suit some better than others"
        )
    return Check(True, text, f"{plural(n_trials, 'trial')} each")


def _edges(study: Study) -> Check:
    at_edge = [row.name for row in study.table.rows if row.at_edge]
    text = "No learning rate was chosen at the edge of those tried"
    return Check(
        not at_edge, text, f"a better one may lie beyond for {', '.join(at_edge)}: give more trials" if at_edge else ""
    )


def _settings(every: list[Record]) -> Check:
    shared = [{key: value for key, value in record.spec.training.items() if key != "learning_rate"} for record in every]
    return _same("Same training settings but for the learning rate: epochs, batch, schedule, precision", shared)


def _seeds(finals: dict[str, list[Record]]) -> Check:
    seeds = {tuple(record.spec.seed for record in records) for records in finals.values() if records}
    least = min(len(found) for found in seeds)
    if len(seeds) > 1:
        return Check(False, "Same seeds for every contestant", "some have others or fewer")
    detail = plural(least, "seed") + (
        "" if least >= _FEW_SEEDS else f": with fewer than {_FEW_SEEDS}, what another seed would change is hardly known"
    )
    return Check(least >= _FEW_SEEDS, "Same seeds for every contestant", detail)


def _openings(study: Study) -> Check:
    """Each final run opens the test split once, so more openings than runs means that others have looked."""
    openings = study.experiment["data"].get("openings")
    own = sum(len(study.finals(row)) for row in study.table.rows)
    if openings is None:
        return Check(
            False, "The test split was opened for this experiment's final runs only", "openings were not counted"
        )
    others = openings - own - len(study.table.baselines)
    detail = f"opened {openings} times so far"
    if others > 0:
        others_text = "by other experiments or earlier runs: a choice on a test split seen before looks too good"
        detail += f", {others} of them {others_text}"
    return Check(others <= 0, "The test split was opened for this experiment's final runs only", detail)


def _cut(study: Study) -> Check:
    share = study.experiment["data"].get("truncated_fraction")
    longest = study.experiment["task"].get("max_length")
    text = f"Few texts or none were cut at {longest} tokens"
    if share is None:
        return Check(True, text, "share of cut texts not measured")
    return Check(share <= _CUT_IS_MUCH, text, f"{wording.share(share)} were cut")


def _endings(study: Study) -> Check:
    ended = [f"{row.name} {ENDINGS[row.status]}" for row in study.table.rows if row.status != "done"]
    return Check(not ended, "Every contestant came through", "; ".join(ended))


def facts(study: Study) -> list[Fact]:
    """The protocol in terms and values."""
    table, data, task = study.table, study.experiment["data"], study.experiment["task"]
    rows = data.get("rows", {})
    counts = data.get("class_counts") or {}
    found = [
        Fact(
            "Question",
            f"Is a contestant better, worse or equivalent to {table.reference} in {metric_name(table.metric)}?",
        ),
        Fact("Equivalence margin", wording.amount(table.margin, table.metric.unit)),
        Fact(
            "Error rate",
            f"{wording.share(table.alpha)} over all comparisons with the reference, for differences and for "
            "equivalence (Holm)"
            + (f". {wording.look(found_look, table.alpha)}" if (found_look := study.experiment.get("look")) else ""),
        ),
        Fact(
            "Test",
            "paired differences by seed and example (or group), t-test with a seed and an example term; two one-sided "
            "tests for equivalence",
        ),
        Fact("Tuning", "learning rates judged on the validation split; the test split is opened by final runs only"),
        Fact("Model", _model(study.experiment["model"])),
        Fact("Data", f"{data['name']}, fingerprint {data.get('fingerprint', '–')}"),
        Fact("Rows", ", ".join(f"{name} {n}" for name, n in rows.items()) or "–"),
        Fact(
            "Columns",
            f"text from {', '.join(data.get('text_columns') or []) or '–'}; labels from "
            f"{data.get('label_column') or '–'}",
        ),
        Fact("Task", f"{task['kind']}, at most {task.get('max_length', '–')} tokens"),
    ]
    if counts:
        shown = ", ".join(f"{label} {n}" for label, n in list(counts.items())[:30])
        found.append(
            Fact("Training rows by label", shown + (f" and {len(counts) - 30} more labels" if len(counts) > 30 else ""))
        )
    fallback = study.experiment.get("fallback_reference")
    if fallback:
        found.append(Fact("Fallback reference", f"{fallback}, should {study.experiment['reference']} not come through"))
    return found


def _model(model: dict[str, Any]) -> str:
    parts = [str(model["name"])]
    if model.get("n_parameters"):
        parts.append(f"{wording.count(model['n_parameters'])} parameters")
    if model.get("revision"):
        parts.append(f"revision {model['revision']}")
    return ", ".join([*parts, f"fingerprint {model.get('fingerprint', '–')}"])


def training_facts(study: Study) -> list[Fact]:
    """The settings of the training loop that every final run shared."""
    records = [record for row in study.table.rows for record in study.finals(row)]
    if not records:
        return []
    shared = {
        key: value for key, value in records[0].spec.training.items() if key != "learning_rate" and value is not None
    }
    return [
        Fact(key.replace("_", " "), f"{value:g}" if isinstance(value, float) else str(value))
        for key, value in shared.items()
    ]


def notes(study: Study) -> list[Fact]:
    """What data, model and runs had to say, with who said it."""
    found = [Fact("Data", note) for note in study.experiment["data"].get("notes") or []]
    found += [Fact("Model", note) for note in study.experiment["model"].get("notes") or []]
    by_text: dict[str, list[str]] = {}
    for row in study.table.rows:
        for note in row.notes:
            by_text.setdefault(note, []).append(row.name)
    said = {fact.text for fact in found}
    return found + [Fact(", ".join(names), note) for note, names in by_text.items() if note not in said]


def environment_facts(study: Study) -> list[Fact]:
    """Hardware and versions, from `experiment.json`."""
    place = study.experiment.get("environment") or {}
    found = [
        Fact(
            "Device",
            ", ".join(str(study.experiment[key]) for key in ("device", "precision") if study.experiment.get(key)),
        )
    ]
    accelerators = place.get("accelerators") or []
    if accelerators:
        found.append(Fact("Accelerators", ", ".join(accelerators)))
    if place.get("processor"):
        found.append(
            Fact(
                "Processor",
                f"{place['processor']}, {plural(place.get('cores') or 0, 'core')}, "
                f"{wording.size(place.get('memory_bytes'))} of memory",
            )
        )
    if place.get("load") is not None:
        found.append(Fact("Load at the start", f"{place['load']:g}"))
    found += [
        Fact(term, str(place[key])) for term, key in (("System", "system"), ("Python", "python")) if place.get(key)
    ]
    return found + [Fact(name, version) for name, version in (place.get("versions") or {}).items()]
