"""The rows of several lanes behind one another in one tensor, and what belongs to whom."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """How many rows each lane has in a pass, and of how many tokens: every lane has the same.

    Lanes that see other rows than their neighbours may have fewer of their own, or shorter ones. Theirs are filled up,
    and `n_tokens` is then a length that no other side of a tensor inside the model has (`sides_of`): so tokens are
    known wherever they stand. Code of the lane's own gets what the lane has alone.
    """

    n_rows: int
    n_tokens: int
    own: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Rows, and tokens of a row, that each lane has alone, by its number; empty where all see the same rows."""

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
            if not self._size(first, n_lanes[0]):
                return first
            are_alike = all(part.shape[1:] == first.shape[1:] for part in parts)  # not where some have further keys
            return torch.cat(list(parts)) if are_alike else None
        if isinstance(first, tuple | list):
            return type(first)(self.joined(each, n_lanes) for each in zip(*parts, strict=True))
        if isinstance(first, dict):
            return type(first)(**{key: self.joined([part[key] for part in parts], n_lanes) for key in first})
        return first

    def cut(self, tree: Any, lane: int) -> Any:
        """One lane's part, down to what the lane has alone."""
        if lane not in self.own:
            return tree
        n_rows, n_tokens = self.own[lane]

        def of(tensor: Tensor) -> Tensor:
            if self._size(tensor, 1):  # a row has one place on the first side, or one for each of its tokens
                return within(by_row(tensor, self.n_rows))[:n_rows].flatten(0, 1)
            return within(tensor)

        def within(tensor: Tensor) -> Tensor:
            return tensor[tuple(slice(n_tokens if side == self.n_tokens else None) for side in tensor.shape)]

        def in_order(tensor: Tensor) -> Tensor:  # as a model's own code may count on it
            return of(tensor).contiguous() if tensor.is_contiguous() else of(tensor)

        return over_tensors(tree, in_order)

    def filled(self, tree: Any, lane: int, shape: Sequence[int]) -> Any:
        """What code that saw a lane's own rows put out, with zeros in the place of what others have more.

        Args:
            shape: of a tensor before it was cut, whose tokens stand where they stand in an output of as many sides.
        """
        if lane not in self.own:
            return tree
        n_rows, n_tokens = self.own[lane]

        def of(tensor: Tensor) -> Tensor:
            if tensor.ndim == 0 or len(tensor) not in (n_rows, n_rows * n_tokens):
                return tensor
            if len(tensor) != n_rows:
                return longer(by_row(tensor, n_rows), [1]).flatten(0, 1)
            if tensor.ndim > len(shape):  # maps of attention
                return longer(tensor, [tensor.ndim - 2, tensor.ndim - 1])
            are_alike = tensor.ndim == len(shape)
            return longer(tensor, [side for side, length in enumerate(shape) if are_alike and length == self.n_tokens])

        def longer(tensor: Tensor, sides: Sequence[int]) -> Tensor:
            missing = [0] * (2 * tensor.ndim)  # before and behind each side, the last side first, as `pad` counts
            missing[-1] = self.n_rows - n_rows
            for side in sides:
                if tensor.shape[side] == n_tokens:
                    missing[2 * (tensor.ndim - side) - 1] = self.n_tokens - n_tokens
            return F.pad(tensor, missing) if any(missing) else tensor

        return over_tensors(tree, of)

    def are_in(self, tensor: Tensor, n_lanes: int) -> bool:
        """Whether a tensor holds rows of so many lanes."""
        return self._size(tensor, n_lanes) > 0

    def are_in_maps(self, maps: Tensor, n_lanes: int) -> bool:
        """The same of values that are dropped, where a model may have rows times heads on the first side."""
        is_multiple = maps.ndim >= 3 and len(maps) % (n_lanes * self.n_rows) == 0
        return is_multiple or self.are_in(maps, n_lanes)

    def _size(self, tensor: Tensor, n_lanes: int) -> int:
        """Length of one lane's part of the first side, 0 for a tensor that holds no rows of `n_lanes` lanes."""
        if tensor.ndim == 0:
            return 0
        sizes = (self.n_rows, self.n_rows * self.n_tokens)
        return next((size for size in sizes if len(tensor) == n_lanes * size), 0)


def by_row(tensor: Tensor, n_rows: int) -> Tensor:
    """(rows, places, …) of a tensor in which each row has so many places, such as its tokens, on the first side."""
    return tensor.reshape(n_rows, len(tensor) // n_rows, *tensor.shape[1:])


def over_tensors(tree: Any, do: Callable[[Tensor], Tensor]) -> Any:
    """The same tree of tuples, lists and mappings with other tensors."""
    if isinstance(tree, Tensor):
        return do(tree)
    if isinstance(tree, tuple | list):
        return type(tree)(over_tensors(each, do) for each in tree)
    if isinstance(tree, dict):
        return type(tree)(**{key: over_tensors(value, do) for key, value in tree.items()})
    return tree


def first_shape(tree: Any) -> tuple[int, ...]:
    """Of the first tensor among a module's arguments or outputs, the hidden states; () where there is none."""
    if isinstance(tree, Tensor):
        return tuple(tree.shape)
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, tuple | list) else ()
    return next((shape for each in values if (shape := first_shape(each))), ())
