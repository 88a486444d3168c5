"""The English that perturbations know: what a label hangs on and nobody may touch, common words, and synonyms.

All of `english.json` was written by hand for this package. `synonyms`: words of a group may stand for each other, form
for form; `plainer`: the first word may give way to the second, not the other way round.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _lists() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(files(__package__).joinpath("english.json").read_text(encoding="utf-8"))
    return content


@cache
def negations() -> frozenset[str]:
    """Words that turn, weaken or bound what is said: `not`, `hardly`, `few`, `every`."""
    return _words("negations")


@cache
def number_words() -> frozenset[str]:
    return _words("numbers")


@cache
def function_words() -> frozenset[str]:
    """Articles, pronouns, prepositions, conjunctions, auxiliaries and the commonest adverbs."""
    return _words("function")


@cache
def known_words() -> frozenset[str]:
    """Words that a slip must not make out of another, and whose capital at the start of a sentence names nobody."""
    synonyms = {word for group in (*_lists()["synonyms"], *_lists()["plainer"]) for word in group.split()}
    return _words("common") | function_words() | negations() | number_words() | synonyms


@cache
def synonym_table() -> dict[str, tuple[str, ...]]:
    """Word to the words that may stand in its place, all in lower case."""
    table: dict[str, tuple[str, ...]] = {}
    for group in _lists()["synonyms"]:
        for word in (words := group.split()):
            table[word] = tuple(other for other in words if other != word)
    for entry in _lists()["plainer"]:
        word, plainer = entry.split()
        table[word] = (plainer,)
    return table


def distractors() -> tuple[str, ...]:
    """Sentences of everyday matters, free of opinion, negation, numbers and names."""
    return tuple(_lists()["distractors"])


def _words(name: str) -> frozenset[str]:
    return frozenset(word for line in _lists()[name] for word in line.split())
