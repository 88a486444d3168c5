"""What is asked of a model in a robustness study: plain facts, so that they may go to another process.

Every question gives one or several files of answers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from deltaproof.data.split import Split
from deltaproof.records.record import Predictions
from deltaproof.robustness.pgd import pgd
from deltaproof.robustness.weight_noise import Question, disturbed
from deltaproof.studies.kept_models import Bed, KeptModel

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Model:
    """A tuned model at the end of its training, or as a snapshot saw it on the way."""

    name: str
    """Under which its answers stand."""
    kept: KeptModel
    snapshot: Path | None = None


class Asked:
    """A model that is being asked; what it was before training is read only where a question needs that."""

    def __init__(self, bed: Bed, kept: KeptModel) -> None:
        self.bed, self.kept = bed, kept
        self.tuned, self.task = kept.load()
        self.tuned.to(bed.device)
        self.tokenizer = self.tuned.backbone.tokenizer
        training = kept.record.spec.training
        self.batch_size, self.precision = 2 * training["batch_size"], training["precision"]
        self.read: dict[tuple[tuple[int, ...], ...], Array] = {}
        """What the model answered, by the tokens that it read."""

    def put_snapshot(self, snapshot: Path) -> None:
        """Go on as the model that the training had then."""
        from deltaproof.training.snapshots import put_snapshot

        put_snapshot(self.tuned, snapshot)
        self.read = {}

    def answers(self, split: Split) -> Predictions:
        return self.bed.answers(self.tuned, self.task, self.tokenizer, split, self.kept)

    def answers_once(self, split: Split) -> Predictions:
        """The answers, without asking twice of the same tokens: a text that a perturbation did not reach, or that came
        out the same at another strength, has the answer that was given first.

        A model's answer depends on the tokens alone but for the last bits, which change with the batch a row is in.
        """
        tokens = self.tokens(split)
        new = list({key: row for row, key in enumerate(tokens) if key not in self.read}.values())
        if new:
            self.remember(split.take(new), self.answers(split.take(new)).outputs)
        return Predictions(split.ids, split.groups, split.targets, np.stack([self.read[key] for key in tokens]))

    def remember(self, split: Split, outputs: Array) -> None:
        """Answers given before, such as those on disk when a study goes on; of several the first stands."""
        for key, output in zip(self.tokens(split), outputs, strict=True):
            self.read.setdefault(key, np.asarray(output))

    def tokens(self, split: Split) -> list[tuple[tuple[int, ...], ...]]:
        """All that the model reads of each row."""
        columns = self.task.encode(self.tokenizer, split).columns.values()
        return [tuple(tuple(ids) for ids in row) for row in zip(*columns, strict=True)]

    @cached_property
    def base(self) -> dict[str, Tensor]:
        """Every parameter of the model before training, its head included."""
        return {name: value.detach() for name, value in self.kept.load_base().model.named_parameters()}


class Query(Protocol):
    """Something to be asked of a model."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the answers."""

    def ask(self, asked: Asked) -> Iterator[Predictions]:
        """Each file's answers."""


@dataclass(frozen=True, eq=False)
class OfRows:
    """What does the model answer to these rows?"""

    files: tuple[str]
    split: Split

    def ask(self, asked: Asked) -> Iterator[Predictions]:
        yield asked.answers_once(self.split)


@dataclass(frozen=True, eq=False)
class OfEmbeddings:
    """What does it answer at the worst point near its embeddings? All radii at once, since a larger one goes on from a
    smaller."""

    files: tuple[str, ...]
    split: Split
    epsilons: tuple[float, ...]
    n_steps: int
    seed: int

    def ask(self, asked: Asked) -> Iterator[Predictions]:
        found = pgd(
            asked.tuned, asked.task, asked.task.encode(asked.tokenizer, self.split), asked.tokenizer.pad_token_id,
            self.epsilons, n_steps=self.n_steps, until_wrong=True, seed=self.seed, batch_size=asked.batch_size,
            precision=asked.precision,
        )  # fmt: skip
        for epsilon in self.epsilons:
            yield Predictions(self.split.ids, self.split.groups, self.split.targets, found[epsilon])


@dataclass(frozen=True, eq=False)
class OfWeights:
    """What does it answer with one draw of noise in its weights, at several sizes?"""

    files: tuple[str, ...]
    split: Split
    sizes: tuple[tuple[Question, float], ...]
    """Of each file: on all weights, or on what was trained in proportion to it or at a length of its own."""
    seed: int
    draw: int

    def ask(self, asked: Asked) -> Iterator[Predictions]:
        first = self.sizes[0][0]
        base = None if first == "all" else asked.base
        with disturbed(asked.tuned, first, seed=self.seed, draw=self.draw, base=base) as noise:
            for question, size in self.sizes:
                noise.put(size, question)
                yield asked.answers(self.split)
