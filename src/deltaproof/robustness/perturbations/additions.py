"""Something that does not matter comes on top: sentences about something else, or what is true anyway."""

import random

from deltaproof.robustness.perturbations.base import Proposal, TextEdit, perturbation
from deltaproof.robustness.perturbations.english import distractors

TAUTOLOGY = " and true is true"
"""The stress tests' own. Source: Naik et al., 2018, arXiv:1806.00692."""
N_DISTRACTORS = 3
N_TAUTOLOGIES = 5


@perturbation("distractor", "up to three sentences", levels=(1 / 3, 2 / 3, 1.0), sides=(0,), keeps_label_of_pairs=False)
def distractor(text: str, rng: random.Random) -> Proposal:
    """A sentence about something else comes at the end. In pairs, of the first text.

    A model that cuts off long texts may never see it. Source: Jia and Liang, 2017, arXiv:1707.07328, for the idea.
    """
    end = len(text.rstrip())
    stop = "" if text[:end].endswith((".", "!", "?", '"', "'", ")", "”", "’")) else "."
    sentences = rng.sample(distractors(), N_DISTRACTORS)
    chosen = [f"{stop} {sentences[0]}", *(f" {sentence}" for sentence in sentences[1:])]
    return N_DISTRACTORS, [TextEdit(end, end, addition) for addition in chosen]


@perturbation("tautology", "up to five phrases", levels=(0.2, 0.6, 1.0), sides=(1,))
def tautology(text: str, rng: random.Random) -> Proposal:
    """`and true is true` comes before the closing punctuation, up to five times. In pairs, in the second text.

    Source: Naik et al., 2018, arXiv:1806.00692.
    """
    inside = [at for at, character in enumerate(text) if character.isalnum()]
    end = inside[-1] + 1 if inside else len(text.rstrip())
    return N_TAUTOLOGIES, [TextEdit(end, end, TAUTOLOGY)] * N_TAUTOLOGIES
