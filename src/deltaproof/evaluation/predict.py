"""What a model answers for every row of a split."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from deltaproof.memory import free_cached, is_one_of_several, is_out_of_memory
from deltaproof.quick.casts import Casts
from deltaproof.quick.mode import Quick
from deltaproof.tasks.batches import evaluation_batches
from deltaproof.tasks.text import Encoded, TextTask, collate

T = TypeVar("T")
Logits = Callable[[dict[str, torch.Tensor]], Sequence[torch.Tensor]]


@torch.inference_mode()
def predict(
    model: nn.Module, task: TextTask, encoded: Encoded, pad_token_id: int, batch_size: int = 64, precision: str = "fp32"
) -> np.ndarray:
    """Outputs in the order of the rows, (n, n_outputs): probabilities, or values in the user's unit.

    Halves its batch when memory runs out; the answers do not depend on it but for rounding.
    """
    (answers,) = predict_side_by_side(
        [model], lambda batch: [model(**batch).logits], task, encoded, pad_token_id, batch_size, precision
    )
    return answers


@torch.inference_mode()
def predict_side_by_side(
    models: Sequence[nn.Module], logits: Logits, task: TextTask, encoded: Encoded, pad_token_id: int, batch_size: int,
    precision: str,
) -> list[np.ndarray]:  # fmt: skip
    """What `predict` gives, of several models over the same rows, whose logits come about together.

    Args:
        logits: of each model for a batch, (batch, n_outputs).
    """

    def do(size: int, device: torch.device) -> list[np.ndarray]:
        outputs = [np.zeros((len(encoded), task.n_outputs)) for _ in models]
        with Quick(Casts(all_rest=True)) if device.type == "cpu" else nullcontext():
            for rows in evaluation_batches(encoded.lengths, size):
                made = collate(encoded, rows, pad_token_id, task.max_length)
                batch = {key: value.to(device) for key, value in made.items()}
                with autocast(device, precision):
                    found = logits(batch)
                for output, each in zip(outputs, found, strict=True):
                    output[rows] = task.outputs(each)
        return outputs

    model = models[0] if len(models) == 1 else nn.ModuleList(models)
    return in_evaluation(model, batch_size, do)


def in_evaluation(model: nn.Module, batch_size: int, do: Callable[[int, torch.device], T]) -> T:
    """Do something with the model in evaluation mode, and again with half the batch when memory runs out."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        while True:
            try:
                return do(batch_size, device)
            except Exception as error:
                if not is_out_of_memory(error) or batch_size == 1 or is_one_of_several():
                    raise
            free_cached(device)  # outside the `except`, where the traceback no longer holds the failed batch
            batch_size //= 2
    finally:
        model.train(was_training)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which matrix products run in `precision`."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")
