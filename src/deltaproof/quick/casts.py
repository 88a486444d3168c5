"""Casts of linear maps, made once where autocast makes one of a weight in every pass, of an input for every map."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

MOST_BYTES = 2**29
"""All that is kept of weights: those of 270 million parameters. Others are cast in each pass, to the same bits."""


class Casts:
    """While it is entered, casts that were made are at hand for those that ask again, on a CPU.

    autocast itself keeps a cast only of what needs a gradient, and only as long as it is entered. To cast a weight of a
    linear map takes as long as its product with some 500 tokens.

    Args:
        all_rest: no weight changes as long as this is in use; else those that need a gradient do.
    """

    _entered: ClassVar[list["Casts"]] = []

    def __init__(self, all_rest: bool = False) -> None:
        self.all_rest = all_rest
        self._weights: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        """By where the values lie, which holds as long as they are held: lanes have parameters of their own."""
        self._n_bytes = 0
        self._input: tuple[Tensor, int, Tensor] | None = None
        """What was cast last on the way into a map, its version, and the cast."""

    def __enter__(self) -> "Casts":
        Casts._entered.append(self)
        return self

    def __exit__(self, *raised: Any) -> None:
        Casts._entered.remove(self)
        self._input = None  # it would hold what was computed before it

    def of_weight(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        is_kept = isinstance(weight, nn.Parameter) and (self.all_rest or not weight.requires_grad)
        if not is_kept or weight.device.type != "cpu" or weight.dtype == dtype:
            return weight  # code that makes a weight in each pass makes another each time
        key = (weight.data_ptr(), weight.shape, weight.stride(), dtype)
        if key not in self._weights:
            made = weight.detach().to(dtype)
            if self._n_bytes + made.nbytes > MOST_BYTES:
                return weight
            self._n_bytes += made.nbytes
            self._weights[key] = (weight.detach(), made)
        return self._weights[key][1]

    def of_input(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        if x.dtype == dtype or x.device.type != "cpu" or not x.requires_grad:
            return x
        if self._input is None or self._input[0] is not x or self._input[1] != x._version:
            self._input = (x, x._version, x.to(dtype))
        return self._input[2]


def cast_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in a type, where its cast is kept; else as it is."""
    return Casts._entered[-1].of_weight(weight, dtype) if Casts._entered else weight


def cast_input(x: Tensor, dtype: torch.dtype) -> Tensor:
    """What goes into a linear map in a type: one cast for maps in a row that read the same, as queries, keys and values
    do, so that their gradients are summed before they are cast back. As it is where none is kept."""
    return Casts._entered[-1].of_input(x, dtype) if Casts._entered else x
