"""A run folder as `compare` leaves it, with invented numbers: what the report's tests draw."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deltaproof.data.dataset import Dataset
from deltaproof.data.run_folder import write_splits
from deltaproof.data.sealed import SealedSplit
from deltaproof.data.split import Split
from deltaproof.metrics import METRICS, default_metrics
from deltaproof.records.record import Cost, Predictions, Record
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store

ENVIRONMENT = {
    "versions": {"deltaproof": "0.1.0", "torch": "2.9.0", "transformers": "5.1.0", "peft": "0.18.0"},
    "python": "3.12.3",
    "system": "Linux-6.8",
    "processor": "Invented CPU 3000",
    "cores": 8,
    "memory_bytes": 64_000_000_000,
    "load": 0.4,
    "accelerators": [],
}
RATES = (3.16e-5, 1e-4, 3.16e-4, 1e-3)


@dataclass
class Experiment:
    """What to invent."""

    kind: str = "classification"
    methods: tuple[str, ...] = ("full", "lora", "ia3", "head")
    skills: tuple[float, ...] = ()
    """How good each method is, 0..1; falling slowly when left out."""
    labels: tuple[str, ...] | None = ("negative", "neutral", "positive")
    texts: tuple[str, ...] = ()
    """Texts of the first test examples, in place of invented ones."""
    n: int = 240
    seeds: int = 3
    endings: dict[str, str] = field(default_factory=dict)
    """How a contestant ended, where it did not end well."""
    baselines: tuple[str, ...] = ("majority", "tfidf_logistic")
    finished: bool = True
    openings: int | None = None
    require: tuple[str, ...] = ()
    at_edge: tuple[str, ...] = ()
    evaluations: int = 6
    pairs: bool = False
    model: str = "invented/model-base"
    metrics: tuple[str, ...] = ()
    notes: tuple[str, ...] = ("no test split was given: 20 % of the rows were split off by class",)


def build(folder: Path, what: Experiment) -> Store:
    """Write the folder; returns its store."""
    rng = np.random.default_rng(7)
    store = Store(folder)
    labels = list(what.labels) if what.kind != "regression" and what.labels else None
    width = len(labels) if labels else 1
    targets = _targets(what.kind, what.n, width, rng)
    ids = [f"rows.csv:{index + 2}" for index in range(what.n)]
    texts = [
        what.texts[index] if index < len(what.texts) else f"invented text number {index}, of no particular meaning"
        for index in range(what.n)
    ]
    split = Split(
        "test",
        ids,
        [(text, f"second text {index}") if what.pairs else (text,) for index, text in enumerate(texts)],
        targets,
    )
    few = Split("train", ids[:2], split.texts[:2], targets[:2])
    write_splits(
        Dataset("rows", what.kind, labels, ("text",), "label", few, few, SealedSplit.seal(split), "0" * 16),
        folder / "data",
    )
    task = {
        "kind": what.kind,
        "labels": labels,
        "metrics": list(what.metrics) or default_metrics(what.kind),
        "max_length": 128,
    }
    skills = what.skills or tuple(0.92 - 0.012 * index**1.5 for index in range(len(what.methods)))
    hardness = rng.random(what.n)
    contestants = [
        _contestant(store, what, task, name, skill, position, ids, targets, hardness)
        for position, (name, skill) in enumerate(zip(what.methods, skills, strict=True))
    ]
    baselines = []
    for position, name in enumerate(what.baselines):
        skill = 0.0 if position == 0 else 0.55
        record, predictions = _run(
            what, task, name, skill, 0, "final", 1e-3, 90 + position, ids, targets, hardness, None
        )
        store.write(record, predictions)
        baselines.append({"name": name, "key": record.spec.key})
    reference = "full" if "full" in what.methods else what.methods[0]
    store.write_experiment(
        {
            "format": 1,
            "name": "invented study",
            "created": "2026-11-20T10:00:00+00:00",
            "finished": "2026-11-20T11:30:00+00:00" if what.finished else None,
            "plan": {
                "model": what.model,
                "data": "rows.csv",
                "methods": list(what.methods),
                "text": ["text"],
                "margin": None,
                "seeds": what.seeds,
                "require": list(what.require),
                "trust_remote_code": False,
                "training": {"epochs": 3.0, "batch_size": 32, "patience": None},
                "budget": {},
            },
            "data": {
                "name": "rows.csv",
                "kind": what.kind,
                "labels": labels,
                "text_columns": ["text"],
                "label_column": "label",
                "fingerprint": "0123456789abcdef",
                "rows": {"train": 800, "validation": 200, "test": what.n},
                "notes": list(what.notes),
                "truncated_fraction": 0.012,
                "openings": what.openings
                if what.openings is not None
                else what.seeds * len(what.methods) + len(what.baselines),
                "class_counts": {label: 100 + index for index, label in enumerate(labels)} if labels else None,
            },
            "model": {
                "name": what.model,
                "fingerprint": "fedcba9876543210",
                "revision": None,
                "n_parameters": 22_700_000,
                "notes": ["pooled by mean"],
            },
            "task": task,
            "margin": 0.03,
            "alpha": 0.05,
            "reference": reference,
            "fallback_reference": None,
            "device": "cpu",
            "precision": "bf16",
            "environment": ENVIRONMENT,
            "contestants": contestants,
            "baselines": baselines,
            "estimated_seconds": 4800.0,
            "measured_seconds": 5400.0 if what.finished else None,
        }
    )
    return store


def _targets(kind: str, n: int, width: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "classification":
        return rng.integers(0, width, (n, 1)).astype(float)
    if kind == "multilabel":
        return (rng.random((n, width)) < 0.3).astype(float)
    return rng.random((n, 1)) * 5


def _contestant(
    store: Store,
    what: Experiment,
    task: dict[str, Any],
    name: str,
    skill: float,
    position: int,
    ids: list[str],
    targets: np.ndarray,
    hardness: np.ndarray,
) -> dict[str, Any]:
    ending = what.endings.get(name)
    trials = []
    for index, rate in enumerate(RATES):
        score = skill - 0.03 * (index - 2) ** 2
        status = "diverged" if index == len(RATES) - 1 and position == 1 else "done"
        trials.append(
            {"learning_rate": rate, "key": None, "score": score if status == "done" else None, "status": status}
        )
    chosen = RATES[-1] if name in what.at_edge else RATES[2]
    keys = []
    for seed in range(what.seeds if ending != "missing" else 1):
        record, predictions = _run(
            what, task, name, skill, seed, "final", chosen, position, ids, targets, hardness, ending
        )
        keys.append(record.spec.key)
        if ending != "missing":
            store.write(record, predictions)
    return {
        "name": name,
        "method": {"name": name},
        "centre": 1e-4,
        "trials": trials,
        "learning_rate": chosen,
        "at_edge": name in what.at_edge,
        "status": ending if ending != "missing" else None,
        "final": keys,
        "notes": [],
        "estimate": {"seconds": 400.0, "peak_memory_bytes": 9e8, "n_trainable": 1000},
        "measured": {"seconds": 380.0 + 30 * position, "peak_memory_bytes": 8.4e8},
    }


def _run(
    what: Experiment,
    task: dict[str, Any],
    name: str,
    skill: float,
    seed: int,
    stage: str,
    rate: float,
    position: int,
    ids: list[str],
    targets: np.ndarray,
    hardness: np.ndarray,
    ending: str | None,
) -> tuple[Record, Predictions | None]:
    rng = np.random.default_rng((position + 1) * 1000 + seed)
    spec = Spec(
        name,
        {"name": name},
        {"name": what.model},
        task,
        {"fingerprint": "0123456789abcdef"},
        {"learning_rate": rate, "epochs": 3.0, "batch_size": 32, "schedule": "linear", "precision": "bf16"},
        seed,
        stage,
    )
    history = _history(task, skill, what.evaluations, rng, cut=ending == "diverged")
    if ending in ("diverged", "out_of_memory", "failed"):
        note = (
            f"diverged at step {len(history) * 25 + 3} of 150: the loss or its gradient is not finite"
            if ending == "diverged"
            else "memory ran out"
        )
        return Record(
            spec, ending, history=history if ending == "diverged" else [], notes=[note], environment=ENVIRONMENT
        ), None  # type: ignore[arg-type]
    outputs = _outputs(what.kind, targets, len(task["labels"] or [0]), skill, rng, hardness)
    test = {metric: METRICS[metric].score(targets, outputs) for metric in task["metrics"]}
    if position >= 90:
        return Record(spec, "done", test=test, environment=ENVIRONMENT), Predictions(ids, None, targets, outputs)
    n_trainable = 22_700_000 if name == "full" else 400 * 4 ** (8 - position % 9)
    cost = Cost(
        n_trainable,
        22_700_000,
        n_trainable // 2,
        40.0 + 7 * position + seed,
        60.0 - position,
        1.2e13,
        n_trainable * 4,
        int(1.3e9 - 7e7 * position),
        None,
        0.0041,
        0.0039 if position % 2 else None,
    )
    return Record(
        spec,
        "done",
        history[-1]["validation"],
        test,
        history,
        cost,
        ENVIRONMENT,
        started="2026-11-20T10:05:00+00:00",
        seconds=70,
    ), Predictions(ids, None, targets, outputs)


def _history(task: dict[str, Any], skill: float, n: int, rng: np.random.Generator, cut: bool) -> list[dict[str, Any]]:
    metric = task["metrics"][0]
    return [
        {
            "step": 25 * (index + 1),
            "epoch": 0.5 * (index + 1),
            "train_loss": float(1.1 * np.exp(-0.5 * skill * index) + 0.05 * rng.random()),
            "learning_rate": 1e-4,
            "validation": {metric: float(skill - 0.35 * np.exp(-0.8 * index) + 0.01 * rng.normal())},
        }
        for index in range(max(2, n // 2) if cut else n)
    ]


def _outputs(
    kind: str, targets: np.ndarray, width: int, skill: float, rng: np.random.Generator, hardness: np.ndarray
) -> np.ndarray:
    """Answers that are right where an example is easier than the method is good, with some noise by seed."""
    right = hardness + 0.03 * rng.normal(size=len(hardness)) < skill
    if kind == "regression":
        return targets + (1.2 - skill) * rng.normal(size=targets.shape)
    if kind == "multilabel":
        flip = rng.random(targets.shape) > 0.6 + 0.4 * skill
        return np.clip(np.abs(targets - flip) * 0.7 + 0.15 + 0.1 * rng.normal(size=targets.shape), 0.01, 0.99)
    answer = np.where(
        right, targets[:, 0], (targets[:, 0] + 1 + rng.integers(0, max(1, width - 1), len(targets))) % width
    ).astype(int)
    confidence = 1 / width + (1 - 1 / width) * rng.beta(5, 2, len(targets))
    outputs = np.repeat(((1 - confidence) / max(1, width - 1))[:, None], width, axis=1)
    outputs[np.arange(len(targets)), answer] = np.maximum(confidence, 1.01 / width)
    return outputs / outputs.sum(axis=1, keepdims=True)
