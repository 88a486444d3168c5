"""Asking tuned models: every set's answers are stored at once, so that a study that was stopped goes on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from deltaproof.data.split import Split
from deltaproof.errors import DeltaproofError
from deltaproof.methods.tuned import Tuned
from deltaproof.records.record import Predictions
from deltaproof.records.store import read_json, write_json, write_predictions
from deltaproof.robustness.pgd import pgd
from deltaproof.robustness.weight_noise import Question, weight_noise
from deltaproof.studies.kept_models import Bed, KeptModel
from deltaproof.studies.robustness_findings import answers_path
from deltaproof.tasks.text import TextTask

Say = Callable[[str], None]
BACKWARD = 2.0
"""What a backward pass takes, in forward passes."""


@dataclass(frozen=True, eq=False)
class Model:
    """A tuned model at the end of its training, or as a snapshot saw it on the way."""

    name: str
    """Under which its answers stand."""
    kept: KeptModel
    snapshot: Path | None = None

    def load(self) -> tuple[Tuned, TextTask]:
        tuned, task = self.kept.load()
        if self.snapshot is not None:
            from deltaproof.training.snapshots import put_snapshot

            put_snapshot(tuned, self.snapshot)
        return tuned, task


class Asked:
    """A model that is being asked; what it was before training is read only where a question needs that."""

    def __init__(self, bed: Bed, model: Model) -> None:
        self.bed, self.kept = bed, model.kept
        self.tuned, self.task = model.load()
        self.tuned.to(bed.device)
        self.tokenizer = self.tuned.backbone.tokenizer
        training = self.kept.record.spec.training
        self.batch_size, self.precision = 2 * training["batch_size"], training["precision"]

    def answers(self, split: Split) -> Predictions:
        return self.bed.answers(self.tuned, self.task, self.tokenizer, split, self.kept)

    @cached_property
    def base(self) -> dict[str, Tensor]:
        """Every parameter of the model before training, its head included."""
        return {name: value.detach() for name, value in self.kept.load_base().model.named_parameters()}


@dataclass(frozen=True, eq=False)
class Query:
    """Something to be asked of a model, which gives one or several files of answers."""

    files: tuple[str, ...]
    ask: Callable[[Asked], Sequence[Predictions]]
    n_passes: float
    """Forward passes over `n_rows` rows, for the estimate."""
    n_rows: int


def of_rows(file: str, split: Split) -> Query:
    """What does the model answer to these rows?"""
    return Query((file,), lambda asked: [asked.answers(split)], 1, len(split))


def of_embeddings(files: Sequence[str], split: Split, epsilons: Sequence[float], n_steps: int, seed: int) -> Query:
    """What does it answer at the worst point near its embeddings? All radii at once, since a larger one goes on from a
    smaller."""

    def ask(asked: Asked) -> list[Predictions]:
        found = pgd(
            asked.tuned, asked.task, asked.task.encode(asked.tokenizer, split), asked.tokenizer.pad_token_id,
            epsilons, n_steps=n_steps, seed=seed, batch_size=asked.batch_size, precision=asked.precision,
        )  # fmt: skip
        return [Predictions(split.ids, split.groups, split.targets, found[epsilon]) for epsilon in epsilons]

    return Query(tuple(files), ask, len(epsilons) * (n_steps * (1 + BACKWARD) + 1), len(split))


def of_weights(file: str, split: Split, question: Question, size: float, seed: int, draw: int) -> Query:
    """What does it answer with noise in its weights?"""

    def ask(asked: Asked) -> list[Predictions]:
        base = None if question == "all" else asked.base
        with weight_noise(asked.tuned, question, size, seed=seed, draw=draw, base=base):
            return [asked.answers(split)]

    return Query((file,), ask, 1, len(split))


def lengths_of_changes(bed: Bed, models: Sequence[Model], folder: Path, say: Say) -> dict[str, float]:
    """How long what each model learnt is, by its key: the length of noise of size 1 on it. Each is measured once."""
    place = folder / "robustness" / "lengths.json"
    known: dict[str, float] = read_json(place) if place.exists() else {}
    for model in models:
        if model.name not in known:
            say(f"the length of what {model.kept.label} learnt")
            asked = Asked(bed, model)
            with weight_noise(asked.tuned, "trained", 1.0, base=asked.base) as noise:
                known[model.name] = float(noise.frobenius_norm)
            write_json(place, known)
    return known


def missing(folder: Path, model: Model, queries: Sequence[Query]) -> list[Query]:
    """What has no answer on disk yet."""
    return [
        query for query in queries if not all(answers_path(folder, model.name, file).exists() for file in query.files)
    ]


def ask_all(bed: Bed, folder: Path, model: Model, queries: Sequence[Query], say: Say) -> dict[str, str]:
    """Ask a model whatever is not answered yet, and store each answer; returns the files that it could not give, with
    the reason."""
    left = missing(folder, model, queries)
    if not left:
        return {}
    if model.snapshot is None:
        say(f"{model.kept.label}, seed {model.kept.seed}: {sum(len(query.files) for query in left)} sets of answers")
    asked = Asked(bed, model)
    failed: dict[str, str] = {}
    for query in left:
        try:
            answers = query.ask(asked)
        except DeltaproofError as error:
            failed |= dict.fromkeys(query.files, str(error))
            continue
        for file, predictions in zip(query.files, answers, strict=True):
            if not np.isfinite(predictions.outputs).all():
                failed[file] = "its answers are not finite"
                continue
            write_predictions(answers_path(folder, model.name, file), predictions)
    return failed
