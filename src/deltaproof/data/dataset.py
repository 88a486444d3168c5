"""The data set that a comparison runs on: three splits, of which the test split is sealed."""

import hashlib
from dataclasses import dataclass, field

from deltaproof.data.sealed import SealedSplit
from deltaproof.data.split import Split


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data that a comparison runs on."""

    name: str
    kind: str
    """`classification`, `regression` or `multilabel`."""
    labels: list[str] | None
    """Names of classes or labels, in the order of their indices; None for regression."""
    text_columns: tuple[str, ...]
    label_column: str
    """The column the targets came from; several are joined by commas."""
    train: Split
    validation: Split
    test: SealedSplit
    fingerprint: str
    """Sixteen hexadecimal digits of SHA-256 over kind, labels and the three splits."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know: how splits were made, duplicates found, leaks removed."""


def dataset_fingerprint(kind: str, labels: list[str] | None, *splits: str) -> str:
    """The fingerprint of a data set from its kind, its labels and the fingerprints of its splits."""
    return hashlib.sha256(repr((kind, labels, splits)).encode()).hexdigest()[:16]
