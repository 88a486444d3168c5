"""Slips of the pen and look-alike letters: one edit a word, nothing that makes another common word."""

import random
from collections.abc import Callable, Iterable, Iterator

from deltaproof.robustness.perturbations.base import Proposal, TextEdit, perturbation
from deltaproof.robustness.perturbations.english import known_words
from deltaproof.robustness.perturbations.words import Word, is_protected, matching_case, words

KEYBOARD = {
    "q": "wa", "w": "qase", "e": "wsdr", "r": "edft", "t": "rfgy", "y": "tghu", "u": "yhji", "i": "ujko", "o": "iklp",
    "p": "ol", "a": "qwsz", "s": "awedxz", "d": "serfcx", "f": "drtgvc", "g": "ftyhbv", "h": "gyujnb", "j": "huikmn",
    "k": "jiolm", "l": "kop", "z": "asx", "x": "zsdc", "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip
"""Keys that touch each other on a QWERTY keyboard."""
HOMOGLYPHS = {
    "a": "\u0430", "c": "\u0441", "d": "\u0501", "e": "\u0435", "h": "\u04bb", "i": "\u0456", "j": "\u0458",
    "l": "\u04cf", "o": "\u043e", "p": "\u0440", "q": "\u051b", "s": "\u0455", "w": "\u051d", "x": "\u0445",
    "y": "\u0443", "v": "\u03bd", "g": "\u0261", "A": "\u0410", "B": "\u0412", "C": "\u0421", "E": "\u0415",
    "H": "\u041d", "I": "\u0406", "J": "\u0408", "K": "\u041a", "M": "\u041c", "N": "\u039d", "O": "\u041e",
    "P": "\u0420", "S": "\u0405", "T": "\u0422", "X": "\u0425", "Y": "\u04ae", "Z": "\u0396",
}  # fmt: skip
"""Latin letters and the letters of other scripts (mostly Cyrillic) that look the same in most fonts."""
SHORTEST = 4
"""Letters of a word that may be edited: in shorter ones a slip leaves too little to read."""


def swaps(word: str) -> Iterator[str]:
    """Two neighbouring letters inside of a word change places."""
    for at in _inner(word[:-1]):
        one, other = word[at], word[at + 1]
        if other.isalpha() and one.lower() != other.lower():
            yield word[:at] + other + one + word[at + 2 :]


def drops(word: str) -> Iterator[str]:
    """A letter inside of a word is left out."""
    return (word[:at] + word[at + 1 :] for at in _inner(word))


def key_slips(word: str) -> Iterator[str]:
    """A letter inside of a word becomes one whose key is next to it on a QWERTY keyboard."""
    for at in _inner(word):
        for near in KEYBOARD.get(word[at].lower(), ""):
            yield word[:at] + matching_case(near, word[at]) + word[at + 1 :]


def look_alikes(word: str) -> Iterator[str]:
    """A letter becomes one of another script that looks the same."""
    for at, letter in enumerate(word):
        if letter in HOMOGLYPHS:
            yield word[:at] + HOMOGLYPHS[letter] + word[at + 1 :]


def slips_of(word: Word, variants: Callable[[str], Iterable[str]]) -> list[str]:
    """A word's variants of one kind; none of a word that nobody may edit, and none that are words themselves."""
    if word.protected or len(word.text) < SHORTEST:
        return []
    return [new for new in variants(word.text) if not _is_a_word(new)]


def _one_a_word(text: str, rng: random.Random, variants: Callable[[str], Iterable[str]]) -> Proposal:
    """For each word that may be edited one of its variants, in random order."""
    found = words(text)
    edits = []
    for word in found:
        options = slips_of(word, variants)
        if options:
            edits.append(TextEdit(word.start, word.end, rng.choice(options)))
    rng.shuffle(edits)
    return len(found), edits


def _is_a_word(text: str) -> bool:
    return text.lower() in known_words() or is_protected(text.lower())


def _inner(word: str) -> Iterator[int]:
    """Positions of letters inside of the word: its first and last letters carry most of a reader's recognition."""
    return (at for at in range(1, len(word) - 1) if word[at].isalpha())


@perturbation("char_swap", "words")
def char_swap(text: str, rng: random.Random) -> Proposal:
    """Two neighbouring letters inside of a word change places."""
    return _one_a_word(text, rng, swaps)


@perturbation("char_drop", "words")
def char_drop(text: str, rng: random.Random) -> Proposal:
    """A letter inside of a word is left out."""
    return _one_a_word(text, rng, drops)


@perturbation("keyboard", "words")
def keyboard(text: str, rng: random.Random) -> Proposal:
    """A letter inside of a word becomes one whose key is next to it on a QWERTY keyboard."""
    return _one_a_word(text, rng, key_slips)


@perturbation("homoglyph", "words")
def homoglyph(text: str, rng: random.Random) -> Proposal:
    """A letter becomes one of another script that looks the same."""
    return _one_a_word(text, rng, look_alikes)


@perturbation("case_punctuation", "words")
def case_punctuation(text: str, rng: random.Random) -> Proposal:
    """A word changes to capitals or gets a capital, a comma comes after it, or the comma or full stop there goes."""
    found = words(text)
    edits = []
    for word in found:
        if word.protected or len(word.text) < SHORTEST:
            continue
        after = text[word.end : word.chunk[1]]
        options = {word.text.upper() + after, word.text.lower() + after, word.text.capitalize() + after}
        options |= {word.text} if after in (",", ".") else {word.text + ","} if not after else set()
        options -= {word.text + after}
        edits.append(TextEdit(word.start, word.chunk[1], rng.choice(sorted(options))))
    rng.shuffle(edits)
    return len(found), edits
