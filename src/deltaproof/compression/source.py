"""What is compressed: the tensors of an update, one at a time, each with what it started from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltaproof.errors import CompressionError

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
DTYPES = {name: dtype for dtype, name in NAMES.items()}


@dataclass(frozen=True)
class Part:
    """One tensor of an update."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: str | None
    """What its change is counted from: `zero`, `one`, `init` or `base`; None: it is kept whole."""
    factor: str = ""
    """Which kind of factor it is: `A`, `B`, `M`, `gain`, `weight`; those of a kind share a scale in scope "
    "`per_factor`."""
    module: str = ""
    """Parts of one module are factors of one product: when one is zero, the module's update is."""


class Source(ABC):
    """An update that lies on disk."""

    parts: list[Part]
    """In the order of their names."""
    facts: dict[str, Any]
    """What a reader of the compressed file needs beside the tensors."""

    @abstractmethod
    def tensor(self, part: Part) -> Tensor:
        """Its tuned value."""

    @abstractmethod
    def start(self, part: Part) -> Tensor | None:
        """What it started from; None for zeros and ones."""

    def base(self, part: Part) -> Tensor | None:
        """The base model's tensor of a part that is kept whole, where there is one of the same shape and type."""
        return None

    def change(self, part: Part) -> np.ndarray:
        """tau, tuned less start, flat, in fp32.

        Raises:
            CompressionError: it holds infinite values or none at all.
        """
        change = self.tensor(part).detach().cpu().float()
        start = self.start(part)
        if start is not None:
            change = change - start.detach().cpu().float()
        elif part.start == "one":
            change = change - 1
        flat: np.ndarray = change.contiguous().flatten().numpy()
        if not np.isfinite(flat).all():
            raise CompressionError(
                f"an update must be finite, `{part.name}` holds NaN or infinity; this training diverged, compress "
                f"another"
            )
        return flat


def tensor_bytes(tensor: Tensor) -> bytes:
    """Its values as they lie in memory, row by row."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def tensor_of(data: bytes, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of these bytes."""
    if not data:
        return torch.zeros(shape, dtype=DTYPES[dtype])
    return torch.frombuffer(bytearray(data), dtype=DTYPES[dtype]).reshape(shape)
