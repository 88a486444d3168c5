"""The gradient of one batch, in as few micro-batches as memory allows."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from deltaproof.memory import free_cached, is_out_of_memory
from deltaproof.methods.tuned import Tuned
from deltaproof.tasks.text import Encoded, TextTask, collate
from deltaproof.training.outcome import Outcome


class BatchGradient:
    """Leaves the gradient of a batch's mean loss in the trained parameters.

    When memory runs out, the micro-batch is halved and the batch taken again with the same random numbers.
    """

    def __init__(
        self, tuned: Tuned, task: TextTask, rows: Encoded, micro_batch_size: int, accelerator: Accelerator
    ) -> None:
        self.tuned, self.task, self.rows, self.accelerator = tuned, task, rows, accelerator
        self.micro_batch_size = micro_batch_size

    def __call__(self, rows: np.ndarray, outcome: Outcome) -> float:
        """Returns the mean loss over `rows`, penalties included."""
        while True:
            random = random_state(self.accelerator.device)
            try:
                return self._accumulate(rows, outcome)
            except Exception as error:
                if not is_out_of_memory(error) or self.micro_batch_size == 1:
                    raise
            # outside the `except`, where the failed step's tensors are no longer held by the traceback
            set_random_state(random, self.accelerator.device)
            self.tuned.zero_grad(set_to_none=True)
            free_cached(self.accelerator.device)
            self.micro_batch_size //= 2
            self._say(outcome)

    def _say(self, outcome: Outcome) -> None:
        """Once, however often it was halved."""
        start = "memory ran out: went on with micro-batches of"
        outcome.notes = [note for note in outcome.notes if not note.startswith(start)]
        outcome.notes.append(f"{start} {self.micro_batch_size}, same batch per step")

    def _accumulate(self, rows: np.ndarray, outcome: Outcome) -> float:
        device, pad_token_id = self.accelerator.device, self.tuned.backbone.tokenizer.pad_token_id
        self.tuned.train()
        total, n_tokens = torch.zeros((), device=device), 0
        for start in range(0, len(rows), self.micro_batch_size):
            part = rows[start : start + self.micro_batch_size]
            batch = {key: value.to(device) for key, value in collate(self.rows, part, pad_token_id).items()}
            targets = torch.as_tensor(self.rows.targets[part], dtype=torch.float32, device=device)
            with self.accelerator.autocast():
                logits = self.tuned(**batch).logits
            loss = (self.task.loss(logits, targets) + self._penalty()) * (len(part) / len(rows))
            self.accelerator.backward(loss)
            total += loss.detach()
            n_tokens += batch["input_ids"].numel()
        outcome.examples_seen += len(rows)
        outcome.tokens_seen += n_tokens
        return float(total)

    def _penalty(self) -> Tensor | float:
        penalties = [edit.penalty() for _, edit in self.tuned.placed()]
        return sum(penalty for penalty in penalties if penalty is not None)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of the generators that a forward pass draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Take up what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
