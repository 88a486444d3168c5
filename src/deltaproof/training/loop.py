"""The training loop: one for every method, from the first step to the checkpoint that is kept."""

import math
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from deltaproof.evaluation.predict import predict
from deltaproof.methods.tuned import Tuned
from deltaproof.metrics import METRICS
from deltaproof.seeding import seed_everything
from deltaproof.tasks.batches import training_batches
from deltaproof.tasks.text import Encoded, TextTask
from deltaproof.training.best import Best
from deltaproof.training.checkpoints import Checkpoint
from deltaproof.training.gradient import BatchGradient
from deltaproof.training.optimizer import adamw
from deltaproof.training.outcome import Outcome
from deltaproof.training.recomputing import check_recomputable, recompute_activations
from deltaproof.training.resuming import restore, snapshot
from deltaproof.training.schedules import factor
from deltaproof.training.settings import Training
from deltaproof.training.snapshots import Snapshots

__all__ = ["Outcome", "Progress", "number_of_steps", "train"]

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with the steps taken, the steps there are, and values by name."""


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
    progress: Progress = lambda step, n_steps, values: None,
    snapshots: Path | None = None,
    stop_after: int | None = None,
) -> Outcome:
    """Train a method and leave the model at the checkpoint with the best validation score (the earliest of equals).

    A loss that is not finite ends the training as diverged: a result, not a crash. When memory runs out, the
    micro-batch is halved and the step taken again; the batch of an optimiser step stays what it was. With a
    `checkpoint`, a training that was interrupted goes on from it and ends with the same bits. `snapshots` names a
    folder for what is trained at a few moments on the way. After `stop_after` steps, short of the last, the training
    rests in its checkpoint and the model is left as it is then; the same call without it goes on from there.
    """
    run = Run(tuned, task, train_rows, validation_rows, settings, learning_rate, seed, accelerator)
    run.begin()
    first = run.resume(checkpoint)
    on_the_way = None if snapshots is None else Snapshots(snapshots, run.n_steps)
    batches = training_batches(train_rows.lengths, settings.batch_size, seed, run.n_steps)
    for step, rows in islice(enumerate(batches), first, stop_after):
        if run.is_over:
            break
        values = run.step(step, rows)
        if run.outcome.diverged:
            break
        progress(step + 1, run.n_steps, values)
        if on_the_way is not None:
            on_the_way.see(step + 1, run.trained)
        if run.is_time_to_evaluate(step):
            progress(step + 1, run.n_steps, run.evaluate(step))
        run.keep(checkpoint, step)
    if stop_after is not None and stop_after < run.n_steps and not run.is_over:
        if checkpoint is not None and first < stop_after:
            checkpoint.save(stop_after, *snapshot(run))
        return run.outcome
    run.end()
    if on_the_way is not None and not run.outcome.diverged:
        on_the_way.finish()
    return run.outcome


def number_of_steps(n_rows: int, settings: Training) -> int:
    """Optimiser steps of a training; the last batch of an epoch may be smaller."""
    if settings.examples is not None:
        return max(1, math.ceil(settings.examples / settings.batch_size))
    return max(1, round(settings.epochs * math.ceil(n_rows / settings.batch_size)))


def steps_between_evaluations(n_rows: int, settings: Training) -> int:
    return max(1, math.ceil(n_rows / settings.batch_size / settings.evaluations_per_epoch))


class Run:
    """One training under way."""

    def __init__(
        self, tuned: Tuned, task: TextTask, train_rows: Encoded, validation_rows: Encoded, settings: Training,
        learning_rate: float, seed: int, accelerator: Accelerator,
    ) -> None:  # fmt: skip
        self.tuned, self.task, self.settings, self.accelerator = tuned, task, settings, accelerator
        self.train_rows, self.validation_rows = train_rows, validation_rows
        self.learning_rate, self.seed = learning_rate, seed
        self.n_steps = number_of_steps(len(train_rows), settings)
        self.trained = tuned.to(accelerator.device).trained()
        # The model is not given to accelerate: on one device that would only patch its forward pass for autocast.
        self.optimizer = accelerator.prepare(
            adamw(self.trained.values(), learning_rate, settings.weight_decay, accelerator.device)
        )
        micro_batch_size = min(settings.micro_batch_size or settings.batch_size, settings.batch_size)
        self.gradient = BatchGradient(tuned, task, train_rows, micro_batch_size, accelerator)
        self.best = Best(task.metrics[0], settings.patience)
        self.outcome = Outcome()
        self.losses: list[float] = []

    @property
    def precision(self) -> str:
        return "fp32" if self.accelerator.mixed_precision == "no" else str(self.accelerator.mixed_precision)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to win: it diverged, or patience is over."""
        return self.outcome.diverged or self.best.is_patience_over

    def begin(self) -> None:
        """Seed what draws without a generator of its own, such as dropout, and tell the edits how long they have."""
        if self.settings.gradient_checkpointing:
            check_recomputable(self.tuned)
            recompute_activations(self.tuned.backbone, self.tuned.context)
        seed_everything(self.seed, "dropout")
        for _, edit in self.tuned.placed():
            edit.begin(self.n_steps)

    def resume(self, checkpoint: Checkpoint | None) -> int:
        """Go on from a checkpoint where there is one; returns the steps that were taken already."""
        found = checkpoint.load() if checkpoint else None
        if found is None:
            return 0
        step, tensors, facts = found
        restore(self, tensors, facts)
        return step

    def step(self, step: int, rows: np.ndarray) -> dict[str, float]:
        """Take one optimiser step, or find that the training diverged; returns loss and learning rate."""
        started = time.perf_counter()
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.gradient(rows, self.outcome)
        norm = self.accelerator.clip_grad_norm_(self.trained.values(), self.settings.clip_norm)
        # in fp16 the loss scale may overshoot: accelerate then skips the step and lowers the scale
        is_finite = math.isfinite(loss) and (self.precision == "fp16" or math.isfinite(float(norm)))
        if is_finite:
            self.optimizer.step()
            for _, edit in self.tuned.placed():
                edit.after_step(step)
            self.losses.append(loss)
        else:
            self._diverge(f"diverged at step {step + 1} of {self.n_steps}: the loss or its gradient is not finite")
        self.tuned.zero_grad(set_to_none=True)
        self.outcome.train_seconds += time.perf_counter() - started
        return {"train_loss": loss, "learning_rate": rate}

    def rate(self, step: int) -> float:
        return self.learning_rate * factor(self.settings.schedule, step, self.n_steps, self.settings.warmup_fraction)

    def is_time_to_evaluate(self, step: int) -> bool:
        every = steps_between_evaluations(len(self.train_rows), self.settings)
        return (step + 1) % every == 0 or step + 1 == self.n_steps

    def evaluate(self, step: int) -> dict[str, float]:
        """Score the validation rows, remember the best, stop when patience is over; returns the deciding score."""
        rows, pad_token_id = self.validation_rows, self.tuned.backbone.tokenizer.pad_token_id
        answers = predict(self.tuned, self.task, rows, pad_token_id, 2 * self.settings.batch_size, self.precision)
        if not np.isfinite(answers).all():
            self._diverge(f"diverged by step {step + 1} of {self.n_steps}: the model's answers are not finite")
            return {}
        scores = {name: METRICS[name].score(rows.targets, answers) for name in self.task.metrics}
        self.outcome.history.append({
            "step": step + 1,
            "epoch": round((step + 1) * self.settings.batch_size / len(self.train_rows), 3),
            "train_loss": float(np.mean(self.losses)),
            "learning_rate": self.rate(step),
            "validation": scores,
        })  # fmt: skip
        self.losses.clear()
        self.best.see(scores, self.trained)
        if self.best.is_patience_over and step + 1 < self.n_steps:
            self.outcome.notes.append(
                f"stopped early after step {step + 1} of {self.n_steps}: "
                f"no better score for {self.settings.patience} evaluations"
            )
        return {f"validation_{self.task.metrics[0]}": scores[self.task.metrics[0]]}

    def keep(self, checkpoint: Checkpoint | None, step: int) -> None:
        """Write where the training stands, unless that was done a moment ago or there is nothing to go on to."""
        if checkpoint and checkpoint.is_due and step + 1 < self.n_steps and not self.outcome.diverged:
            checkpoint.save(step + 1, *snapshot(self))

    def end(self) -> None:
        """Put the best values back and let go of what only training needed."""
        self.best.put_back(self.trained)
        self.outcome.validation = self.best.scores
        self.tuned.eval()
        self.accelerator.free_memory()

    def _diverge(self, note: str) -> None:
        self.outcome.diverged = True
        self.outcome.notes.append(note)
