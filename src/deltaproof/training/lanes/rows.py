"""The rows of several lanes behind one another in one tensor, and what belongs to whom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """How many rows each lane has, and of how many tokens: every lane has the same."""

    n_rows: int
    n_tokens: int

    def part(self, tree: Any, n_lanes: int, first: int, end: int) -> Any:
        """What belongs to the lanes from `first` to before `end`, of arguments or outputs of a module.

        A tensor holds rows of lanes where its first side is rows, or rows times tokens (OPT flattens them), of all of
        `n_lanes`. What does not, such as positions or the values that all lanes share, is every lane's.
        """
        if (first, end) == (0, n_lanes):
            return tree

        def of(tensor: Tensor) -> Tensor:
            size = self._size(tensor, n_lanes)
            return tensor[first * size : end * size] if size else tensor

        return over_tensors(tree, of)

    def narrowed(self, tree: Any, n_lanes: int) -> Any:
        """The first lane's part, for what is the same for all of them."""
        return self.part(tree, n_lanes, 0, 1)

    def widened(self, tree: Any, n_lanes: int) -> Any:
        """One lane's rows, repeated for each lane."""

        def of(tensor: Tensor) -> Tensor:
            if n_lanes == 1 or self._size(tensor, n_lanes) or not self._size(tensor, 1):
                return tensor
            return tensor.repeat(n_lanes, *[1] * (tensor.ndim - 1))

        return over_tensors(tree, of)

    def joined(self, parts: Sequence[Any], n_lanes: Sequence[int]) -> Any:
        """Outputs of a module for some lanes each, as one: rows behind one another, the rest that of the first part.

        What only some lanes put out, such as attention maps that only edits write out, nobody does.
        """
        first = parts[0]
        if len(parts) == 1:
            return first
        if any(part is None for part in parts):
            return None
        if isinstance(first, Tensor):
            return torch.cat(list(parts)) if self._size(first, n_lanes[0]) else first
        if isinstance(first, tuple | list):
            return type(first)(self.joined(each, n_lanes) for each in zip(*parts, strict=True))
        if isinstance(first, dict):
            return type(first)(**{key: self.joined([part[key] for part in parts], n_lanes) for key in first})
        return first

    def are_in(self, tensor: Tensor, n_lanes: int) -> bool:
        """Whether a tensor holds rows of so many lanes."""
        return self._size(tensor, n_lanes) > 0

    def are_in_maps(self, maps: Tensor, n_lanes: int) -> bool:
        """The same of values that are dropped, where DeBERTa has rows times heads on the first side."""
        is_multiple = maps.ndim >= 3 and len(maps) % (n_lanes * self.n_rows) == 0
        return is_multiple or self.are_in(maps, n_lanes)

    def _size(self, tensor: Tensor, n_lanes: int) -> int:
        """Length of one lane's part of the first side, 0 for a tensor that holds no rows of `n_lanes` lanes."""
        if tensor.ndim == 0:
            return 0
        sizes = (self.n_rows, self.n_rows * self.n_tokens)
        return next((size for size in sizes if len(tensor) == n_lanes * size), 0)


def over_tensors(tree: Any, do: Callable[[Tensor], Tensor]) -> Any:
    """The same tree of tuples, lists and mappings with other tensors."""
    if isinstance(tree, Tensor):
        return do(tree)
    if isinstance(tree, tuple | list):
        return type(tree)(over_tensors(each, do) for each in tree)
    if isinstance(tree, dict):
        return type(tree)(**{key: over_tensors(value, do) for key, value in tree.items()})
    return tree
