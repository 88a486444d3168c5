"""The order of examples: random, the same for every contestant, batches of like length."""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from deltaproof.seeding import sub_seed

WINDOW = 20
"""Batches per window: within one, examples are sorted by length. Wide enough to save most padding, narrow enough to
stay random."""
EPOCHS_KEPT = 32
"""Orders of an epoch that are remembered: more than runs go side by side."""


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row numbers of each batch of one epoch, every row once. Depends on seed and epoch alone.

    Args:
        lengths: (n,) tokens per row.
    """
    random = np.random.default_rng(sub_seed(seed, "data_order", epoch))
    order = random.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), batch_size * WINDOW):
        window = order[start : start + batch_size * WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches.extend(window[at : at + batch_size] for at in range(0, len(window), batch_size))
    return [batches[at] for at in random.permutation(len(batches))]


class Order:
    """The batches of trainings over the same rows, by seed and step: who has both in common gets the same array.

    Args:
        lengths: (n,) tokens per row.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int) -> None:
        self.n_batches = math.ceil(len(lengths) / batch_size)
        self._epoch = lru_cache(EPOCHS_KEPT)(lambda seed, epoch: epoch_batches(lengths, batch_size, seed, epoch))

    def batch(self, seed: int, step: int) -> np.ndarray:
        """Row numbers of the batch after `step` others, epoch after epoch."""
        epoch, number = divmod(step, self.n_batches)
        return self._epoch(seed, epoch)[number]


def training_batches(lengths: np.ndarray, batch_size: int, seed: int, n_steps: int) -> Iterator[np.ndarray]:
    """`n_steps` batches, epoch after epoch."""
    order = Order(lengths, batch_size)
    return (order.batch(seed, step) for step in range(n_steps))


def evaluation_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Row numbers of each batch, longest first, so that memory runs out at once or not at all."""
    order = np.argsort(-lengths, kind="stable")
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
