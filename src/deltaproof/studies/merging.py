"""A merge as a run: experts opened, weights settled, the merged model scored on each expert's task, records written."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deltaproof.data.split import Split
from deltaproof.errors import ConfigError
from deltaproof.merging.body import Body, Head
from deltaproof.merging.combine import SPARSE, Recipe, cosines
from deltaproof.merging.search import Tried, Weights, coordinate_search
from deltaproof.merging.sources import ExpertSource, look_at
from deltaproof.records.record import Predictions
from deltaproof.records.spec import Spec
from deltaproof.studies.grounds import Ground, Say, drawn_by_class, find_grounds
from deltaproof.studies.merge_record import Answers, Choice, known_merge, merge_spec, write_merge
from deltaproof.studies.path import losses
from deltaproof.studies.search_log import SearchLog

DENSITY, RANK = 0.2, 16
"""What is kept by rules that drop entries, and the rank of `svd`, where nothing else is asked for."""
BUDGET, SEARCH_ROWS = 40, 200
"""Evaluations of a search, and rows of each task that one takes."""


@dataclass(frozen=True)
class Settings:
    """What is asked of a merge."""

    how: str = "linear"
    weights: str = "equal"
    """`equal` (1 each), `auto` (chosen on validation), or numbers separated by commas."""
    density: float | None = None
    rank: int | None = None
    seed: int = 0
    budget: int = BUDGET
    search_rows: int = SEARCH_ROWS
    base: str | None = None
    runs: Sequence[Path] = ()
    """Run folders with the data of experts that do not lie in theirs."""
    with_test: bool = False
    """Score on the sealed test rows too, once."""
    trust_remote_code: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def recipe(self, n_experts: int) -> Recipe:
        """With weights of 1 where they are still to be chosen.

        Raises:
            ConfigError: something does not go.
        """
        is_open = self.weights in ("equal", "auto")
        weights = tuple([1.0] * n_experts if is_open else numbers(self.weights, "--weights"))
        density = self.density if self.density is not None else DENSITY if self.how in SPARSE else 1.0
        rank = self.rank if self.rank is not None else RANK if self.how == "svd" else None
        recipe = Recipe(self.how, weights, density, rank, self.seed)
        recipe.check(n_experts)
        if self.budget < 1 or self.search_rows < 2:
            raise ConfigError(
                f"`budget >= 1` and `search_rows >= 2` must hold, got {self.budget} and {self.search_rows}; leave them "
                f"out for the usual"
            )
        return recipe


@dataclass
class MergeRun:
    """What came of it; the body still holds the merge."""

    body: Body
    sources: list[ExpertSource]
    recipe: Recipe
    choice: Choice
    grounds: list[Ground]
    entries: list[dict[str, Any]]
    """One for each ground, as in `studies/merging.json`."""
    cosines: list[list[float | None]]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_json(),
            "chosen_on": self.choice.chosen_on,
            "tried": list(self.choice.tried),
            "experts": [
                {"name": one.name, "path": str(one.path), "contestant": one.contestant, "base": one.base,
                 "stored_bytes": one.stored_bytes, "weight": weight}
                for one, weight in zip(self.sources, self.recipe.weights, strict=True)
            ],
            "cosines": self.cosines,
            "heads": {head.name: [self.sources[at].name for at in head.members] for head in self.body.heads},
            "runs": [{"run": str(ground.store.folder), "metric": ground.metric.name, **entry}
                     for ground, entry in zip(self.grounds, self.entries, strict=True)],
            "notes": self.notes,
        }  # fmt: skip


def numbers(text: str, option: str) -> list[float]:
    """Numbers separated by commas.

    Raises:
        ConfigError: they are none.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"`{option}` takes numbers separated by commas, got `{text}`; write for example 1,0.5"
        ) from None


def merge(paths: Sequence[Path], settings: Settings, say: Say = lambda text: None) -> MergeRun:
    """Merge experts of one base, and score the result on the data of each.

    Args:
        paths: `.dpz` files, tuned models or run folders, PEFT adapters, whole models.
    Raises:
        ConfigError: the experts are of different bases, a setting is out of its range, or there is nothing to score on
            where scores are asked for.
    """
    sources = look_at(list(paths), settings.base)
    recipe = settings.recipe(len(sources))
    grounds = find_grounds(sources, settings.runs)
    _check_grounds(settings, grounds)
    say(f"opening {len(sources)} experts of `{sources[0].base}`")
    body = Body(sources, trust_remote_code=settings.trust_remote_code).to(settings.device)
    choice = Choice()
    if settings.weights == "auto":
        recipe, choice = _search(body, recipe, settings, grounds, say)
    alike = cosines(body.experts, body.names)
    run = MergeRun(body, sources, recipe, choice, grounds, [], alike, list(body.notes))
    _score_all(run, settings.with_test, say)
    return run


def _check_grounds(settings: Settings, grounds: list[Ground]) -> None:
    if grounds or not (settings.weights == "auto" or settings.with_test):
        return
    what = "`--weights auto` chooses on" if settings.weights == "auto" else "`--test` scores on"
    raise ConfigError(
        f"{what} the data of run folders, no expert lies in one; name them with `--run`, or take fixed weights"
    )


def _head_of(body: Body, ground: Ground) -> Head:
    return next(head for head in body.heads if ground.members[0] in head.members)


def _ask(body: Body, ground: Ground, split: Split) -> Predictions:
    head = _head_of(body, ground)
    return ground.answers(head.backbone.model, head.task, head.backbone.tokenizer, split)


def _search(
    body: Body, recipe: Recipe, settings: Settings, grounds: list[Ground], say: Say
) -> tuple[Recipe, Choice]:  # fmt: skip
    """Weights by the mean of the tasks' validation scores, the mean loss deciding ties."""
    rows = [
        drawn_by_class(one.dataset.validation, one.task.kind, settings.search_rows, settings.seed, "merging")
        for one in grounds
    ]
    log = SearchLog.of(grounds[0].store, body.sources, recipe, [one.fingerprint for one in rows])

    def evaluate(weights: Weights) -> Tried:
        body.apply(recipe.at(weights))
        answers = [_ask(body, ground, split) for ground, split in zip(grounds, rows, strict=True)]
        values = [_goodness(ground, answer) for ground, answer in zip(grounds, answers, strict=True)]
        loss = float(np.mean([losses(one.task, answer).mean() for one, answer in zip(grounds, answers, strict=True)]))
        found = Tried(weights, float(np.mean(values)), loss)
        log.add(found)
        say(f"weights {', '.join(f'{weight:g}' for weight in weights)}: {found.value:.4f}, loss {loss:.4f}")
        return found

    tried = coordinate_search(evaluate, len(body.sources), settings.budget, recipe.how != "linear", log.known)
    best = max(tried, key=lambda one: one.rank)
    choice = Choice("validation", len(tried), sum(map(len, rows)), [one.to_json() for one in tried])
    return recipe.at(best.weights), choice


def _goodness(ground: Ground, answers: Predictions) -> float:
    """A score that larger is better of and that tasks can be averaged over: errors count negative."""
    value = ground.score(answers)
    return value if ground.metric.higher_is_better else -value


def _score_all(run: MergeRun, with_test: bool, say: Say) -> None:
    """The merge on every ground, beside the experts of its task and the base; the body holds the merge in the end."""
    body, asked = run.body, [_Asked.of(run, ground) for ground in run.grounds]
    known = [known_merge(one.ground, one.spec.key, with_test) for one in asked]
    new = [one for one, entry in zip(asked, known, strict=True) if entry is None]
    for one in new:
        one.open(with_test)
    for at, source in enumerate(run.sources):
        if here := [one for one in new if at in one.ground.members]:
            say(f"scoring {source.name} on {', '.join(one.ground.name for one in here)}")
            body.apply_expert(at)
        for one in here:
            own, stored = one.ask(), _stored_answers(one.ground, source) if with_test else None
            one.beside[source.name] = ("expert", own if stored is None else replace(own, test=stored))
    say("merging")
    body.apply(run.recipe)
    for one in new:
        say(f"scoring the merge on {one.ground.name}")
        one.merged = one.ask()
    if new:
        say("scoring the base with the heads of the merge")
        body.apply_base()
        for one in new:
            one.beside["base"] = ("base", one.ask())
        body.apply(run.recipe)
    for one, entry in zip(asked, known, strict=True):
        if entry is not None:
            say(f"{one.ground.name}: scored before, record {one.spec.key}")
        run.entries.append(entry or one.write(run))


@dataclass
class _Asked:
    """One ground while it is scored."""

    ground: Ground
    head: Head
    head_in_words: str
    spec: Spec
    splits: dict[str, Split] = field(default_factory=dict)
    merged: Answers | None = None
    beside: dict[str, tuple[str, Answers]] = field(default_factory=dict)

    @classmethod
    def of(cls, run: MergeRun, ground: Ground) -> "_Asked":
        head = _head_of(run.body, ground)
        members = [run.sources[at].name for at in head.members]
        where = f"of {members[0]}" if len(members) == 1 else f"mean of {', '.join(members)}"
        return cls(ground, head, where, merge_spec(ground, head.task, run.sources, run.recipe, run.choice, where))

    def open(self, with_test: bool) -> None:
        """Read the rows; a look at the sealed ones is entered in the ledger under the merge's key."""
        self.splits = {"validation": self.ground.dataset.validation}
        if with_test:
            self.splits["test"] = self.ground.dataset.test.open(self.spec.key)

    def ask(self) -> Answers:
        """What body and head, as they stand, answer here."""
        model, tokenizer = self.head.backbone.model, self.head.backbone.tokenizer
        return Answers(
            **{name: self.ground.answers(model, self.head.task, tokenizer, rows) for name, rows in self.splits.items()}
        )

    def write(self, run: MergeRun) -> dict[str, Any]:
        assert self.merged is not None
        return write_merge(
            self.ground, self.spec, run.sources, run.recipe, run.choice, self.head_in_words, self.merged, self.beside,
            run.cosines,
        )  # fmt: skip


def _stored_answers(ground: Ground, source: ExpertSource) -> Predictions | None:
    """What an expert's own final run answered on the test rows; a compressed one answers otherwise."""
    if source.kind == "file" or source.key is None or not ground.store.predictions_path(source.key).is_file():
        return None
    return ground.store.predictions(source.key)
