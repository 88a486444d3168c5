"""The training loop: one for every method, from the first step to the checkpoint that is kept."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from deltaproof.evaluation.predict import predict
from deltaproof.methods.tuned import Tuned
from deltaproof.metrics import METRICS
from deltaproof.seeding import seed_everything
from deltaproof.tasks.text import Encoded, TextTask, collate
from deltaproof.tasks.batches import training_batches
from deltaproof.training.checkpoints import Checkpoint
from deltaproof.memory import is_out_of_memory
from deltaproof.training.schedules import factor
from deltaproof.training.settings import Training


@dataclass
class Outcome:
    """How a training went."""

    history: list[dict[str, Any]] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)
    """Scores of the checkpoint that was kept."""
    diverged: bool = False
    train_seconds: float = 0.0
    examples_seen: int = 0
    tokens_seen: int = 0
    notes: list[str] = field(default_factory=list)


def number_of_steps(n_rows: int, settings: Training) -> int:
    """Optimiser steps of a training; the last batch of an epoch may be smaller."""
    if settings.examples is not None:
        return max(1, math.ceil(settings.examples / settings.batch_size))
    return max(1, round(settings.epochs * math.ceil(n_rows / settings.batch_size)))


def train(
    tuned: Tuned,
    task: TextTask,
    train_rows: Encoded,
    validation_rows: Encoded,
    settings: Training,
    learning_rate: float,
    seed: int,
    accelerator: Accelerator,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int, dict[str, float]], None] = lambda step, n_steps, values: None,
) -> Outcome:
    """Train a method and leave the model at the checkpoint with the best validation score (the earliest of equals).

    A loss that is not finite ends the training as diverged: a result, not a crash. When memory runs out, the micro-batch is
    halved and the step taken again; the batch of an optimiser step stays what it was.
    """
    n_steps = number_of_steps(len(train_rows), settings)
    evaluate_every = max(1, math.ceil(len(train_rows) / settings.batch_size / settings.evaluations_per_epoch))
    trained = tuned.trained()
    optimizer = _optimizer(list(trained.values()), learning_rate, settings.weight_decay, accelerator.device)
    if settings.gradient_checkpointing:
        tuned.backbone.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    tuned.to(accelerator.device)
    model, optimizer = accelerator.prepare(tuned, optimizer)
    seed_everything(seed, "dropout")
    for edit in tuned.edits:
        edit.begin(n_steps)  # type: ignore[operator]
    stepper = _Stepper(model, task, train_rows, tuned.backbone.tokenizer.pad_token_id, settings, accelerator)
    outcome, best = Outcome(), _Best(task, settings.patience)
    first_step = checkpoint.restore(trained, optimizer, outcome, best) if checkpoint else 0
    pad_token_id, precision = tuned.backbone.tokenizer.pad_token_id, _precision(accelerator)

    for step, rows in enumerate(training_batches(train_rows.lengths, settings.batch_size, seed, n_steps)):
        if step < first_step:
            continue
        started = time.perf_counter()
        rate = learning_rate * factor(settings.schedule, step, n_steps, settings.warmup_fraction)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = stepper.backward(rows, outcome)
        norm = accelerator.clip_grad_norm_(trained.values(), settings.clip_norm)
        if not (math.isfinite(loss) and (norm is None or math.isfinite(float(norm)) or precision == "fp16")):
            outcome.diverged = True
            outcome.notes.append(f"diverged at step {step + 1} of {n_steps}: the loss or its gradient is not finite")
            break
        optimizer.step()
        for edit in tuned.edits:
            edit.after_step(step)  # type: ignore[operator]
        optimizer.zero_grad(set_to_none=True)
        outcome.train_seconds += time.perf_counter() - started
        outcome.examples_seen += len(rows)
        outcome.tokens_seen += int(train_rows.lengths[rows].sum())
        stepper.losses.append(loss)
        progress(step + 1, n_steps, {"train_loss": loss, "learning_rate": rate})

        if (step + 1) % evaluate_every == 0 or step + 1 == n_steps:
            answers = predict(tuned, task, validation_rows, pad_token_id, 2 * settings.batch_size, precision)
            if not np.isfinite(answers).all():
                outcome.diverged = True
                outcome.notes.append(f"diverged by step {step + 1} of {n_steps}: the model's answers are not finite")
                break
            scores = {name: METRICS[name].score(validation_rows.targets, answers) for name in task.metrics}
            outcome.history.append(
                {
                    "step": step + 1,
                    "epoch": round((step + 1) * settings.batch_size / len(train_rows), 3),
                    "train_loss": float(np.mean(stepper.losses)),
                    "learning_rate": rate,
                    "validation": scores,
                }
            )
            stepper.losses.clear()
            progress(step + 1, n_steps, {f"validation_{task.metrics[0]}": scores[task.metrics[0]]})
            best.see(scores, trained)
            if checkpoint and step + 1 < n_steps:
                checkpoint.save(step + 1, trained, optimizer, outcome, best)
            if best.is_patience_over():
                outcome.notes.append(f"stopped early after step {step + 1} of {n_steps}: no better score for {settings.patience} evaluations")
                break
    outcome.validation = best.restore(trained)
    accelerator.free_memory()
    return outcome


def _precision(accelerator: Accelerator) -> str:
    return "fp32" if accelerator.mixed_precision == "no" else str(accelerator.mixed_precision)


def _optimizer(
    parameters: list[torch.nn.Parameter], learning_rate: float, weight_decay: float, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW; decay pulls on matrices only, as gains, shifts and biases have no scale to shrink towards."""
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=fused)


class _Stepper:
    """Forward and backward of one batch, in as few micro-batches as memory allows."""

    def __init__(
        self, model: Any, task: TextTask, rows: Encoded, pad_token_id: int, settings: Training, accelerator: Accelerator
    ) -> None:
        self.model, self.task, self.rows, self.pad_token_id, self.accelerator = model, task, rows, pad_token_id, accelerator
        self.micro_batch_size = min(settings.micro_batch_size or settings.batch_size, settings.batch_size)
        self.losses: list[float] = []

    def backward(self, rows: np.ndarray, outcome: Outcome) -> float:
        """Leave the gradient of the mean loss over `rows` in the parameters; returns that loss."""
        while True:
            state = torch.get_rng_state()
            try:
                return self._backward(rows)
            except Exception as error:
                if not is_out_of_memory(error) or self.micro_batch_size == 1:
                    raise
            # outside the `except`, where the failed step's tensors are no longer held by the traceback
            torch.set_rng_state(state)
            for parameter in self.model.parameters():
                parameter.grad = None
            if self.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()
            self.micro_batch_size = max(1, self.micro_batch_size // 2)
            outcome.notes = [note for note in outcome.notes if not note.startswith("memory ran out")]
            outcome.notes.append(f"memory ran out: went on with micro-batches of {self.micro_batch_size}, same batch per step")

    def _backward(self, rows: np.ndarray) -> float:
        self.model.train()
        total: Tensor | float = 0.0
        for start in range(0, len(rows), self.micro_batch_size):
            part = rows[start : start + self.micro_batch_size]
            batch = {key: value.to(self.accelerator.device) for key, value in collate(self.rows, part, self.pad_token_id).items()}
            targets = torch.as_tensor(self.rows.targets[part], dtype=torch.float32, device=self.accelerator.device)
            with self.accelerator.autocast():
                logits = self.model(**batch).logits
            loss = self.task.loss(logits, targets) * (len(part) / len(rows))
            self.accelerator.backward(loss)
            total = total + loss.detach()
        return float(total)


class _Best:
    """The best checkpoint so far by the first metric, and how long ago it was."""

    def __init__(self, task: TextTask, patience: int | None) -> None:
        self.metric, self.patience = METRICS[task.metrics[0]], patience
        self.scores: dict[str, float] = {}
        self.state: dict[str, Tensor] = {}
        self.evaluations_since = 0

    def see(self, scores: dict[str, float], trained: dict[str, torch.nn.Parameter]) -> None:
        sign = 1 if self.metric.higher_is_better else -1
        if not self.scores or sign * scores[self.metric.name] > sign * self.scores[self.metric.name]:
            self.scores, self.evaluations_since = scores, 0
            self.state = {name: parameter.detach().to("cpu", copy=True) for name, parameter in trained.items()}
        else:
            self.evaluations_since += 1

    def is_patience_over(self) -> bool:
        return self.patience is not None and self.evaluations_since >= self.patience

    @torch.no_grad()
    def restore(self, trained: dict[str, torch.nn.Parameter]) -> dict[str, float]:
        for name, value in self.state.items():
            trained[name].copy_(value)
        return self.scores
