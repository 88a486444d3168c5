"""Dropout under a mask that is given: one lane's, for the rows of several."""

from typing import Any

import torch
from torch import Tensor


def dropped(x: Tensor, mask: Tensor, n_lanes: int, scale: float) -> Tensor:
    """x under one lane's mask in every lane.

    Args:
        x: (lanes * rows, …), a lane's rows behind another's.
        mask: (rows, …): scaled already; or boolean, and what is kept is multiplied by `scale`.
    """
    wide = x.reshape(n_lanes, len(x) // n_lanes, *x.shape[1:])
    kept: Tensor = wide * mask if mask.dtype != torch.bool else _Dropped.apply(wide, mask, scale)  # type: ignore[no-untyped-call]
    return kept.flatten(0, 1)


class _Dropped(torch.autograd.Function):
    """x * mask * scale, keeping the mask alone, one byte per number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return (x * mask).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return (gradient * mask).mul_(ctx.scale), None, None
