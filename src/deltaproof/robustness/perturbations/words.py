"""The words of a text, where they stand, and which of them a label may hang on."""

import re
from dataclasses import dataclass

from deltaproof.robustness.perturbations.english import known_words, negations, number_words

_CHUNK = re.compile(r"\S+")
_PLAIN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ENDS_SENTENCE = re.compile(r"[.!?:]\W*$")


@dataclass(frozen=True)
class Word:
    """A word without the punctuation around it."""

    text: str
    start: int
    """Its first character's position in the text."""
    end: int
    chunk: tuple[int, int]
    """The same with the punctuation that clings to it: where the blanks around end and begin."""
    protected: bool
    """Whether it is a negation, a number, a name or no plain word, which no edit of words touches."""


def words(text: str) -> list[Word]:
    """Every chunk between blanks that holds a letter or digit.

    Names are told by their capitals: any capital counts, but for a well-known word where a sentence starts, or where
    capitals say little since most words have them (headlines). A text in lower case shows no names.

    >>> [word.text for word in words("Ann did not see 3 good films.") if not word.protected]
    ['did', 'see', 'good', 'films']
    """
    chunks = list(_CHUNK.finditer(text))
    cores = [_core(chunk[0]) for chunk in chunks]
    capitals_say_little = _is_headline([chunk[0][slice(*core)] for chunk, core in zip(chunks, cores, strict=True)])
    found = []
    for at, (chunk, (first, end)) in enumerate(zip(chunks, cores, strict=True)):
        if first == end:
            continue
        starts_sentence = at == 0 or _ENDS_SENTENCE.search(chunks[at - 1][0]) is not None
        core = chunk[0][first:end]
        protected = is_protected(core, starts_sentence or capitals_say_little)
        found.append(Word(core, chunk.start() + first, chunk.start() + end, chunk.span(), protected))
    return found


def is_protected(word: str, capital_says_little: bool = False) -> bool:
    """Whether a word carries a label by itself: a negation, a number, a name, an address.

    >>> [is_protected(word) for word in ("never", "couldn't", "seven", "B2", "Ann", "mail@x.org", "film")]
    [True, True, True, True, True, True, False]
    """
    lower = word.lower().replace("’", "'")
    if not _PLAIN.fullmatch(word) or lower.endswith("n't") or lower.startswith("non-"):
        return True
    if any(part in negations() or part in number_words() for part in (lower, *re.split("['-]", lower))):
        return True
    return word != word.lower() and not (capital_says_little and lower in known_words())


def matching_case(new: str, old: str) -> str:
    """`new` with the capitals of `old`.

    >>> matching_case("big", "Large"), matching_case("big", "LARGE"), matching_case("big", "large")
    ('Big', 'BIG', 'big')
    """
    if len(old) > 1 and old.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _core(chunk: str) -> tuple[int, int]:
    """First position and end of the chunk without the punctuation around it; equal where nothing is left."""
    inside = [at for at, character in enumerate(chunk) if character.isalnum()]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def _is_headline(cores: list[str]) -> bool:
    long = [core for core in cores if len(core) >= 4 and core[0].isalpha()]
    return len(long) >= 3 and 2 * sum(core[0].isupper() for core in long) > len(long)
