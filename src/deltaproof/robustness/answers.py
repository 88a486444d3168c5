"""What a tuned model answers on perturbed or adversarial rows."""

from typing import Any

import numpy as np

from deltaproof.data.split import Split
from deltaproof.errors import RecordError
from deltaproof.evaluation.predict import predict
from deltaproof.methods.tuned import Tuned
from deltaproof.records.record import Predictions
from deltaproof.tasks.text import TextTask


def perturbed_predictions(
    tuned: Tuned, task: TextTask, split: Split, batch_size: int = 64, precision: str = "fp32"
) -> Predictions:
    """The answers to every row, in the order of the rows: of a clean split, a perturbed one, or an adversarial set."""
    tokenizer = tuned.backbone.tokenizer
    outputs = predict(tuned, task, task.encode(tokenizer, split), tokenizer.pad_token_id, batch_size, precision)
    return Predictions(split.ids, split.groups, split.targets, outputs)


def reached(tokenizer: Any, task: TextTask, clean: Split, perturbed: Split) -> np.ndarray:
    """(n,) whether a perturbation reached the model at all, as other tokens than before.

    It does not where no edit was possible, where the tokenizer folds what was changed (capitals, look-alikes), or
    where a long text is cut off before it.

    Raises:
        RecordError: the splits are not of the same rows.
    """
    if clean.ids != perturbed.ids:
        raise RecordError(
            f"both splits must have the same rows in one order, got {len(clean)} and {len(perturbed)} rows or other "
            f"ids; perturb the split that you compare with"
        )
    before, after = (task.encode(tokenizer, split).columns["input_ids"] for split in (clean, perturbed))
    return np.array([one != other for one, other in zip(before, after, strict=True)], dtype=bool)
