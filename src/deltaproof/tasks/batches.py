"""The order of examples: random, the same for every contestant, batches of like length."""

from collections.abc import Iterator

import numpy as np

from deltaproof.seeding import sub_seed

WINDOW = 20
"""Batches per window: within one, examples are sorted by length. Wide enough to save most padding, narrow enough to
stay random."""


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


def training_batches(lengths: np.ndarray, batch_size: int, seed: int, n_steps: int) -> Iterator[np.ndarray]:
    """`n_steps` batches, epoch after epoch."""
    step = epoch = 0
    while step < n_steps:
        for batch in epoch_batches(lengths, batch_size, seed, epoch)[: n_steps - step]:
            yield batch
            step += 1
        epoch += 1


def evaluation_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Row numbers of each batch, longest first, so that memory runs out at once or not at all."""
    order = np.argsort(-lengths, kind="stable")
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
