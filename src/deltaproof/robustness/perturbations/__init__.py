"""Ten perturbations of texts, each by name in `PERTURBATIONS`."""

from deltaproof.robustness.perturbations.additions import distractor, tautology
from deltaproof.robustness.perturbations.base import (
    EMBEDDING_PGD,
    PERTURBATIONS,
    Perturbation,
    Perturbed,
    Promise,
    TextEdit,
)
from deltaproof.robustness.perturbations.characters import case_punctuation, char_drop, char_swap, homoglyph, keyboard
from deltaproof.robustness.perturbations.order import local_shuffle, word_drop
from deltaproof.robustness.perturbations.synonyms import synonym

for _entry in (
    char_swap,
    char_drop,
    keyboard,
    homoglyph,
    case_punctuation,
    synonym,
    word_drop,
    local_shuffle,
    distractor,
    tautology,
):
    PERTURBATIONS.add(_entry.name)(_entry)

__all__ = ["EMBEDDING_PGD", "PERTURBATIONS", "Perturbation", "Perturbed", "Promise", "TextEdit"]
