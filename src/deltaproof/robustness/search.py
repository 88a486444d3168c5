"""Search for the edits that turn a model's answer: black-box, greedy, word by word in the order of their importance.

Words are ranked by how far the true class's probability falls when each is left out; then each in turn gets the edit
that lowers it most, until the answer is wrong or a budget is spent. Source: Jin et al., 2020, arXiv:1907.11932
(TextFooler), algorithm 1; Gao et al., 2018, arXiv:1801.04354 (DeepWordBug), sec. III. What is tried in place of a word
is ours (`search_recipes.py`), and so are the limits.
"""

import math
import random
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deltaproof.errors import ConfigError
from deltaproof.robustness.perturbations import Perturbed, TextEdit
from deltaproof.robustness.perturbations.base import applied
from deltaproof.robustness.perturbations.words import Word, words
from deltaproof.robustness.search_recipes import Recipe
from deltaproof.seeding import sub_seed

Array = NDArray[np.float64]
Texts = tuple[str, ...]
"""A row's one text, or two."""
Ask = Callable[[list[Texts]], Array]
"""The model: (n, classes) probabilities."""
ROWS_AT_ONCE = 500
"""So many rows' texts are held in memory at a time."""


@dataclass(frozen=True, eq=False)
class Found:
    """What the search came to for one row, within one budget."""

    texts: tuple[Perturbed, ...]
    """The row's texts; the budget is one for all of them together."""
    outputs: Array
    """(classes,) the model's answer to them."""
    n_queries: int
    """Texts that the model was asked about, the clean one not counted."""
    n_words: int
    """Of the texts that may be edited."""


@dataclass(frozen=True)
class _Place:
    """A word that may be edited, and what may stand there."""

    side: int
    word: Word
    candidates: tuple[str, ...]

    def with_(self, new: str) -> tuple[int, TextEdit]:
        return self.side, TextEdit(self.word.start, self.word.end, new)


@dataclass(frozen=True, eq=False)
class _State:
    """Edits made so far, the answer to them, and what it took to get there."""

    edits: tuple[tuple[int, TextEdit], ...]
    outputs: Array
    n_queries: int


@dataclass(eq=False)
class _Row:
    """One row under attack."""

    texts: Texts
    truth: int
    places: list[_Place]
    n_words: int
    states: list[_State] = field(default_factory=list)
    """After each edit that was kept; the first is the clean one."""
    n_queries: int = 0

    def edited(self, edits: Sequence[tuple[int, TextEdit]]) -> Texts:
        sides = range(len(self.texts))
        return tuple(applied(self.texts[side], [edit for at, edit in edits if at == side]) for side in sides)

    def without(self, place: _Place) -> Texts:
        """The row with a word left out, and one of the blanks around it."""
        end = place.word.end + self.texts[place.side][place.word.end :][:1].isspace()
        return self.edited([(place.side, TextEdit(place.word.start, end, ""))])

    def attack(self, clean: Array, most_edits: int, most_queries: int) -> Generator[list[Texts], Array, None]:
        """Yields texts to ask about, is sent the answers, and leaves its way in `states`."""
        self.states.append(_State((), clean, 0))
        places = self.places[:most_queries]
        if not places or clean.argmax() != self.truth:
            return
        left_out = yield from self._asked([self.without(place) for place in places])
        for at in np.argsort(left_out[:, self.truth], kind="stable"):
            state, left = self.states[-1], most_queries - self.n_queries
            if len(state.edits) == most_edits or left <= 0:
                return
            tried = [(*state.edits, places[at].with_(new)) for new in places[at].candidates[:left]]
            answers = yield from self._asked([self.edited(edits) for edits in tried])
            is_turned = answers.argmax(axis=1) != self.truth
            rank = np.where(is_turned, answers[:, self.truth] - 1, answers[:, self.truth])  # what turns it comes first
            best = int(rank.argmin())
            if is_turned[best] or answers[best, self.truth] < state.outputs[self.truth]:
                self.states.append(_State(tried[best], answers[best], self.n_queries))
            if is_turned[best]:
                return

    def _asked(self, texts: list[Texts]) -> Generator[list[Texts], Array, Array]:
        self.n_queries += len(texts)
        return (yield texts)

    def within(self, most_edits: int, sides: Sequence[int]) -> Found:
        """Where a search of this budget ends: the way of a larger one, as far as the budget goes."""
        state = self.states[min(most_edits, len(self.states) - 1)]
        is_spent = len(state.edits) == most_edits
        changed = self.edited(state.edits)
        edits = [tuple(edit for at, edit in state.edits if at == side) for side in range(len(self.texts))]
        texts = tuple(Perturbed(changed[at], edits[at], most_edits * (at in sides)) for at in range(len(self.texts)))
        return Found(texts, state.outputs, state.n_queries if is_spent else self.n_queries, self.n_words)


def search(
    ask: Ask,
    rows: Sequence[tuple[str, Texts]],
    truths: Sequence[int],
    clean: Array,
    recipe: Recipe,
    strengths: Sequence[float],
    *,
    most_queries: int = 200,
    seed: int = 0,
) -> dict[float, list[Found]]:
    """What the search finds for each row, by strength; rows whose clean answer is wrong are left as they are.

    All rows go ahead side by side, so that the model is asked about many texts at once. What is tried depends on the
    row's id, its texts, the seed and the model's answers to it, not on the other rows.

    Args:
        ask: the model that is attacked.
        rows: id and texts of each.
        truths: class index of each.
        clean: (n, classes) the model's clean answers.
        strengths: shares of a row's words that may be edited, at least one word.
        most_queries: of one row, its ranking included.
    Raises:
        ConfigError: no strength in 0..1, or no query.
    """
    if not strengths or any(not 0 < strength <= 1 for strength in strengths) or most_queries < 1:
        raise ConfigError(
            f"`0 < strength <= 1` and `most_queries >= 1` must hold, got {list(strengths)} and {most_queries}; 0.2 of "
            f"the words and 200 queries are usual"
        )
    found = [_row(row_id, texts, int(truth), recipe, seed) for (row_id, texts), truth in zip(rows, truths, strict=True)]
    attacks = [
        row.attack(answer, budget(max(strengths), row.n_words), most_queries)
        for row, answer in zip(found, clean, strict=True)
    ]
    for start in range(0, len(attacks), ROWS_AT_ONCE):
        _drive(ask, attacks[start : start + ROWS_AT_ONCE])
    return {
        strength: [row.within(budget(strength, row.n_words), recipe.sides(len(row.texts))) for row in found]
        for strength in strengths
    }


def budget(strength: float, n_words: int) -> int:
    """Most edits of a row: `strength` of its words, upwards.

    >>> budget(0.1, 12), budget(0.5, 0)
    (2, 0)
    """
    return math.ceil(strength * n_words - 1e-9)


def _row(row_id: str, texts: Texts, truth: int, recipe: Recipe, seed: int) -> _Row:
    places, n_words = [], 0
    for side in recipe.sides(len(texts)):
        rng = random.Random(sub_seed(seed, "search", recipe.name, row_id, side))
        found = words(texts[side])
        n_words += len(found)
        for before, word in zip([None, *found], found, strict=False):
            candidates = tuple(recipe.candidates(word, before, rng))
            if candidates:
                places.append(_Place(side, word, candidates))
    return _Row(texts, truth, places, n_words)


def _drive(ask: Ask, attacks: Sequence[Generator[list[Texts], Array, None]]) -> None:
    """Let all attacks take their steps, each step's texts of all of them asked at once."""
    asked = [(attack, texts) for attack in attacks if (texts := next(attack, None)) is not None]
    while asked:
        answers = ask([text for _, texts in asked for text in texts])
        ends = np.cumsum([len(texts) for _, texts in asked])
        going = []
        for (attack, texts), end in zip(asked, ends, strict=True):
            with suppress(StopIteration):
                going.append((attack, attack.send(answers[end - len(texts) : end])))
        asked = going
