"""What a model answers for every row of a split."""

import numpy as np
import torch
from torch import nn

from deltaproof.tasks.text import Encoded, TextTask, collate
from deltaproof.tasks.batches import evaluation_batches
from deltaproof.memory import is_out_of_memory


@torch.inference_mode()
def predict(
    model: nn.Module, task: TextTask, encoded: Encoded, pad_token_id: int, batch_size: int = 64, precision: str = "fp32"
) -> np.ndarray:
    """Outputs in the order of the rows, (n, n_outputs): probabilities, or values in the user's unit.

    Halves its batch when memory runs out; the answers do not depend on it but for rounding.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    outputs = np.zeros((len(encoded), task.n_outputs))
    batches = evaluation_batches(encoded.lengths, batch_size)
    try:
        for at, rows in enumerate(batches):
            batch = {key: value.to(device) for key, value in collate(encoded, rows, pad_token_id).items()}
            with autocast(device, precision):
                logits = model(**batch).logits
            outputs[rows] = task.outputs(logits)
            del at, batch
    except Exception as error:
        if not is_out_of_memory(error) or batch_size == 1:
            raise
    else:
        return outputs
    finally:
        model.train(was_training)
    return predict(model, task, encoded, pad_token_id, batch_size // 2, precision)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which matrix products run in `precision`."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.bfloat16)
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")
