"""A compressed expert as it waits in the cache: both masks of all its ternary tensors in one row, decoded at a stroke.

The file's code takes about one bit a value at density 0.2, and some twenty array operations for each tensor to decode.
Two masks take two bits, whatever the density, and a handful of operations for all tensors together.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deltaproof.compression.container import Compressed
from deltaproof.compression.entries import Rows, Ternary, Whole
from deltaproof.compression.restore import Starts, check_start, restored
from deltaproof.compression.source import DTYPES, tensor_of


@dataclass(frozen=True)
class Packed:
    """Equal to the bit, once decoded, to what `restored` makes of each entry of the file."""

    shapes: Mapping[str, tuple[int, ...]]
    """Of every tensor."""
    ternary: tuple[Ternary, ...]
    """Their numbers; the code itself is let go."""
    positive: np.ndarray
    """(ceil(d / 8),) uint8 over all ternary tensors, one behind the other."""
    negative: np.ndarray
    whole: Mapping[str, Tensor]
    rows: tuple[Rows, ...]

    @classmethod
    def of(cls, compressed: Compressed) -> "Packed":
        """Every code is decoded here, and so checked.

        Raises:
            CorruptFileError: one is damaged.
        """
        ternary = tuple(compressed.ternary.values())
        signs = np.concatenate([np.empty(0, np.int8), *(entry.signs() for entry in ternary)])
        numbers = tuple(
            Ternary(entry.name, entry.shape, entry.dtype, b"", entry.start, entry.scale, entry.n_kept, 1, 0, 0,
                    entry.start_crc)
            for entry in ternary
        )  # fmt: skip
        entries = compressed.entries.values()
        return cls(
            {entry.name: entry.shape for entry in entries}, numbers, np.packbits(signs > 0), np.packbits(signs < 0),
            {entry.name: tensor_of(entry.payload, entry.dtype, entry.shape) for entry in entries
             if isinstance(entry, Whole)},
            tuple(entry for entry in entries if isinstance(entry, Rows)),
        )  # fmt: skip

    @property
    def n_bytes(self) -> int:
        whole = sum(tensor.nbytes for tensor in self.whole.values()) + sum(len(entry.payload) for entry in self.rows)
        return self.positive.nbytes + self.negative.nbytes + whole

    @property
    def drawn(self) -> set[str]:
        """Tensors whose change is counted from start values that a seed gives."""
        return {entry.name for entry in self.ternary if entry.start == "init"}

    def tensors(self, starts: Starts) -> dict[str, Tensor]:
        """Every tensor as it is used.

        Raises:
            RecordError: start values are not those that the change was counted from.
        """
        found = dict(self.whole)
        found |= {entry.name: restored(entry, starts) for entry in self.rows}
        found |= {entry.name: _added(entry, change, starts) for entry, change in self._changes()}
        return found

    def _changes(self) -> Iterator[tuple[Ternary, Tensor]]:
        """scale * signs of every ternary tensor, in fp32; all are views of one row."""
        sizes = [math.prod(entry.shape) for entry in self.ternary]
        total = sum(sizes)
        signs = np.unpackbits(self.positive, count=total).view(np.int8)
        signs -= np.unpackbits(self.negative, count=total).view(np.int8)
        changes = np.repeat(np.array([entry.scale for entry in self.ternary], np.float32), sizes)
        changes *= signs
        for entry, change in zip(self.ternary, torch.split(torch.from_numpy(changes), sizes), strict=True):
            yield entry, change.view(entry.shape)


def _added(entry: Ternary, change: Tensor, starts: Starts) -> Tensor:
    if entry.start in ("zero", "one"):
        return (change if entry.start == "zero" else change + 1).to(DTYPES[entry.dtype])
    start = starts(entry.name).detach().cpu()
    check_start(entry, start)
    return (start.float() + change).to(DTYPES[entry.dtype])
