"""The gradient of one batch, in as few micro-batches as memory allows, for one run or for several side by side."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from deltaproof.memory import free_cached, is_out_of_memory
from deltaproof.methods.tuned import Tuned
from deltaproof.quick.casts import Casts
from deltaproof.quick.mode import Quick
from deltaproof.tasks.text import Encoded, TextTask, collate

if TYPE_CHECKING:
    from deltaproof.training.loop import Run

Answers: TypeAlias = "tuple[Sequence[Run], list[Tensor]]"
"""Runs, and the logits of each."""


class Forward(Protocol):
    """How the logits of runs come about."""

    def take_up(self, runs: "Sequence[Run]") -> None:
        """A step is about to begin: go on with the random numbers where each run left them."""

    def __call__(self, runs: "Sequence[Run]", batches: Sequence[dict[str, Tensor]]) -> "Iterator[Answers]":
        """Some of the runs with the logits of each, (batch, n_outputs), and then others, until all have had theirs.

        Args:
            batches: of each run; those that see the same rows have the same object.
        """

    def put_down(self, runs: "Sequence[Run]") -> None:
        """The step's last forward pass is over: each run keeps where its random numbers stand."""

    def shrink(self) -> bool:
        """Take less memory from now on, at the same results; returns whether that can be done."""


class Alone:
    """One run, by its own model."""

    def __init__(self) -> None:
        self.casts = Casts()

    def take_up(self, runs: "Sequence[Run]") -> None:
        (run,) = runs
        set_random_state(run.random, run.accelerator.device)

    def __call__(self, runs: "Sequence[Run]", batches: Sequence[dict[str, Tensor]]) -> "Iterator[Answers]":
        (run,), (batch,) = runs, batches
        quick = Quick(self.casts) if run.accelerator.device.type == "cpu" else nullcontext()
        with quick:
            logits = run.model(**batch).logits
        yield runs, [logits]

    def put_down(self, runs: "Sequence[Run]") -> None:
        (run,) = runs
        run.random = random_state(run.accelerator.device)

    def shrink(self) -> bool:
        return False


@dataclass(frozen=True)
class MicroBatch:
    """Some rows of a batch, on the device."""

    inputs: dict[str, Tensor]
    targets: Tensor
    share: float
    """Of the batch's rows."""


class BatchGradient:
    """Leaves the gradient of a batch's mean loss in the trained parameters of each run.

    When memory runs out, the micro-batch is halved and the batch taken again with the same random numbers.
    """

    def __init__(
        self, task: TextTask, rows: Encoded, pad_token_id: int, accelerator: Accelerator, forward: Forward | None = None
    ) -> None:
        self.task, self.rows, self.pad_token_id, self.accelerator = task, rows, pad_token_id, accelerator
        self.forward = forward or Alone()

    def __call__(self, runs: "Sequence[Run]", rows_of: Sequence[np.ndarray]) -> list[float]:
        """Returns the mean loss of each run over its rows, penalties included.

        Args:
            rows_of: numbers of the rows of each run's batch; runs that share theirs have the same array.
        """
        while True:
            try:
                return self._accumulate(runs, rows_of)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if not self.forward.shrink():
                    if _micro_batch_size(runs) == 1:
                        raise
                    for run in runs:
                        run.halve_micro_batch()
            # outside the `except`, where the failed step's tensors are no longer held by the traceback
            for run in runs:
                run.tuned.zero_grad(set_to_none=True)
            free_cached(self.accelerator.device)

    def _accumulate(self, runs: "Sequence[Run]", rows_of: Sequence[np.ndarray]) -> list[float]:
        device = self.accelerator.device
        self.forward.take_up(runs)
        totals = {run: torch.zeros((), device=device) for run in runs}
        n_tokens = dict.fromkeys(runs, 0)
        for parts in self._micro_batches(runs, rows_of):
            for some, losses in self._losses(parts):
                self.accelerator.backward(losses.sum())
                for run, loss in zip(some, losses.detach(), strict=True):
                    totals[run] += loss
            for run, part in parts.items():
                n_tokens[run] += part.inputs["input_ids"].numel()
        self.forward.put_down(runs)
        for run, rows in zip(runs, rows_of, strict=True):
            run.outcome.examples_seen += len(rows)
            run.outcome.tokens_seen += n_tokens[run]
        seen: list[float] = torch.stack(list(totals.values())).tolist()
        return seen

    def _micro_batches(self, runs: "Sequence[Run]", rows_of: Sequence[np.ndarray]) -> "Iterator[dict[Run, MicroBatch]]":
        """Those of the runs, which train, one after another; a run whose batch is over has none."""
        size = _micro_batch_size(runs)
        for run in runs:
            run.tuned.train()
        for start in range(0, max(map(len, rows_of)), size):
            going_on = {id(rows): rows for rows in rows_of if start < len(rows)}
            made = {key: self._part(rows, start, size) for key, rows in going_on.items()}
            yield {run: made[id(rows)] for run, rows in zip(runs, rows_of, strict=True) if id(rows) in made}

    def _part(self, rows: np.ndarray, start: int, size: int) -> MicroBatch:
        device, part = self.accelerator.device, rows[start : start + size]
        batch = collate(self.rows, part, self.pad_token_id, self.task.max_length)
        targets = torch.as_tensor(self.rows.targets[part], dtype=torch.float32, device=device)
        return MicroBatch({key: value.to(device) for key, value in batch.items()}, targets, len(part) / len(rows))

    def pass_through(self, run: "Run", rows: np.ndarray) -> None:
        """Only the forward passes of a batch, for what is kept of them; the run's random numbers stay as they are."""
        self.forward.take_up([run])
        for parts in self._micro_batches([run], [rows]):
            with self.accelerator.autocast():
                list(self.forward([run], [parts[run].inputs]))

    def _losses(self, parts: "dict[Run, MicroBatch]") -> "Iterator[tuple[Sequence[Run], Tensor]]":
        """Some of the runs with their losses, penalties included, as shares of the batch's mean; and then others."""
        answers = self.forward(list(parts), [part.inputs for part in parts.values()])
        while True:
            with self.accelerator.autocast():  # entered anew for each: the backward pass between them is without
                found = next(answers, None)
            if found is None:
                return
            some, logits = found
            losses = [
                parts[run].share * (self.task.loss(each, parts[run].targets) + penalty(run.tuned))
                for run, each in zip(some, logits, strict=True)
            ]
            yield some, torch.stack(losses)


def _micro_batch_size(runs: "Sequence[Run]") -> int:
    """That of them all: a run that has gone on from a checkpoint, or came later, may have another."""
    return min(run.micro_batch_size for run in runs)


def penalty(tuned: Tuned) -> Tensor | float:
    """What the method adds to the loss of the forward pass that was just taken."""
    penalties = [edit.penalty() for _, edit in tuned.placed()]
    return sum(each for each in penalties if each is not None)


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
