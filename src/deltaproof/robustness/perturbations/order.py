"""Words left out and words in another order: noise, since either may change what is said."""

import random
from itertools import pairwise

from deltaproof.robustness.perturbations.base import Proposal, TextEdit, perturbation
from deltaproof.robustness.perturbations.words import Word, words

WINDOW = 3
"""Words that are shuffled among themselves."""


@perturbation("word_drop", "words", sides=(1,), keeps_label=False, keeps_label_of_pairs=False)
def word_drop(text: str, rng: random.Random) -> Proposal:
    """A word is left out with the punctuation that clings to it, never the last one left. In pairs, of the second
    text."""
    found = words(text)
    ends = [word.chunk[0] for word in found[1:]] + [word.chunk[1] for word in found[-1:]]
    edits = [TextEdit(word.chunk[0], end, "") for word, end in zip(found, ends, strict=True) if not word.protected]
    rng.shuffle(edits)
    return len(found), edits[: max(0, len(found) - 1)]


@perturbation("local_shuffle", "windows of three words", sides=(1,), keeps_label=False, keeps_label_of_pairs=False)
def local_shuffle(text: str, rng: random.Random) -> Proposal:
    """Two or three words next to each other change their order; punctuation, negations, numbers and names stay. In
    pairs, in the second text."""
    windows = [window for run in _runs(words(text)) for window in _windows(run)]
    edits = []
    for window in windows:
        order = [word.text for word in window]
        while len(set(order)) > 1 and order == [word.text for word in window]:
            rng.shuffle(order)
        gaps = [text[one.end : other.start] for one, other in pairwise(window)]
        new = "".join(part for pair in zip(order, [*gaps, ""], strict=True) for part in pair)
        if len(set(order)) > 1:
            edits.append(TextEdit(window[0].start, window[-1].end, new))
    rng.shuffle(edits)
    return len(windows), edits


def _runs(found: list[Word]) -> list[list[Word]]:
    """Stretches of words without a protected one."""
    runs: list[list[Word]] = [[]]
    for word in found:
        if word.protected:
            runs.append([])
        else:
            runs[-1].append(word)
    return runs


def _windows(run: list[Word]) -> list[list[Word]]:
    """Windows of three words one after the other; the last may have two."""
    windows = [run[at : at + WINDOW] for at in range(0, len(run), WINDOW)]
    return [window for window in windows if len(window) > 1]
