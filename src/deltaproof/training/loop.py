"""The training loop: one for every method, from the first step to the checkpoint that is kept."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from torch import Tensor, nn

from deltaproof.evaluation.predict import predict, predict_side_by_side
from deltaproof.methods.tuned import Tuned
from deltaproof.metrics import METRICS
from deltaproof.seeding import seed_everything
from deltaproof.tasks.batches import Order
from deltaproof.tasks.text import Encoded, TextTask
from deltaproof.training.best import Best
from deltaproof.training.checkpoints import Checkpoint
from deltaproof.training.gradient import BatchGradient, Forward, random_state
from deltaproof.training.keeping import features_for
from deltaproof.training.optimizer import adamw
from deltaproof.training.outcome import Outcome
from deltaproof.training.recomputing import check_recomputable, recompute_activations
from deltaproof.training.resuming import restore, snapshot
from deltaproof.training.schedules import factor
from deltaproof.training.settings import Training
from deltaproof.training.sharding import ShardedGradient, let_go, shard
from deltaproof.training.snapshots import Snapshots

__all__ = ["Outcome", "Progress", "Run", "go", "number_of_steps", "train"]

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
    run = Run(
        tuned, task, train_rows, validation_rows, settings, learning_rate, seed, accelerator, checkpoint, progress,
        snapshots,
    )  # fmt: skip
    run.begin()
    go([run], stop_after=stop_after)
    return run.outcome


def go(
    runs: "Sequence[Run]",
    forward: Forward | None = None,
    ended: "Callable[[Run], None]" = lambda run: None,
    stop_after: int | None = None,
    until_one_ends: bool = False,
) -> "list[Run]":
    """Take the steps of one run, or of several side by side, each over its own rows and to its own end.

    Args:
        runs: begun.
        forward: how their logits come about; for one run left out.
        ended: is told of each run as soon as it is over.
        stop_after: a run that has taken so many steps, and has more to take, rests in its checkpoint.
        until_one_ends: leave the others between two steps as soon as one ends or rests, so that another can join them.
    Returns:
        those that were left so.
    """
    lead = runs[0]
    gradient = (ShardedGradient if lead.accelerator.num_processes > 1 else BatchGradient)(
        lead.task, lead.train_rows, lead.tuned.backbone.tokenizer.pad_token_id, lead.accelerator, forward
    )
    order = Order(lead.train_rows.lengths, lead.settings.batch_size)
    if forward is None and (features := features_for(lead)) is not None:
        lead.model = features
        # what an interrupted run had kept is made again from the same batches, so that it goes on to the same bits
        n_again = min(lead.n_taken, order.n_batches) if features.n_tokens else 0
        for step in range(n_again):
            gradient.pass_through(lead, order.batch(lead.seed, step))
    live = _still_live(runs, ended, stop_after)
    while live and not (until_one_ends and len(live) < len(runs)):
        started = time.perf_counter()
        losses = gradient(live, [order.batch(run.seed, run.n_taken) for run in live])
        seconds = (time.perf_counter() - started) / len(live)
        for run, loss in zip(live, losses, strict=True):
            run.step(loss, seconds)
        is_due = any(run.checkpoint is not None and run.checkpoint.is_due for run in live)
        _look(live, forward)
        for run in live if is_due else ():  # all at once, so that those of one seed go on at the same step
            run.keep()
        live = _still_live(live, ended, stop_after)
    return live


def _look(runs: "Sequence[Run]", forward: Forward | None) -> None:
    """What is due after a step beside the next one; the validation rows go through runs side by side as batches do."""
    sound = [run for run in runs if not run.outcome.diverged]
    scored = [run for run in sound if run.is_time_to_evaluate]
    started = time.perf_counter()
    known: dict[Run, np.ndarray] = {}
    if forward is not None and len(scored) > 1:
        lead, together = scored[0], forward

        def logits(batch: dict[str, Tensor]) -> list[Tensor]:
            found = together(scored, [batch] * len(scored))
            by_run = dict(pair for some, answers in found for pair in zip(some, answers, strict=True))
            return [by_run[run] for run in scored]

        answers = predict_side_by_side(
            [run.tuned for run in scored],
            logits,
            lead.task, lead.validation_rows, lead.tuned.backbone.tokenizer.pad_token_id, 2 * lead.settings.batch_size,
            lead.precision,
        )  # fmt: skip
        known = dict(zip(scored, answers, strict=True))
    seconds = (time.perf_counter() - started) / max(1, len(scored))
    for run in sound:
        run.look(known.get(run), seconds)


def _still_live(runs: "Sequence[Run]", ended: "Callable[[Run], None]", stop_after: int | None) -> "list[Run]":
    """Let those end that are over, and those rest that are to; their places are free."""
    live = []
    for run in runs:
        if run.is_over:
            run.end()
            ended(run)
        elif stop_after is not None and run.n_taken >= stop_after:
            run.keep()
        else:
            live.append(run)
    return live


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
        learning_rate: float, seed: int, accelerator: Accelerator, checkpoint: Checkpoint | None = None,
        progress: Progress = lambda step, n_steps, values: None, snapshots: Path | None = None,
    ) -> None:  # fmt: skip
        self.tuned, self.task, self.settings, self.accelerator = tuned, task, settings, accelerator
        self.train_rows, self.validation_rows = train_rows, validation_rows
        self.learning_rate, self.seed = learning_rate, seed
        self.checkpoint, self.progress = checkpoint, progress
        self.n_steps = number_of_steps(len(train_rows), settings)
        self.snapshots = None if snapshots is None else Snapshots(snapshots, self.n_steps)
        if accelerator.num_processes > 1:
            self.trained, self.optimizer = shard(tuned, learning_rate, settings.weight_decay, accelerator)
        else:
            self.trained = tuned.to(accelerator.device).trained()
            # The model is not given to accelerate: on one device that would only patch its forward pass for autocast.
            self.optimizer = accelerator.prepare(
                adamw(self.trained.values(), learning_rate, settings.weight_decay, accelerator.device)
            )
        self.micro_batch_size = min(settings.micro_batch_size or settings.batch_size, settings.batch_size)
        self.n_taken = 0
        """Steps that lie behind."""
        self.best = Best(task.metrics[0], settings.patience)
        self.outcome = Outcome()
        self.losses: list[float] = []
        self.random: dict[str, Tensor] = {}
        """Where the generators stand that the forward pass draws from, between two steps."""
        self.model: nn.Module = tuned
        """What its batches go through: `tuned`, also where what frozen layers make of a row is kept, or they rest."""

    @property
    def precision(self) -> str:
        return "fp32" if self.accelerator.mixed_precision == "no" else str(self.accelerator.mixed_precision)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to win: all steps are taken, it diverged, or patience is over."""
        return self.n_taken >= self.n_steps or self.outcome.diverged or self.best.is_patience_over

    def begin(self) -> int:
        """Seed the draws, tell the edits how long they have, and go on from the checkpoint where there is one.

        Returns:
            the steps that were taken already.
        """
        if self.settings.gradient_checkpointing:
            check_recomputable(self.tuned)
            recompute_activations(self.tuned.backbone, self.tuned.context)
        self.seed_draws()
        for _, edit in self.tuned.placed():
            edit.begin(self.n_steps)
        found = self.checkpoint.load() if self.checkpoint else None
        if found is None:
            return 0
        self.n_taken, tensors, facts = found
        restore(self, tensors, facts)
        return self.n_taken

    def seed_draws(self) -> None:
        """Let what draws without a generator of its own, such as dropout, begin from the seed; each process its own."""
        rank = self.accelerator.process_index
        seed_everything(self.seed, "dropout", *([rank] if rank else []))
        self.random = random_state(self.accelerator.device)

    def step(self, loss: float, seconds: float = 0.0) -> None:
        """Take one optimiser step down the gradient that is there, or find that the training diverged.

        Args:
            loss: that of the gradient.
            seconds: what the gradient took.
        """
        started, step = time.perf_counter(), self.n_taken
        self.n_taken += 1
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = self.accelerator.clip_grad_norm_(self.trained.values(), self.settings.clip_norm)
        # in fp16 the loss scale may overshoot: accelerate then skips the step and lowers the scale
        is_finite = math.isfinite(loss) and (self.precision == "fp16" or math.isfinite(float(norm)))
        if is_finite:
            self.optimizer.step()
            for _, edit in self.tuned.placed():
                edit.after_step(step)
            self.losses.append(loss)
        else:
            self._diverge(f"diverged at step {self.n_taken} of {self.n_steps}: the loss or its gradient is not finite")
        self.tuned.zero_grad(set_to_none=True)
        self.outcome.train_seconds += seconds + time.perf_counter() - started
        if is_finite:
            self.progress(self.n_taken, self.n_steps, {"train_loss": loss, "learning_rate": rate})

    def look(self, answers: np.ndarray | None = None, seconds: float = 0.0) -> None:
        """What is due after a step beside the next one: a snapshot, an evaluation.

        Args:
            answers: to the validation rows, where they are known; they took so many seconds.
        """
        if self.snapshots is not None:
            self.snapshots.see(self.n_taken, self.trained)
        if self.is_time_to_evaluate:
            started = time.perf_counter()
            values = self.evaluate(answers)
            self.outcome.evaluation_seconds += seconds + time.perf_counter() - started
            self.progress(self.n_taken, self.n_steps, values)

    def halve_micro_batch(self) -> None:
        """Memory ran out; it is said once, however often."""
        self.micro_batch_size //= 2
        start = "memory ran out: went on with micro-batches of"
        self.outcome.notes = [note for note in self.outcome.notes if not note.startswith(start)]
        self.outcome.notes.append(f"{start} {self.micro_batch_size}, same batch per step")

    def rate(self, step: int) -> float:
        return self.learning_rate * factor(self.settings.schedule, step, self.n_steps, self.settings.warmup_fraction)

    @property
    def is_time_to_evaluate(self) -> bool:
        every = steps_between_evaluations(len(self.train_rows), self.settings)
        return self.n_taken % every == 0 or self.n_taken == self.n_steps

    def evaluate(self, answers: np.ndarray | None = None) -> dict[str, float]:
        """Score the validation rows, remember the best, stop when patience is over; returns the deciding score.

        Args:
            answers: to these rows, where they are known.
        """
        rows, pad_token_id = self.validation_rows, self.tuned.backbone.tokenizer.pad_token_id
        if answers is None:
            answers = predict(self.model, self.task, rows, pad_token_id, 2 * self.settings.batch_size, self.precision)
        if not np.isfinite(answers).all():
            self._diverge(f"diverged by step {self.n_taken} of {self.n_steps}: the model's answers are not finite")
            return {}
        scores = {name: METRICS[name].score(rows.targets, answers) for name in self.task.metrics}
        self.outcome.history.append({
            "step": self.n_taken,
            "epoch": round(self.n_taken * self.settings.batch_size / len(self.train_rows), 3),
            "train_loss": float(np.mean(self.losses)),
            "learning_rate": self.rate(self.n_taken - 1),
            "validation": scores,
        })  # fmt: skip
        self.losses.clear()
        self.best.see(scores, self.trained)
        if self.best.is_patience_over and self.n_taken < self.n_steps:
            self.outcome.notes.append(
                f"stopped early after step {self.n_taken} of {self.n_steps}: "
                f"no better score for {self.settings.patience} evaluations"
            )
        return {f"validation_{self.task.metrics[0]}": scores[self.task.metrics[0]]}

    def keep(self) -> None:
        """Write where the training stands, unless there is nothing to go on to."""
        if self.checkpoint and self.n_taken < self.n_steps and not self.outcome.diverged:
            self.checkpoint.save(self.n_taken, *snapshot(self))

    def end(self) -> None:
        """Put the best values back and let go of what only training needed."""
        self.model = self.tuned
        self.best.put_back(self.trained)
        if self.accelerator.num_processes > 1:
            let_go(self.tuned)
        self.outcome.validation = self.best.scores
        self.tuned.eval()
        if self.snapshots is not None and not self.outcome.diverged:
            self.snapshots.finish()
        self.accelerator.free_memory()

    def _diverge(self, note: str) -> None:
        self.outcome.diverged = True
        self.outcome.notes.append(note)
