"""A spec is everything that decides what a run measures; its key names the run on disk."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spec:
    """One run, fully resolved: two runs with equal specs measure the same."""

    contestant: str
    """How the method is called in tables, such as `lora` or `lora(rank=16)`."""
    method: dict[str, Any]
    """The method's name and every field, defaults included."""
    model: dict[str, Any]
    """Name, fingerprint of weights and configuration, hub revision."""
    task: dict[str, Any]
    """Kind, labels, metrics (the first decides), maximum length."""
    data: dict[str, Any]
    """Name, fingerprint, hash of the training ids, rows per split."""
    training: dict[str, Any]
    """Learning rate, epochs, batch size, schedule, precision: all that the loop reads."""
    seed: int
    stage: str
    """`tuning` (scored on validation only), `rung` (the first part of such a run), `final` (scored on the sealed test
    split), `baseline`, or `merging` (made of the models of other runs; on validation, and on the test split where that
    was asked for)."""
    parents: tuple[str, ...] = field(default=())
    """Keys of the runs that this one's setting was chosen from; of a merge, of the runs that it is made of."""

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits of SHA-256 over the spec: the run's name on disk."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
