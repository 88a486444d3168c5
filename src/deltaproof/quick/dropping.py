"""Dropout masks from few random bits, drawn and applied several times as fast as torch does it on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LOWEST = -(2**15)
_BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
"""Integers as wide as the numbers that their bits are read as."""


@torch.no_grad()
def draw_mask(shape: torch.Size | tuple[int, ...], p: float, like: Tensor) -> Tensor:
    """A mask that is 0 with probability p and 1 / (1 - p) otherwise, in the type and on the device of `like`.

    On a CPU each number takes 16 random bits, so that p is met within 2^-17. torch draws an fp64 number for each, which
    is a tenth of a training step of a small model. Nothing is compared and nothing converted, which is slow as well: 0
    and 1 as integers, times the bit pattern of the scale, are the mask.
    """
    if like.device.type != "cpu" or like.dtype not in _BITS or not 0 < p < 1:
        return F.dropout(like.new_ones(shape), p, True)
    n = torch.Size(shape).numel()
    random = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:n]
    first_kept = min(_LOWEST + round(p * 2**16), -_LOWEST - 1)
    kept = random.clamp_(first_kept - 1, first_kept).sub_(first_kept - 1)  # 0 or 1
    bits = _BITS[like.dtype]
    scale = int(torch.tensor(1 / (1 - p), dtype=like.dtype).view(bits))
    return kept.to(bits).mul_(scale).view(like.dtype).view(shape)


def draw_attention_mask(query: Tensor, key: Tensor, p: float) -> Tensor:
    """A mask for the weights of attention, (rows, heads, queries, keys), in fp32 or wider, as they are reckoned."""
    wide = query.new_empty(0, dtype=torch.promote_types(query.dtype, torch.float32))
    return draw_mask((*query.shape[:-1], key.shape[-2]), p, wide)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """What `torch.nn.functional.dropout` computes, under a mask of `draw_mask`; never in place."""
    return input * draw_mask(input.shape, p, input) if training and p > 0 else input
