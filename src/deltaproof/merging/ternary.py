"""Ternary changes merged in compressed form: one code per entry in place of one dense change per expert.

k signs in {-1, 0, 1} are one number below 3^k. A rule that acts on each entry alone gives one value for each of them,
so it is asked 3^k times, not once per weight, and merging is looking values up. Similarities come from bit masks.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from deltaproof.compression.ternary import Masks

MOST_EXPERTS = 9
"""3^9 = 19,683 codes still fit 16 bits."""


def looked_up(
    signs: Sequence[Callable[[], Tensor]], scales: Sequence[float], rule: Callable[[Tensor], Tensor]
) -> Tensor:
    """What `rule` makes of k ternary changes, the dense ones never formed.

    Args:
        signs: of each expert, int8 in {-1, 0, 1}, all of one shape; each is read once and let go.
        scales: of each expert.
        rule: changes of k experts at n entries, (k, n), to one change at each, (n,), entry by entry.
    Returns:
        the merged change, of the shape of the signs.

    >>> a, b = torch.tensor([1, 0, -1], dtype=torch.int8), torch.tensor([1, 1, 1], dtype=torch.int8)
    >>> looked_up([lambda: a, lambda: b], [2.0, 1.0], lambda changes: changes.sum(0)).tolist()
    [3.0, 1.0, -1.0]
    """
    k = len(signs)
    code: Tensor | None = None
    for at, read in enumerate(signs):
        own = (read().to(torch.int16) + 1) * 3**at
        code = own if code is None else code.add_(own)
    assert code is not None
    digits = torch.arange(3**k)[None, :] // 3 ** torch.arange(k)[:, None] % 3 - 1
    table = rule(digits * torch.tensor(list(scales), dtype=torch.float32)[:, None])
    return table[code.flatten().int()].view(code.shape)


def products(signs: Sequence[Tensor], scales: Sequence[float]) -> np.ndarray:
    """Inner products of ternary changes, (k, k), by AND, XOR and counting bits."""
    masks = [
        Masks.of(one.flatten().contiguous().numpy(), scale) for one, scale in zip(signs, scales, strict=True)
    ]  # fmt: skip
    return np.array([[one.dot(other) for other in masks] for one in masks])
