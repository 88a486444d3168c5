"""What a training leaves behind beside the trained model."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Outcome:
    """How a training went."""

    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry per evaluation: step, epoch, train_loss, learning_rate, validation."""
    validation: dict[str, float] = field(default_factory=dict)
    """Scores of the checkpoint that was kept."""
    diverged: bool = False
    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    """Of the evaluations on the way; since the last start, where a training was interrupted."""
    examples_seen: int = 0
    tokens_seen: int = 0
    """Tokens that went through the model, padding included."""
    notes: list[str] = field(default_factory=list)
