"""Rows of one split: ids, texts, targets and groups side by side."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of one split, in a fixed order."""

    name: str
    ids: list[str]
    """Where each row came from, such as `reviews.csv:17`; unique in the data set."""
    texts: list[tuple[str, ...]]
    """One text per row, or two."""
    targets: np.ndarray
    """(n, 1) class index or value; (n, labels) of 0 and 1 for multi-label."""
    groups: list[str] | None = None
    """Rows of one group belong together; None where each stands alone."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Iterable[int]) -> "Split":
        """The rows at `indices`, in that order."""
        kept = [int(index) for index in indices]
        return Split(
            self.name,
            [self.ids[index] for index in kept],
            [self.texts[index] for index in kept],
            self.targets[kept],
            None if self.groups is None else [self.groups[index] for index in kept],
        )

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of SHA-256 over texts, targets and groups in their order; ids do not count."""
        digest = hashlib.sha256()
        for texts in self.texts:
            digest.update("".join(f"{len(text)}:{text}" for text in texts).encode())
        digest.update(repr(self.targets.shape).encode())
        digest.update(np.ascontiguousarray(self.targets, dtype="<f8").tobytes())
        for group in self.groups or []:
            digest.update(f"{len(group)}:{group}".encode())
        return digest.hexdigest()[:16]
