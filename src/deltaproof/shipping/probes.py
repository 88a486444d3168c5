"""Texts to ask models with when the user gives none: several lengths, scripts, signs."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

TEXTS = (
    "a good film",
    "A bad film, with a bad story!",
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "no",
    "Is this answer right? The numbers 3, 17 and 2026 say so; the percentage (12.5 %) does not.",
    "Der Zug fährt um halb acht ab.",
    "これは短い文です。",
    "def add(a, b):\n    return a + b",
    "\u200b  spaces \t and signs &amp; <tags> / slashes \\ \"quotes\" 'single'",
    "It was neither as long as I had feared nor as short as I had hoped, and when it ended, some time after midnight, "
    "nobody in the room could have said whether the second half had been better than the first, only that it was over.",
)
BATCH = TEXTS[:4]
"""Of unlike lengths, to be padded."""
MAX_TOKENS = 128


def as_rows(tokenizer: Any, texts: Sequence[str | tuple[str, ...]]) -> list[dict[str, Tensor]]:
    """Each text, or pair of texts, as a batch of its own; long ones are cut at 128 tokens, empty ones left out."""
    rows = []
    limit = min(MAX_TOKENS, int(min(tokenizer.model_max_length, 10**9)))
    for text in texts:
        parts = (text,) if isinstance(text, str) else tuple(text)
        row = dict(tokenizer(*parts, truncation=True, max_length=limit, return_tensors="pt"))
        if row["input_ids"].shape[1] > 0:
            rows.append(row)
    return rows


def token_ids(tokenizer: Any, texts: Sequence[str | tuple[str, ...]]) -> list[list[int]]:
    """Token numbers of each text, whole."""
    parts = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    return [list(tokenizer(*part, verbose=False)["input_ids"]) for part in parts]
