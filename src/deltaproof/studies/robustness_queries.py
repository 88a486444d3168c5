"""What is asked of a model in a robustness study: plain facts, so that they may go to another process.

Every question gives one or several files of answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from deltaproof.data.split import Split
from deltaproof.evaluation.predict import predict
from deltaproof.records.record import Predictions
from deltaproof.robustness.pgd import pgd
from deltaproof.robustness.search import Found, search
from deltaproof.robustness.search_recipes import RECIPES
from deltaproof.robustness.sets import PerturbedSet
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

    def of_texts(self, texts: Sequence[tuple[str, ...]]) -> Array:
        """(n, n_outputs) for texts that are no rows of a data set."""
        encoded = self.task.encode_texts(self.tokenizer, texts)
        pad = self.tokenizer.pad_token_id
        return predict(self.tuned, self.task, encoded, pad, self.batch_size, self.precision)

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


@dataclass(frozen=True, eq=False)
class Answer:
    """What goes into one file, and the texts where they were made for this model alone."""

    predictions: Predictions
    texts: PerturbedSet | None = None


class Query(Protocol):
    """Something to be asked of a model."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the answers."""

    def ask(self, asked: Asked) -> Iterator[Answer]:
        """Each file's answers."""


@dataclass(frozen=True, eq=False)
class OfRows:
    """What does the model answer to these rows?"""

    files: tuple[str]
    split: Split

    def ask(self, asked: Asked) -> Iterator[Answer]:
        yield Answer(asked.answers_once(self.split))


@dataclass(frozen=True, eq=False)
class OfEmbeddings:
    """What does it answer at the worst point near its embeddings? All radii at once, since a larger one goes on from a
    smaller."""

    files: tuple[str, ...]
    split: Split
    epsilons: tuple[float, ...]
    n_steps: int
    seed: int

    def ask(self, asked: Asked) -> Iterator[Answer]:
        found = pgd(
            asked.tuned, asked.task, asked.task.encode(asked.tokenizer, self.split), asked.tokenizer.pad_token_id,
            self.epsilons, n_steps=self.n_steps, until_wrong=True, seed=self.seed, batch_size=asked.batch_size,
            precision=asked.precision,
        )  # fmt: skip
        for epsilon in self.epsilons:
            yield Answer(Predictions(self.split.ids, self.split.groups, self.split.targets, found[epsilon]))


@dataclass(frozen=True, eq=False)
class OfWeights:
    """What does it answer with one draw of noise in its weights, at several sizes?"""

    files: tuple[str, ...]
    split: Split
    sizes: tuple[tuple[Question, float], ...]
    """Of each file: on all weights, or on what was trained in proportion to it or at a length of its own."""
    seed: int
    draw: int

    def ask(self, asked: Asked) -> Iterator[Answer]:
        first = self.sizes[0][0]
        base = None if first == "all" else asked.base
        with disturbed(asked.tuned, first, seed=self.seed, draw=self.draw, base=base) as noise:
            for question, size in self.sizes:
                noise.put(size, question)
                yield Answer(asked.answers(self.split))


@dataclass(frozen=True, eq=False)
class OfSearch:
    """What does it answer to the texts that a search against it finds? All strengths at once, since a search of a
    smaller budget goes the same way."""

    files: tuple[str, ...]
    split: Split
    recipe: str
    strengths: tuple[float, ...]
    most_queries: int
    seed: int

    def ask(self, asked: Asked) -> Iterator[Answer]:
        rows = list(zip(self.split.ids, self.split.texts, strict=True))
        clean, truths = asked.answers_once(self.split).outputs, self.split.targets[:, 0].astype(int)
        found = search(
            asked.of_texts, rows, list(truths), clean, RECIPES[self.recipe], self.strengths,
            most_queries=self.most_queries, seed=self.seed,
        )  # fmt: skip
        for strength in self.strengths:
            made = self._set(strength, found[strength])
            outputs = np.stack([row.outputs for row in found[strength]])
            yield Answer(Predictions(made.split.ids, made.split.groups, made.split.targets, outputs), made)

    def _set(self, strength: float, found: Sequence[Found]) -> PerturbedSet:
        split, recipe = self.split, RECIPES[self.recipe]
        texts = [tuple(text.text for text in row.texts) for row in found]
        return PerturbedSet(
            recipe.name, strength, self.seed, recipe.promise(len(split.texts[0])), recipe.source(),
            Split(split.name, split.ids, texts, split.targets, split.groups), [row.texts for row in found],
            np.array([row.n_queries for row in found]), np.array([row.n_words for row in found]),
        )  # fmt: skip
