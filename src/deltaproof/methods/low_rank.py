"""Low-rank maps added to what a frozen one puts out: that of one model, or those of several whose rows lie in one
tensor."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deltaproof.quick.casts import cast_input, cast_weight

Factors = tuple[Tensor, Tensor]
"""A, (rank, d_in), and B, (d_out, rank), its scale included."""


def add_low_rank(output: Tensor, x: Tensor, factors: Sequence[Factors], module: nn.Module | None = None) -> Tensor:
    """output + x A^T B^T in every lane, in the type of `output`.

    Autograd's own way takes some 25 operations for the two products and their four gradients, most of them conversions
    and copies; on a CPU they cost a small model as much time again as the products. Lanes share them.

    Args:
        output: (lanes * rows, …, d_out), a lane's rows behind another's.
        x: (lanes * rows, …, d_in).
        factors: of each lane; ranks may differ.
        module: what made `output` of `x`. Where it is a frozen linear map, x gets its gradient through both at once:
            that spares a sum and a cast.
    """
    if not torch.is_autocast_enabled(x.device.type) and x.dtype != output.dtype:
        # reckoned in the precision of the factors where nobody asks for another
        parts = [F.linear(F.linear(rows, a), b) for rows, (a, b) in zip(x.chunk(len(factors)), factors, strict=True)]
        return output + torch.cat(parts).to(output.dtype)
    downs, ups = zip(*factors, strict=True)
    if torch.is_grad_enabled():
        weight, x = _frozen_weight(module, output.dtype), cast_input(x, output.dtype)
        start = output if weight is None else output.detach()
        added: Tensor = _AddLowRank.apply(start, x, weight, *downs, *ups)  # type: ignore[no-untyped-call]
        return added
    return _added(output, x, downs, ups)[0]  # plain operations, of which torch knows the forward derivatives too


def _frozen_weight(module: nn.Module | None, dtype: torch.dtype) -> Tensor | None:
    """The weight of a plain linear map of which nothing is trained; in a type, where its cast is kept."""
    if type(module) is nn.Linear and not any(each.requires_grad for each in module.parameters()):
        return cast_weight(module.weight, dtype)
    return None


def _added(output: Tensor, x: Tensor, a: Sequence[Tensor], b: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The result, and what its gradients need: x by lanes, x A^T, and A and B^T of all lanes as one tensor each."""
    with torch.autocast(output.device.type, enabled=False):
        rows = x.reshape(len(a), -1, x.shape[-1]).to(output.dtype)
        down, up = _stacked(a, output.dtype), _stacked([each.T for each in b], output.dtype)
        hidden = torch.bmm(rows, down.mT)
        added = torch.baddbmm(output.reshape(len(a), -1, output.shape[-1]), hidden, up)
    return added.view(output.shape), rows, hidden, down, up


class _AddLowRank(torch.autograd.Function):
    """Gradients, with g that of the result: g, g B A (+ g W), (g B)^T x and g^T (x A^T)."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, weight: Tensor | None, *factors: Tensor) -> Tensor:
        n = len(factors) // 2
        added, *read = _added(output, x, factors[:n], factors[n:])
        ctx.save_for_backward(weight, *read)
        ctx.x, ctx.ranks, ctx.dtypes = (x.shape, x.dtype), [len(a) for a in factors[:n]], [f.dtype for f in factors]
        return added

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, rows, hidden, down, up = ctx.saved_tensors
        (shape, dtype), n, (_, of_x, _, *of_factors) = ctx.x, len(ctx.ranks), ctx.needs_input_grad
        g = gradient.reshape(n, -1, gradient.shape[-1])
        g_hidden = torch.bmm(g, up.mT)
        found: list[Tensor | None] = [None, None]
        if of_x:
            frozen = None if weight is None else (g.flatten(0, 1) @ weight.to(g.dtype)).view(rows.shape)
            both = torch.bmm(g_hidden, down) if frozen is None else torch.baddbmm(frozen, g_hidden, down)
            found[0] = both.view(shape).to(dtype)
        g_down = torch.bmm(g_hidden.mT, rows) if any(of_factors[:n]) else [None] * n
        g_up = torch.bmm(hidden.mT, g) if any(of_factors[n:]) else [None] * n  # g^T h has few columns and takes longer
        for number, (each, dtype) in enumerate(zip([*g_down, *g_up], ctx.dtypes, strict=True)):
            own = None if each is None else each[: ctx.ranks[number % n]].to(dtype)
            found.append(own if own is None or number < n else own.T)
        return gradient if weight is None else None, *found


def _stacked(factors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Matrices of (rank, d) as one tensor, (lanes, largest rank, d); a smaller rank ends in rows of zeros."""
    ranks = [len(factor) for factor in factors]
    if len(set(ranks)) == 1:
        return torch.stack(list(factors)).to(dtype)
    stacked = factors[0].new_zeros(len(factors), max(ranks), factors[0].shape[1], dtype=dtype)
    for lane, factor, rank in zip(stacked, factors, ranks, strict=True):
        lane[:rank] = factor
    return stacked
