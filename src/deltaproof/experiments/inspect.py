"""A look at model and methods before anything is trained: facts for the specs, and errors while they are cheap."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaproof.backbones.load import load_backbone
from deltaproof.data.run_folder import read_dataset
from deltaproof.methods import method_from
from deltaproof.tasks.text import TextTask


@dataclass(frozen=True)
class Question:
    """What is to be looked at."""

    model: str
    revision: str | None
    trust_remote_code: bool
    methods: tuple[dict[str, Any], ...]
    task: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class Facts:
    """What was found."""

    fingerprint: str
    revision: str
    n_parameters: int
    max_length: int
    """The task's maximum length, or the model's where that is shorter."""
    truncated_fraction: float
    """Share of the training and validation rows that lose tokens to it."""
    notes: tuple[str, ...]


def look(question: Question) -> Facts:
    """Load the model, place every method's edits on it and measure the texts.

    Raises:
        ConfigError: a method does not go with this model.
        BackboneError: the model cannot be loaded.
    """
    task = TextTask.from_json(question.task)
    backbone = load_backbone(
        question.model, task.kind, task.n_outputs, labels=list(task.labels) if task.labels else None,
        trust_remote_code=question.trust_remote_code, revision=question.revision,
    )  # fmt: skip
    for fields in question.methods:
        for _ in method_from(fields).edits(backbone):
            pass
    notes = list(backbone.notes)
    if task.max_length > backbone.max_length:
        notes.append(f"the model takes {backbone.max_length} tokens at most, so that is the maximum length")
        task = TextTask.from_json({**question.task, "max_length": backbone.max_length})
    dataset = read_dataset(question.folder / "data")
    cut = [task.encode(backbone.tokenizer, split).truncated_fraction for split in (dataset.train, dataset.validation)]
    weights = [len(dataset.train), len(dataset.validation)]
    return Facts(
        backbone.fingerprint, backbone.revision, sum(p.numel() for p in backbone.model.parameters()), task.max_length,
        float(np.average(cut, weights=weights)), tuple(notes),
    )  # fmt: skip
