"""What a robustness study tries: which sets, at which strengths, on which rows; settled before any model answers."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deltaproof.data.dataset import Dataset
from deltaproof.data.split import Split
from deltaproof.errors import ConfigError, DataError, nearest
from deltaproof.robustness.perturbations import EMBEDDING_PGD, PERTURBATIONS
from deltaproof.robustness.search_recipes import RECIPES
from deltaproof.robustness.sets import PerturbedSet, perturb_split, read_adversarial, write_rows
from deltaproof.robustness.weight_noise import QUESTIONS
from deltaproof.seeding import sub_seed
from deltaproof.studies.grounds import drawn_by_class

WEIGHT_NOISE = "weight_noise"
ALL = (*PERTURBATIONS, EMBEDDING_PGD, WEIGHT_NOISE)
"""Ten perturbations of texts, one of embeddings, one of weights."""
SEARCHES = tuple(RECIPES)
"""Searches against each model by itself: asked for by name, since one takes longer than all ten perturbations of
texts."""
EPSILONS = (0.01, 0.03, 0.1)
NOISE_SIZES = (0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Attack:
    """What is to be tried on the models of a run."""

    perturbations: Sequence[str] = ALL
    """Names among `ALL` and `SEARCHES`; none for a user's own sets alone."""
    strengths: Sequence[float] = ()
    """Of the text perturbations and searches, shares of what each edits; each one's own three levels when left out."""
    n_draws: int = 1
    """Seeds of each text perturbation; per example their mean counts."""
    epsilons: Sequence[float] = EPSILONS
    """Of embedding PGD, shares of the embeddings' length."""
    pgd_steps: int = 5
    noise_sizes: Sequence[float] = NOISE_SIZES
    """Of weight noise, shares of the weights' length."""
    noise_draws: int = 3
    most_queries: int = 200
    """Of a search, texts that a model is asked about for one row."""
    transfer: bool = False
    """Whether all methods are asked the texts that a search found against the reference, too."""
    adversarial: Sequence[str] = ()
    """A user's own adversarial or shifted sets; `file.json#part` names a list in a JSON file of several."""
    contrast: Sequence[str] = ()
    """Contrast sets or counterfactual pairs, which `group` tells apart."""
    text: str | None = None
    """Text columns of these files, where their names do not tell."""
    label: str | None = None
    group: str | None = None
    label_names: Mapping[str, str] = field(default_factory=dict)
    """What the files write as label, to the data set's name for it."""
    max_examples: int | None = None
    """Most test rows that are perturbed, drawn by class."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.perturbations:
            if name not in (*ALL, *SEARCHES):
                known = nearest(name, (*ALL, *SEARCHES))
                raise ConfigError(f"a perturbation must be a known one, got `{name}`; {known}; or all, none, search")
        for name, values, top in (
            ("strengths", self.strengths, 1.0), ("epsilons", self.epsilons, np.inf),
            ("noise_sizes", self.noise_sizes, np.inf),
        ):  # fmt: skip
            wrong = [value for value in values if not (0 < value <= top and np.isfinite(value))]
            if wrong:
                bound = f"0 < strength <= {top:g}" if np.isfinite(top) else "0 < strength"
                raise ConfigError(
                    f"`{bound}` must hold for `{name}`, got {wrong[0]:g}; the clean answers are 0 already"
                )
        least = {"n_draws": 1, "pgd_steps": 1, "noise_draws": 1, "most_queries": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"`{name} >= {low}` must hold, got {getattr(self, name)}; leave it out for the usual")
        if self.max_examples is not None and self.max_examples < 2:
            raise ConfigError(f"`max_examples >= 2` must hold, got {self.max_examples}; give some hundreds")
        if self.transfer and not self.searches:
            raise ConfigError(
                f"`transfer` needs a search whose texts are handed on, got none; name {' or '.join(SEARCHES)}"
            )
        if not (self.perturbations or self.adversarial or self.contrast):
            raise ConfigError("something must be tried, got no perturbation and no file; name a perturbation or `all`")
        if self.contrast and self.group is None:
            raise ConfigError(
                f"`contrast` needs the column that says which rows belong together, got none for `{self.contrast[0]}`; "
                f"name it with `group`"
            )

    @property
    def texts(self) -> list[str]:
        """The text perturbations asked for, each once."""
        return [name for name in PERTURBATIONS if name in self.perturbations]

    @property
    def searches(self) -> list[str]:
        """The searches asked for, each once."""
        return [name for name in SEARCHES if name in self.perturbations]

    def levels(self, name: str) -> list[float]:
        kind = RECIPES[name] if name in SEARCHES else PERTURBATIONS[name]
        return sorted(set(self.strengths or kind.levels))

    def middle(self, name: str) -> float:
        levels = self.levels(name)
        return levels[(len(levels) - 1) // 2]

    def seeds(self) -> list[int]:
        """One for each draw: the study's own seed comes first."""
        return [self.seed, *(sub_seed(self.seed, "perturbation draw", at) for at in range(1, self.n_draws))]


@dataclass(frozen=True, eq=False)
class Given:
    """A file of the user's, read and checked."""

    name: str
    split: Split
    notes: list[str]
    is_contrast: bool


def read_given(attack: Attack, dataset: Dataset, known_names: Mapping[str, str] | None = None) -> list[Given]:
    """The user's own sets, before anything is asked of a model.

    Args:
        known_names: what the run's own data write as label, to its name: holds where the attack says nothing else.
    Raises:
        DataError: a file does not fit the data set (texts, labels), has one row or one group, or a contrast file has
            no two rows that belong together.
    """
    if attack.contrast and dataset.kind == "regression":
        raise DataError(
            f"contrast sets need answers that are right or wrong, `{dataset.name}` has numbers as its targets; "
            f"give the file as an adversarial set"
        )
    found: list[Given] = []
    names = {**(known_names or {}), **attack.label_names}
    for source, is_contrast in (
        *((name, False) for name in attack.adversarial),
        *((name, True) for name in attack.contrast),
    ):
        made = read_adversarial(
            source, dataset, text=attack.text, label=attack.label, group=attack.group, label_names=names,
            needs_group=is_contrast or not attack.contrast,
        )  # fmt: skip
        if len(made.split) < 2:
            raise DataError(f"`{source}` must have at least 2 rows, got {len(made.split)}; add rows")
        _check_groups(source, made.split.groups, attack.group, is_contrast)
        name = made.name
        while name in (*ALL, *SEARCHES) or any(other.name == name for other in found):
            name += "'"
        found.append(Given(name, made.split, made.notes, is_contrast))
    return found


def _check_groups(source: str, groups: list[str] | None, column: str | None, is_contrast: bool) -> None:
    """An interval is over groups, so there must be two; of a contrast file some must hold several rows."""
    n_groups = None if groups is None else len(set(groups))
    if n_groups == 1:
        raise DataError(
            f"`{source}` must have at least 2 groups, got `{groups[0] if groups else ''}` alone in `{column}`; add "
            f"rows of others, or name the column that tells them apart"
        )
    if is_contrast and groups is not None and n_groups == len(groups):
        raise DataError(
            f"`{source}`: rows that belong together must share their `{column}`, got {len(groups)} rows of as many "
            f"groups; name the column that they share"
        )


def check_searches(attack: Attack, dataset: Dataset) -> None:
    """Refuse a search where a row has no one class whose probability it could lower."""
    if attack.searches and dataset.kind != "classification":
        what = "numbers as its targets" if dataset.kind == "regression" else "several labels for each row"
        raise DataError(
            f"a search needs rows of one true class each, `{dataset.name}` has {what}; leave out "
            f"{' and '.join(attack.searches)}: the other perturbations are defined for it"
        )


def chosen_rows(test: Split, kind: str, attack: Attack) -> Split:
    """The test rows that are perturbed: all, or a sample by class that other choices of the study leave as it is."""
    return drawn_by_class(test, kind, attack.max_examples, attack.seed, "robustness")


def text_sets(rows: Split, attack: Attack) -> Iterator[tuple[str, float, list[PerturbedSet]]]:
    """Name, strength and draws of every perturbed copy of the rows."""
    for name in attack.texts:
        for strength in attack.levels(name):
            yield name, strength, [perturb_split(rows, name, strength, seed) for seed in attack.seeds()]


def write_given(folder: Path, given: Given) -> str:
    """Store the exact rows of a user's set in the run folder; returns the path below it."""
    place = f"robustness/sets/{file_name(given.name)}-{given.split.fingerprint[:8]}.jsonl"
    write_rows(folder / place, given.split)
    return place


def file_name(name: str) -> str:
    """A name of letters that every file system takes.

    >>> file_name("dev#sst2"), file_name("char_swap@0.1")
    ('dev-sst2', 'char_swap@0.1')
    """
    return "".join(letter if letter.isalnum() or letter in "_-.@" else "-" for letter in name)


def digest(facts: Any) -> str:
    """Eight hexadecimal digits that stand for everything that decides a set's answers."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


__all__ = ["ALL", "QUESTIONS", "Attack", "Given", "chosen_rows", "digest", "read_given", "text_sets", "write_given"]
