"""A regression model that answers in its user's unit: what training scaled is folded into the last map."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from deltaproof.backbones.locate import is_linear
from deltaproof.methods.peft_edit import trained_copy
from deltaproof.methods.tuned import Tuned
from deltaproof.tasks.text import TextTask


@torch.no_grad()
def in_units(tuned: Tuned, task: TextTask) -> TextTask:
    """Fold value = output * std + mean into the head: W' = std W, b' = std b + mean.

    A head without a bias, as decoders have it, has no place for the mean: it is left as it is.

    Returns:
        the task as the model now answers it: of mean 0 and deviation 1 where the two are folded.
    """
    if not is_scaled(task):
        return task
    last = last_map(tuned)
    if last is None or last.bias is None:
        return task
    last.weight.copy_(folded(last.weight, task.target_std, 0.0))
    last.bias.copy_(folded(last.bias, task.target_std, task.target_mean))
    return replace(task, target_mean=0.0, target_std=1.0)


def is_scaled(task: TextTask) -> bool:
    """Whether the model's output is not yet the value."""
    return task.kind == "regression" and (task.target_mean, task.target_std) != (0.0, 1.0)


def folded(value: torch.Tensor, factor: float, shift: float) -> torch.Tensor:
    """value * factor + shift, rounded once."""
    return (value.double() * factor + shift).to(value.dtype)


def between(trained: TextTask, shipped: TextTask) -> tuple[float, float]:
    """Factor and shift from what a model put out in training to what its export puts out."""
    return trained.target_std / shipped.target_std, (trained.target_mean - shipped.target_mean) / shipped.target_std


def scaled(answers: list[np.ndarray], factor: float, shift: float) -> list[np.ndarray]:
    """Answers in another unit."""
    return answers if (factor, shift) == (1.0, 0.0) else [one * factor + shift for one in answers]


def last_map(tuned: Tuned) -> Any:
    """The last linear map of the head, that which has one output; None where it is something else."""
    for path in reversed(tuned.backbone.head):
        top: nn.Module = trained_copy(tuned.backbone.model.get_submodule(path))
        maps = [module for module in top.modules() if is_linear(module) and len(module.weight) == 1]  # type: ignore[arg-type]
        if maps:
            return maps[-1]
    return None
