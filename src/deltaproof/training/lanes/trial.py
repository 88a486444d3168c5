"""Before lanes are trained: a batch taken both ways, by each run alone and in lanes. Do they agree, do they pay?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from deltaproof.training.gradient import Alone, BatchGradient, Forward
from deltaproof.training.lanes.together import Lanes
from deltaproof.training.loop import Run

TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
"""Of a lane's gradient against that of the same run alone, the norm of the difference relative to the norm. Sums in
another order move fp32 by about 1e-6; a map that saw other rows, or another mask, moves it by far more."""

CLEAR_GAIN = 1.2
"""Times as fast as alone: who is, is taken without another try."""


@dataclass(frozen=True)
class Trial:
    """What a batch, taken both ways, has shown."""

    strays: tuple[int, ...]
    """Numbers of the runs whose gradient in lanes is not the one that they have alone."""
    alone_seconds: float
    """Per run and batch, of runs alone."""
    seconds: dict[int, float]
    """Per run and batch, of all of them in lanes, by how many go through in one pass; empty where it was not timed."""

    @property
    def side_by_side(self) -> int:
        """How many lanes in one pass are the fastest."""
        return min(self.seconds, key=lambda n: self.seconds[n])

    @property
    def gain(self) -> float:
        """How many times faster lanes are at their best than runs alone."""
        return self.alone_seconds / self.seconds[self.side_by_side]


def try_lanes(
    lanes: Lanes, runs: Sequence[Run], rows_of: Sequence[np.ndarray], sizes: Sequence[int], is_timed: bool
) -> Trial:
    """Take the gradient of a batch by each run alone and by all in lanes; nothing is changed by it.

    Args:
        runs: not begun yet.
        rows_of: of the batch of each run; those that share theirs have the same array.
        sizes: how many lanes in one pass are tried, until one is clearly faster than runs alone; the first is the one
            whose gradients are compared.
        is_timed: measure how long either way takes, too.
    """
    lead, before = runs[0], lanes.side_by_side
    pad_token_id = lead.tuned.backbone.tokenizer.pad_token_id

    def gradient(forward: Forward) -> BatchGradient:
        return BatchGradient(lead.task, lead.train_rows, pad_token_id, lead.accelerator, forward)

    def timed(take: BatchGradient, some: Sequence[Run], rows: Sequence[np.ndarray]) -> float:
        started = time.perf_counter()
        _take(some, take, rows)
        return time.perf_counter() - started

    alone, together = gradient(Alone()), gradient(lanes)
    if is_timed:
        timed(alone, runs[:1], rows_of[:1])  # what is done once, at a first batch, is none of its time
    wanted, alone_seconds = [], []
    for run, rows in zip(runs, rows_of, strict=True):
        alone_seconds.append(timed(alone, [run], [rows]))
        wanted.append(_gradient_of(run))
    lanes.side_by_side = sizes[0]
    timed(together, runs, rows_of)
    tolerance = TOLERANCE[lead.precision]
    strays = [at for at, run in enumerate(runs) if not _agree(_gradient_of(run), wanted[at], tolerance)]
    del wanted
    seconds: dict[int, float] = {}
    for size in sizes if is_timed else ():
        lanes.side_by_side = size
        seconds[size] = timed(together, runs, rows_of) / len(runs)
        if mean(alone_seconds) >= CLEAR_GAIN * seconds[size]:
            break
    for run in runs:
        run.tuned.zero_grad(set_to_none=True)
        run.outcome.examples_seen = run.outcome.tokens_seen = 0
    lanes.side_by_side = before
    return Trial(tuple(strays), mean(alone_seconds), seconds)


def _take(runs: Sequence[Run], gradient: BatchGradient, rows_of: Sequence[np.ndarray]) -> None:
    for run in runs:
        run.tuned.zero_grad(set_to_none=True)
        run.seed_draws()
    gradient(runs, rows_of)
    if runs[0].accelerator.device.type == "cuda":
        torch.cuda.synchronize()


def _gradient_of(run: Run) -> dict[str, Tensor]:
    """What is trained to its gradient, which stays as it is when another is taken."""
    return {name: parameter.grad for name, parameter in run.trained.items() if parameter.grad is not None}


def _agree(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> bool:
    if one.keys() != other.keys():
        return False
    difference = sum(float((one[name] - other[name]).square().sum()) for name in one)
    size = sum(float(gradient.square().sum()) for gradient in other.values())
    return bool(difference**0.5 <= tolerance * size**0.5 + 1e-12)
