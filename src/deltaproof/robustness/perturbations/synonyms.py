"""Words with near-synonyms: from WordNet where nltk and its data lie on this machine, else from our own table."""

import random
import re
from functools import cache
from typing import Any

from deltaproof.robustness.perturbations.base import OWN, Proposal, TextEdit, perturbation
from deltaproof.robustness.perturbations.english import function_words, synonym_table
from deltaproof.robustness.perturbations.words import Word, is_protected, matching_case, words

_VOWEL_SOUND = re.compile(r"(?!uni|use|usu|eu|one|once)[aeiou]|hour|hon|heir")


@cache
def wordnet() -> Any:
    """nltk's reader of WordNet; None where nltk or the data are missing. Nothing is downloaded."""
    try:
        from nltk.corpus import wordnet as reader

        reader.ensure_loaded()
    except (ImportError, LookupError):
        return None
    return reader


def source() -> str:
    """Where synonyms come from on this machine, such as `wordnet 3.0`.

    Only our own table was read word by word: what WordNet gives promises nothing about labels.
    """
    return OWN if wordnet() is None else f"wordnet {wordnet().get_version()}"


@cache
def synonyms(word: str) -> tuple[str, ...]:
    """What may stand in place of a word in lower case, in a fixed order."""
    if wordnet() is None:
        return synonym_table().get(word, ())
    return _from_wordnet(word)


def _from_wordnet(word: str) -> tuple[str, ...]:
    """Single words of the most frequent sense, for a word that is one part of speech alone and in its base form.

    Others would need a tagger or inflection; and a function word would turn into a noun that is spelt alike.
    """
    senses = wordnet().synsets(word)
    if len(word) < 4 or word in function_words() or len({_part_of_speech(sense) for sense in senses}) != 1:
        return ()
    if wordnet().morphy(word, senses[0].pos()) != word:
        return ()
    names = dict.fromkeys(name.lower() for name in senses[0].lemma_names() if name.isalpha())
    return tuple(name for name in names if name != word and not is_protected(name))


def _part_of_speech(sense: Any) -> str:
    """n, v, a or r; WordNet's satellite adjectives are adjectives."""
    return "a" if sense.pos() == "s" else str(sense.pos())


@perturbation("synonym", "words", sides=(1,), keeps_label_of_pairs=False, source=source)
def synonym(text: str, rng: random.Random) -> Proposal:
    """A word gives way to a near-synonym of the same form. In pairs, the second text."""
    found = words(text)
    edits = []
    for before, word in zip([None, *found], found, strict=False):
        options = synonyms_of(word, before)
        if options:
            edits.append(TextEdit(word.start, word.end, rng.choice(options)))
    rng.shuffle(edits)
    return len(found), edits


def synonyms_of(word: Word, before: Word | None) -> list[str]:
    """What may stand in place of a word in its text, with its capitals; nothing for a word that nobody may edit.

    Args:
        before: the word before it.
    """
    if word.protected:
        return []
    return [matching_case(new, word.text) for new in _fitting(synonyms(word.text.lower()), word, before)]


def _fitting(options: tuple[str, ...], word: Word, before: Word | None) -> list[str]:
    """Those that agree with an article before them: `a film`, but not `a amusing film`."""
    if before is None or before.text.lower() not in ("a", "an"):
        return list(options)
    return [new for new in options if _starts_with_a_vowel(new) == _starts_with_a_vowel(word.text.lower())]


def _starts_with_a_vowel(word: str) -> bool:
    return _VOWEL_SOUND.match(word) is not None
