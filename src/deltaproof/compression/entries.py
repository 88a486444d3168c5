"""What a compressed file holds of each tensor: a ternary change, the tensor itself, or the rows that changed."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from deltaproof.compression.codec import Code, check_sizes, decode
from deltaproof.errors import CorruptFileError

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Types of tensors by the names that safetensors gives them."""
STARTS = ("zero", "one", "init", "base")
"""What a ternary change is added to: nothing, ones, the method's start values, the base model's weights."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a compressed update."""

    kind: ClassVar[str]
    name: str
    shape: tuple[int, ...]
    dtype: str
    """Of the tensor that is restored, as safetensors calls it."""
    payload: bytes

    @property
    def n_values(self) -> int:
        return math.prod(self.shape)

    @property
    def dense_bytes(self) -> int:
        return self.n_values * ITEM_BYTES[self.dtype]

    def numbers(self) -> dict[str, Any]:
        """What stands in the index beside name, shape, type, length and checksum."""
        return {}

    def check(self) -> None:
        """Whether numbers and payload fit each other.

        Raises:
            CorruptFileError: they do not.
        """

    def _corrupt(self, reason: str) -> CorruptFileError:
        return CorruptFileError(f"`{self.name}` cannot be read: {reason}; copy the file again, or compress anew")


@dataclass(frozen=True)
class Ternary(Entry):
    """start + scale * signs."""

    kind = "ternary"
    start: str
    scale: float
    """As fp32."""
    n_kept: int
    divisor: int
    n_unary_bits: int
    n_long: int
    start_crc: int | None = None
    """CRC-32 of the start values' bytes, where they are made anew from a seed or read from a folder."""

    @classmethod
    def of(
        cls, name: str, shape: tuple[int, ...], dtype: str, code: Code, start: str, start_crc: int | None
    ) -> "Ternary":
        """An encoded vector whose scale is not set yet."""
        return cls(
            name, shape, dtype, code.streams, start, 0.0, code.n_kept, code.divisor, code.n_unary_bits, code.n_long,
            start_crc,
        )  # fmt: skip

    @property
    def code(self) -> Code:
        return Code(self.n_values, self.n_kept, self.divisor, self.n_unary_bits, self.n_long, self.payload)

    def signs(self) -> np.ndarray:
        """(d,) int8."""
        return decode(self.code, self.name)

    def scaled(self, scale: float) -> "Ternary":
        return replace(self, scale=float(np.float32(scale)))

    def numbers(self) -> dict[str, Any]:
        more = {} if self.start_crc is None else {"start_crc": self.start_crc}
        scale = float(str(np.float32(self.scale)))  # the shortest digits that tell this fp32 from others
        return {
            "start": self.start, "scale": scale, "kept": self.n_kept, "divisor": self.divisor,
            "unary": self.n_unary_bits, "long": self.n_long, **more,
        }  # fmt: skip

    def check(self) -> None:
        if self.start not in STARTS:
            raise self._corrupt(f"its start must be one of {', '.join(STARTS)}, got `{self.start}`")
        if not 0 <= self.scale < math.inf:
            raise self._corrupt(f"its scale must be a number from 0, got {self.scale}")
        if not self.dtype.startswith(("F", "BF")):
            raise self._corrupt(f"a ternary change is of floats, got {self.dtype}")
        check_sizes(self.code, self.name)


@dataclass(frozen=True)
class Whole(Entry):
    """The tensor, byte by byte."""

    kind = "whole"

    def check(self) -> None:
        if len(self.payload) != self.dense_bytes:
            raise self._corrupt(f"{self.dense_bytes} bytes must be there, got {len(self.payload)}")


@dataclass(frozen=True)
class Rows(Entry):
    """The base's tensor with some rows replaced: numbers of rows as little-endian uint32, then the rows."""

    kind = "rows"
    n_rows: int

    @property
    def row_bytes(self) -> int:
        return self.dense_bytes // max(self.shape[0], 1) if self.shape else self.dense_bytes

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Which rows, (n,), and their bytes, (n, bytes of a row)."""
        where = np.frombuffer(self.payload, "<u4", self.n_rows)
        values = np.frombuffer(self.payload, np.uint8, offset=4 * self.n_rows)
        return where, values.reshape(self.n_rows, self.row_bytes)

    def numbers(self) -> dict[str, Any]:
        return {"rows": self.n_rows}

    def check(self) -> None:
        if not self.shape or not 0 <= self.n_rows <= self.shape[0]:
            raise self._corrupt(f"{self.n_rows} rows cannot have changed of a tensor of shape {list(self.shape)}")
        if len(self.payload) != self.n_rows * (4 + self.row_bytes):
            raise self._corrupt(f"{self.n_rows} rows need {self.n_rows * (4 + self.row_bytes)} bytes")
        where, _ = self.rows()
        if self.n_rows and (int(where[-1]) >= self.shape[0] or bool((where[1:] <= where[:-1]).any())):
            raise self._corrupt("numbers of rows must ascend and lie within the tensor")
