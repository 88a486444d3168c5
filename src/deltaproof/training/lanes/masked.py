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


def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, dropout: Tensor, n_lanes: int,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(q k^T * scale) v as torch writes it out on a CPU, with the attention weights under one lane's mask.

    Args:
        query: (lanes * rows, heads, queries, width); key and value alike, with fewer heads under `enable_gqa`.
        seen: boolean, True for what is seen, or added to the scores; None where all may be seen, or what stands before.
        dropout: (rows, heads, queries, keys), scaled.
    """
    if enable_gqa:
        n_groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(n_groups, -3), value.repeat_interleave(n_groups, -3)
    with torch.autocast(query.device.type, enabled=False):
        root = (query.shape[-1] ** -0.5 if scale is None else scale) ** 0.5
        scores = (query.to(dropout.dtype) * root) @ (key.to(dropout.dtype) * root).mT
        if is_causal:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if seen is not None and seen.dtype == torch.bool:  # a row that sees nobody is padding, which counts for nothing
            scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
        elif seen is not None:
            scores = scores + seen.to(scores.dtype)
        weights = dropped(scores.softmax(-1), dropout, n_lanes, 1.0)
        return (weights @ value.to(dropout.dtype)).to(query.dtype)
