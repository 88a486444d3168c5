"""What a search may put in place of a word: slips and look-alike letters, or near-synonyms."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from deltaproof.registry import Registry
from deltaproof.robustness.perturbations import PERTURBATIONS, Promise
from deltaproof.robustness.perturbations.characters import drops, key_slips, look_alikes, slips_of, swaps
from deltaproof.robustness.perturbations.synonyms import synonyms_of
from deltaproof.robustness.perturbations.words import Word

SLIPS_A_KIND = 2
"""Of each kind of slip so many are tried on a word, drawn at random: the original tries one."""
MOST_SYNONYMS = 8


@dataclass(frozen=True)
class Recipe:
    """One kind of search; what it promises is what the perturbation `like` promises, which makes the same edits."""

    name: str
    summary: str
    like: str
    candidates: Callable[[Word, Word | None, random.Random], list[str]]
    """What is tried in place of a word, given the word before it; nothing for a word that nobody may edit."""
    levels: tuple[float, ...] = (0.1, 0.2, 0.4)
    """Usual strengths: shares of a row's words that may be edited."""

    def sides(self, n_texts: int) -> tuple[int, ...]:
        """Which texts of a row are edited."""
        return PERTURBATIONS[self.like].sides if n_texts > 1 else (0,)

    def promise(self, n_texts: int = 1) -> Promise:
        return PERTURBATIONS[self.like].promise(n_texts)

    def source(self) -> str:
        return PERTURBATIONS[self.like].source()


RECIPES: Registry[Recipe] = Registry("search")


def _slips(word: Word, before: Word | None, rng: random.Random) -> list[str]:
    found: list[str] = []
    for kind in (swaps, drops, key_slips, look_alikes):
        options = slips_of(word, kind)
        found += rng.sample(options, min(SLIPS_A_KIND, len(options)))
    return list(dict.fromkeys(found))


def _synonyms(word: Word, before: Word | None, rng: random.Random) -> list[str]:
    return synonyms_of(word, before)[:MOST_SYNONYMS]


for _recipe in (
    Recipe(
        "deepwordbug",
        "The words that the answer hangs on get a slip or a look-alike letter each, until the answer turns: a search "
        "against each model by itself, by its probabilities alone. After Gao et al., 2018, arXiv:1801.04354.",
        "char_swap",
        _slips,
    ),
    Recipe(
        "synonym_search",
        "The words that the answer hangs on give way to near-synonyms, until the answer turns: a search against each "
        "model by itself, by its probabilities alone. After Jin et al., 2020, arXiv:1907.11932.",
        "synonym",
        _synonyms,
    ),
):
    RECIPES.add(_recipe.name)(_recipe)
