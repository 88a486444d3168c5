"""The specs of an experiment's runs: everything that decides what a run measures."""

from dataclasses import asdict
from typing import Any

from deltaproof.experiments.environment import versions
from deltaproof.experiments.resolve import Resolved
from deltaproof.records.spec import Spec
from deltaproof.seeding import sub_seed

BASELINE_LIBRARIES = ("deltaproof", "numpy", "scipy", "scikit-learn")


def tuning_seed(seed: int) -> int:
    """Not one of the final seeds, so that no final run is the one that its setting was chosen on."""
    return sub_seed(seed, "tuning") % 10**6 + 10**6


def final_seeds(seed: int, n_seeds: int) -> list[int]:
    return [1000 * seed + at for at in range(n_seeds)]


def contestant_spec(
    resolved: Resolved, name: str, learning_rate: float, seed: int, stage: str, parents: tuple[str, ...] = ()
) -> Spec:
    """One run of a contestant. Library versions are part of it, so that runs of different versions are never pooled."""
    plan, facts = resolved.plan, resolved.facts
    return Spec(
        contestant=name,
        method=resolved.contestants[name].to_dict(),
        model={"name": plan.model, "fingerprint": facts.fingerprint, "revision": facts.revision},
        task=resolved.task.to_json(),
        data=data_facts(resolved),
        training={
            **resolved.loop.model_dump(mode="json"),
            "learning_rate": learning_rate,
            "precision": facts.precision,
            "device": facts.device.split(":")[0],
            **({"threads": resolved.slots.n_threads} if facts.device == "cpu" else {}),
            **({"devices_per_run": plan.devices_per_run} if plan.devices_per_run > 1 else {}),  # decides the last bits
            "versions": versions(),
        },
        seed=seed,
        stage=stage,
        parents=parents,
    )


def baseline_spec(resolved: Resolved, name: str) -> Spec:
    return Spec(
        contestant=name,
        method={"name": name},
        model={},
        task=resolved.task.to_json(),
        data=data_facts(resolved),
        training={"versions": versions(BASELINE_LIBRARIES)},
        seed=resolved.plan.seed,
        stage="baseline",
    )


def data_facts(resolved: Resolved) -> dict[str, Any]:
    dataset = resolved.dataset
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "rows": asdict(resolved.rows),
        "training_ids": dataset.train.fingerprint,
        "text_columns": list(dataset.text_columns),
    }
