"""Experts composed for a task that none of them was tuned on, from a few labelled rows: LoraHub's question.

The weights are what makes the composed body serve the rows best, within -1.5 … 1.5 and from 0; the loss pays 0.05 for
the mean of their sizes. The head is an expert's where one has these labels; else a linear map fitted to the rows on
the body's features, judged over folds, as it would answer its own rows whatever the features are.

Source: Huang et al., 2023, arXiv:2307.13269 (LoraHub), sec. 3, which composes language models and needs no head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaproof.data.split import Split
from deltaproof.errors import ConfigError
from deltaproof.merging import few_shot
from deltaproof.merging.body import Body, Head
from deltaproof.merging.combine import cosines
from deltaproof.merging.search import LORAHUB_PRICE, Tried, Weights, bounded_search
from deltaproof.merging.sources import look_at
from deltaproof.records.store import Store
from deltaproof.studies.grounds import Ground, Say, drawn_by_class
from deltaproof.studies.merge_record import Answers, Choice, known_merge, merge_spec, write_merge
from deltaproof.studies.merging import MergeRun, Settings
from deltaproof.studies.path import losses
from deltaproof.studies.search_log import SearchLog

EXAMPLES = 64


@dataclass
class _Target:
    """The task that is composed for."""

    ground: Ground
    head: Head
    rows: Split
    """The few labelled ones."""
    is_fitted: bool
    seed: int

    def inputs(self) -> np.ndarray:
        """Features of the rows in the body as it stands."""
        encoded = self.head.task.encode(self.head.backbone.tokenizer, self.rows)
        size = 2 * self.ground.training["batch_size"]
        return few_shot.features(self.head.backbone, self.path, encoded, size, self.ground.training["precision"])

    @property
    def path(self) -> str:
        return few_shot.output_map(self.head.backbone, self.head.task.n_outputs)

    @property
    def has_bias(self) -> bool:
        return getattr(self.head.backbone.module(self.path), "bias", None) is not None

    def loss(self) -> float:
        """Of the rows, in the body as it stands."""
        if self.is_fitted:
            return few_shot.best_penalty(self.head.task, self.inputs(), self.rows.targets, self.has_bias, self.seed)[1]
        return float(losses(self.head.task, self.answers(self.rows)).mean())

    def settle(self) -> None:
        """Fit the head to all rows, in the body as it stands."""
        if self.is_fitted:
            given = (self.head.task, self.inputs(), self.rows.targets, self.has_bias)
            penalty, _ = few_shot.best_penalty(*given, self.seed)
            found = few_shot.fitted(*given, penalty)
            few_shot.seat(self.head.backbone, self.path, *found)

    def answers(self, split: Split) -> Any:
        backbone = self.head.backbone
        return self.ground.answers(backbone.model, self.head.task, backbone.tokenizer, split)


def compose(
    paths: Sequence[Path], folder: Path, settings: Settings, n_examples: int = EXAMPLES,
    say: Say = lambda text: None,
) -> MergeRun:  # fmt: skip
    """Compose experts for the task of a run folder, and score the result there beside each expert and the base.

    Args:
        folder: the run folder; its training rows are drawn from, its validation rows scored on.
        n_examples: labelled rows that may be looked at.
    Raises:
        ConfigError: the experts are of different bases, or of another than the run's; a setting is out of its range.
    """
    if settings.runs:
        raise ConfigError(
            f"a composition is scored on the run that it is for, `--run` names another ({settings.runs[0]}); leave "
            f"it out"
        )
    sources = look_at(list(paths), settings.base)
    recipe = settings.recipe(len(sources))
    ground = Ground(Store(folder))
    if ground.experiment["model"]["fingerprint"] != sources[0].fingerprint:
        raise ConfigError(
            f"experts and the run that they are composed for must be of one base, theirs has the fingerprint "
            f"{sources[0].fingerprint}, that of `{folder}` {ground.experiment['model']['fingerprint']}; give a run of "
            f"that base"
        )
    if n_examples < 2 * max(2, ground.task.n_outputs):
        raise ConfigError(
            f"`examples >= {2 * max(2, ground.task.n_outputs)}` must hold, two for each label, got {n_examples}; give "
            f"some dozens"
        )
    if recipe.how == "linear" and settings.weights == "auto":
        raise ConfigError(
            "a search from weights of 0 needs a rule that has a value there, `linear` divides by their sum; take "
            "`task_arithmetic`"
        )
    rows = drawn_by_class(ground.dataset.train, ground.task.kind, n_examples, settings.seed, "few examples")
    say(f"opening {len(sources)} experts of `{sources[0].base}`")
    body = Body(sources, [ground.task], settings.trust_remote_code).to(settings.device)
    target = _target(body, ground, rows, settings.seed)
    choice = Choice(None, 0, len(rows))
    if settings.weights == "auto":
        recipe, choice = _search(body, target, recipe, settings, say)
    alike = cosines(body.experts, body.names)
    where = f"fitted on {len(rows)} examples" if target.is_fitted else f"of {body.sources[target.head.members[0]].name}"
    spec = merge_spec(ground, target.head.task, sources, recipe, choice, f"{where}, rows {rows.fingerprint}")
    entry = known_merge(ground, spec.key, settings.with_test)
    if entry is None:
        entry = _score(body, target, recipe, settings, sources, spec, choice, where, alike, say)
    _apply(body, target, recipe)
    if target.is_fitted:  # what is written answers the task that was composed for
        body.heads.insert(0, target.head)
    return MergeRun(body, sources, recipe, choice, [ground], [entry], alike, list(body.notes))


def _target(body: Body, ground: Ground, rows: Split, seed: int) -> _Target:
    labels = (ground.task.kind, ground.task.labels)
    known = next((head for head in body.heads if (head.task.kind, head.task.labels) == labels), None)
    fresh = body.fitted[0]
    fresh.name = ground.name
    return _Target(ground, known or fresh, rows, known is None, seed)


def _apply(body: Body, target: _Target, recipe: Any) -> None:
    body.apply(recipe)
    target.settle()


def _search(
    body: Body, target: _Target, recipe: Any, settings: Settings, say: Say
) -> tuple[Any, Choice]:  # fmt: skip
    facts = [target.rows.fingerprint, target.is_fitted, "composition", few_shot.PENALTIES]
    log = SearchLog.of(target.ground.store, body.sources, recipe, facts)

    def evaluate(weights: Weights) -> Tried:
        body.apply(recipe.at(weights))
        loss = target.loss()
        found = Tried(weights, -(loss + LORAHUB_PRICE * float(np.mean(np.abs(weights)))), loss)
        log.add(found)
        say(f"weights {', '.join(f'{weight:.3g}' for weight in weights)}: loss {loss:.4f}")
        return found

    tried = bounded_search(evaluate, len(body.sources), settings.budget, known=log.known)
    best = max(tried, key=lambda one: one.rank)
    choice = Choice("examples", len(tried), len(target.rows), [one.to_json() for one in tried])
    return recipe.at(best.weights), choice


def _score(
    body: Body, target: _Target, recipe: Any, settings: Settings, sources: Any, spec: Any, choice: Choice, where: str,
    alike: Any, say: Say,
) -> dict[str, Any]:  # fmt: skip
    """The composition beside each expert's body and the base, every one with a head made in the same way."""
    ground = target.ground
    say(f"scoring on {ground.name}")
    splits = {"validation": ground.dataset.validation}
    if settings.with_test:
        splits["test"] = ground.dataset.test.open(spec.key)

    def ask() -> Answers:
        target.settle()
        return Answers(**{name: target.answers(split) for name, split in splits.items()})

    beside: dict[str, tuple[str, Answers]] = {}
    for at, source in enumerate(sources):
        body.apply_expert(at)
        if not target.is_fitted and at not in target.head.members:
            body.seat_head(target.head, target.head.values[target.head.members[0]])
        beside[source.name] = ("body", ask())
    body.apply(recipe)
    merged = ask()
    body.apply_base()
    beside["base"] = ("base", ask())
    return write_merge(ground, spec, sources, recipe, choice, where, merged, beside, alike)
