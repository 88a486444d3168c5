"""Attention written out, with dropout under a mask that is given: what a CPU is best at where texts are short."""

import torch
from torch import Tensor


def written_out(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None, dropout: Tensor | None = None,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(q k^T * scale) v, reckoned in fp32 or wider; the attention weights are multiplied by the mask.

    Args:
        query: (lanes * rows, heads, queries, width); key and value alike, with fewer heads under `enable_gqa`.
        seen: boolean, True for what is seen, or added to the scores; None where all may be seen, or what stands before.
        dropout: (rows, heads, queries, keys), scaled; every lane's weights are put under it.
    """
    if enable_gqa:
        n_groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(n_groups, -3), value.repeat_interleave(n_groups, -3)
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    shape = (*query.shape[:-1], key.shape[-2])
    with torch.autocast(query.device.type, enabled=False):
        q, k, v = (_stacked(each, dtype) for each in (query, key, value))
        bias = _bias(seen, is_causal, shape, dtype, query.device)
        alpha = query.shape[-1] ** -0.5 if scale is None else scale
        scores = torch.baddbmm(bias, q, k.mT, alpha=alpha) if bias is not None else torch.bmm(q * alpha, k.mT)
        weights = scores.softmax(-1)
        if dropout is not None:
            weights = (weights.view(-1, *dropout.shape) * dropout).view(scores.shape)
        return torch.bmm(weights, v).view(*shape[:-1], value.shape[-1]).to(query.dtype)


def _stacked(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(rows * heads, tokens, width), converted and put in order in one copy."""
    return x.to(dtype, memory_format=torch.contiguous_format).reshape(-1, *x.shape[-2:])


def _bias(
    seen: Tensor | None, is_causal: bool, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """What is added to the scores, (rows * heads, queries, keys)."""
    if is_causal:
        seen = torch.ones(shape[-2:], dtype=torch.bool, device=device).tril()
    if seen is None:
        return None
    if seen.dtype == torch.bool:
        # not infinite: a row that sees nobody is padding, which counts for nothing but must not become nan
        seen = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
    return seen.to(dtype).expand(shape).reshape(-1, *shape[-2:])
