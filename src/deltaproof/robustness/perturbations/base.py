"""What a perturbation of texts is: edits in a random order, of which a strength lets the first ones through."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from deltaproof.errors import ConfigError
from deltaproof.registry import Registry
from deltaproof.seeding import sub_seed

Promise = Literal["keeps label", "noise"]
OWN = "deltaproof"
"""Where words come from that were written and read for this package."""


@dataclass(frozen=True)
class TextEdit:
    """Characters `start` to `end` of a text give way to `text`."""

    start: int
    end: int
    text: str


Proposal = tuple[int, list[TextEdit]]
"""How many units (words, windows, sentences) strength 1 means, and disjoint edits of one unit each, in random order."""


@dataclass(frozen=True)
class Perturbed:
    """One text after a perturbation."""

    text: str
    edits: tuple[TextEdit, ...]
    """What was done, by positions in the text before."""
    budget: int
    """Most edits that the strength allowed."""


@dataclass(frozen=True)
class Perturbation:
    """One way to perturb texts."""

    name: str
    summary: str
    unit: str
    """What an edit changes one of; a strength is a share of these."""
    propose: Callable[[str, random.Random], Proposal]
    levels: tuple[float, ...] = (0.1, 0.2, 0.4)
    """Strengths that are usual."""
    keeps_label: bool = True
    """Whether a reader would label the text as before, in tasks about meaning. Tasks about form (acceptability,
    spelling, who wrote it) are outside of every promise."""
    keeps_label_of_pairs: bool = True
    """The same for tasks about two texts, where a near-synonym or a further sentence may change how they relate."""
    sides: tuple[int, ...] = (0, 1)
    """Which texts of a pair are edited; a single text is always."""
    source: Callable[[], str] = lambda: OWN
    """Where its words come from: words that nobody here has read promise nothing."""

    def promise(self, n_texts: int = 1) -> Promise:
        """What can be said of labels: what cannot promise to keep them is noise."""
        keeps = self.keeps_label if n_texts == 1 else self.keeps_label_of_pairs
        return "keeps label" if keeps and self.source() == OWN else "noise"

    def perturb(self, text: str, strength: float, rng: random.Random) -> Perturbed:
        """The text after at most ceil(strength * units) edits, so that from strength > 0 on short texts change too.

        What is drawn does not depend on the strength: from equal states of `rng`, the edits of a lower strength are
        among those of a higher one. A text is never left empty.

        Args:
            strength: share of the text's units that may be edited, in 0..1.
        """
        if not 0 <= strength <= 1:
            raise ConfigError(f"`0 <= strength <= 1` must hold, got {strength}; it is a share of {self.unit}")
        n_units, proposed = self.propose(text, rng)
        budget = math.ceil(strength * n_units - 1e-9)  # 0.07 * 100 is a little more than 7 in floating point
        edits = tuple(proposed[:budget])
        changed = applied(text, edits)
        return Perturbed(changed, edits, budget) if changed.strip() else Perturbed(text, (), budget)

    def perturb_row(self, texts: Sequence[str], strength: float, seed: int, row_id: str) -> tuple[Perturbed, ...]:
        """A row's text or pair of texts, perturbed; depends on nothing but the arguments, in any process."""
        sides = self.sides if len(texts) > 1 else (0,)
        return tuple(
            self.perturb(text, strength, random.Random(sub_seed(seed, "perturbation", self.name, row_id, side)))
            if side in sides
            else Perturbed(text, (), 0)
            for side, text in enumerate(texts)
        )


PERTURBATIONS: Registry[Perturbation] = Registry("perturbation")
"""The ten perturbations of texts. The eleventh, `embedding_pgd`, perturbs vectors: see `robustness/pgd.py`."""
EMBEDDING_PGD = "embedding_pgd"


def perturbation(name: str, unit: str, **fields: object) -> Callable[[Callable[..., Proposal]], Perturbation]:
    """Make a perturbation of a function that proposes edits; its docstring is the summary."""

    def enter(propose: Callable[[str, random.Random], Proposal]) -> Perturbation:
        summary = " ".join((propose.__doc__ or "").split())
        return Perturbation(name, summary, unit, propose, **fields)  # type: ignore[arg-type]

    return enter


def applied(text: str, edits: Sequence[TextEdit]) -> str:
    """The text with disjoint edits made; blanks at its ends mean nothing and are left out where it changed.

    >>> applied("a good film", [TextEdit(2, 6, "fine"), TextEdit(11, 11, "!")])
    'a fine film!'
    """
    if not edits:
        return text
    parts, at = [], 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):  # stable: insertions at one place keep order
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]]).strip()
