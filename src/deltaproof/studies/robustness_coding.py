"""Answers as numbers that can be compared, and numbers as JSON."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from deltaproof.records.record import Predictions
from deltaproof.stats import Interval

Json = dict[str, Any]
Array = np.ndarray


def codes_of(kind: str, predictions: Predictions) -> Array | None:
    """(n,) a number for each answer, the same for the same answer; None where answers are numbers already."""
    if kind == "classification":
        return np.asarray(predictions.outputs.argmax(axis=1), dtype=float)
    return truth_of(kind, predictions.outputs >= 0.5) if kind == "multilabel" else None


def truth_of(kind: str, targets: Array) -> Array:
    """(n,) a number for each label or set of labels."""
    if kind == "classification":
        return np.asarray(targets[:, 0], dtype=float)
    bits = np.packbits(targets > 0, axis=1)
    # six bytes of a hash: a sum of powers of two would not tell apart sets of more than 53 labels
    return np.array([int.from_bytes(blake2b(row.tobytes(), digest_size=6).digest()) for row in bits], dtype=float)


def right_of(kind: str, predictions: Predictions) -> Array:
    """(n,) right (1) or wrong (0)."""
    codes = codes_of(kind, predictions)
    assert codes is not None
    return np.asarray(codes == truth_of(kind, predictions.targets), dtype=float)


def pairs_of(groups: Sequence[str]) -> Array:
    """(pairs, 2) rows of the groups that have two."""
    members: dict[str, list[int]] = {}
    for row, name in enumerate(groups):
        members.setdefault(name, []).append(row)
    return np.array([rows for rows in members.values() if len(rows) == 2], dtype=int).reshape(-1, 2)


def interval_json(found: Interval | None) -> Json | None:
    """Mean and ends."""
    return None if found is None else {"mean": found.mean, "low": found.low, "high": found.high}


def difference_json(found: Any) -> Json:
    """A comparison's difference with its ends and p-values."""
    return {
        "mean": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p_difference,
        "p_holm": found.p_difference_holm,
    }
