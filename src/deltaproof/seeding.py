"""One seed drives everything random, through named sub-seeds, so that no use of chance shifts another."""

import hashlib
import random

import numpy as np
import torch


def sub_seed(seed: int, *names: str | int) -> int:
    """The seed of one named use of chance: the first 63 bits of SHA-256 over seed and names.

    >>> sub_seed(0, "data_order", 1) == sub_seed(0, "data_order", 1)
    True
    >>> sub_seed(0, "data_order", 1) == sub_seed(0, "data_order", 2)
    False
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for one named use of chance; drawn on the CPU, values are the same on every device."""
    return torch.Generator().manual_seed(sub_seed(seed, *names))


def seed_everything(seed: int, *names: str | int) -> None:
    """Seed every global generator: for code, such as a model's own dropout, that takes no generator."""
    value = sub_seed(seed, *names)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
