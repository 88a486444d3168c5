"""How a tuned model would start, by seed: digests of what is trained, before training."""

import hashlib
from typing import Any

from deltaproof.backbones.load import load_backbone
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.tasks.text import TextTask


def starts(base: str, spec: dict[str, Any], task: TextTask) -> list[dict[str, str]]:
    """By name a digest of each trained tensor at its start: of the run's seed, of that seed again, and of the next."""
    return [_start(base, spec, task, seed) for seed in (spec["seed"], spec["seed"], spec["seed"] + 1)]


def _start(base: str, spec: dict[str, Any], task: TextTask, seed: int) -> dict[str, str]:
    labels = list(task.labels) if task.labels else None
    backbone = load_backbone(base, task.kind, task.n_outputs, labels=labels, seed=seed)
    tuned = attach(backbone, method_from(spec["method"]), seed)
    return {
        name: hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, value in tuned.state().items()
    }
