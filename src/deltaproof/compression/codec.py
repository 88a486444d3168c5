"""A lossless code for ternary vectors: gaps between kept positions by Golomb's code, and one sign bit each.

A vector of d entries in {-1, 0, +1} with n entries kept is told by its n gaps g = p_i - p_(i-1) - 1 and n signs. With
independent positions gaps are geometric, for which Golomb's code is the best code that takes gaps one by one: g = q m +
r, q in unary (q zeros and a one), r in the truncated binary code of m values. What the numbers q, r and the signs need
stands in four streams instead of one, so that each is written and read by whole arrays:

    unary    n_unary_bits    the quotients
    heads    n (b - 1)       the first b - 1 bits of each remainder, b = ceil(log2 m), lowest bits of all first
    tails    n_long          the last bit of those remainders that have b bits
    signs    n               1 for -1

Streams are whole bytes, the first bit in the highest place, the rest of the last byte zero. Every number is an integer:
the same vector gives the same bytes on every machine.

Source: Golomb, 1966, IEEE Trans. Inf. Theory 12(3); the best m: Gallager and van Voorhis, 1975, IEEE Trans. Inf.
Theory 21(2); for updates of models: Sattler et al., 2019, arXiv:1903.02891.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from deltaproof.errors import CorruptFileError

LARGEST = 2**62
"""No vector is longer: positions are reckoned with in signed 64-bit integers."""


@dataclass(frozen=True)
class Code:
    """A ternary vector, encoded."""

    n_values: int
    """d, the length of the vector."""
    n_kept: int
    """n, the entries that are not zero."""
    divisor: int
    """m of Golomb's code."""
    n_unary_bits: int
    n_long: int
    """Remainders that take the longer of the two lengths."""
    streams: bytes

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Bytes of the four streams."""
        bits = (self.n_unary_bits, self.n_kept * max(_width(self.divisor) - 1, 0), self.n_long, self.n_kept)
        return tuple((n + 7) // 8 for n in bits)  # type: ignore[return-value]


def best_divisor(n_values: int, n_kept: int) -> int:
    """The m that makes the code of geometric gaps shortest, ceil(-log2(2 - rho) / log2(1 - rho)), rho = n / d.

    >>> best_divisor(1000, 200), best_divisor(1000, 500), best_divisor(1000, 10)
    (3, 1, 69)
    """
    if n_kept == 0 or 2 * n_kept >= n_values:
        return 1
    density = n_kept / n_values
    return max(1, math.ceil(-math.log2(2 - density) / (math.log1p(-density) / math.log(2))))


def encode(signs: np.ndarray) -> Code:
    """The code of a ternary vector.

    Args:
        signs: (d,) int8 with the values -1, 0, +1.
    """
    positions = np.flatnonzero(signs != 0)
    return encode_positions(positions, signs[positions] < 0, len(signs))


def encode_positions(positions: np.ndarray, negative: np.ndarray, n_values: int) -> Code:
    """The same from where the kept entries stand, for vectors too long to write out.

    Args:
        positions: (n,) integers, ascending, below n_values.
        negative: (n,) bool, which of them are -1.
    """
    n = len(positions)
    m = best_divisor(n_values, n)
    small: Any = np.uint32 if n_values < 2**32 else np.int64  # half the memory to move, and faster to divide
    positions = positions.astype(small, copy=False)
    gaps: Any = np.empty(n, small)
    if n:
        gaps[0] = positions[0]
        np.subtract(positions[1:], positions[:-1], out=gaps[1:])
        gaps[1:] -= small(1)
    quotients = gaps // small(m) if m > 1 else gaps
    ends = np.cumsum(quotients, dtype=np.int64)
    ends += np.arange(n)
    n_unary_bits = int(ends[-1]) + 1 if n else 0
    unary = np.zeros(n_unary_bits, bool)
    unary[ends] = True
    heads, tails = _split(gaps - quotients * small(m), m) if m > 1 else (np.empty(0, small), np.empty(0, bool))
    planes = [(heads >> small(bit)) & small(1) for bit in range(_width(m) - 1)]
    parts = [unary, np.concatenate([plane.astype(bool) for plane in planes]) if planes else np.empty(0, bool)]
    streams = b"".join(np.packbits(bits).tobytes() for bits in (*parts, tails, np.asarray(negative, bool)))
    return Code(n_values, n, m, n_unary_bits, len(tails), streams)


def decode(code: Code, name: str = "a tensor") -> np.ndarray:
    """The vector, (d,) int8.

    Args:
        name: what an error calls it.
    Raises:
        CorruptFileError: the streams are no code of such a vector.
    """
    positions, negative = decode_positions(code, name)
    signs = np.zeros(code.n_values, np.int8)
    signs[positions] = 1 - 2 * negative.astype(np.int8)
    return signs


def decode_positions(code: Code, name: str = "a tensor") -> tuple[np.ndarray, np.ndarray]:
    """Where the kept entries stand, (n,) int64, and which of them are -1, (n,) bool; memory goes with n, not with d.

    Raises:
        CorruptFileError: the streams are no code of such a vector.
    """
    check_sizes(code, name)
    n, m, edges = code.n_kept, code.divisor, np.cumsum((0, *code.sizes))
    data = np.frombuffer(code.streams, np.uint8)
    unary, heads, tails, signs = (data[start:end] for start, end in pairwise(edges))
    ends = np.flatnonzero(_bits(unary, code.n_unary_bits, name, "unary").view(bool))
    if len(ends) != n or (n and ends[-1] + 1 != code.n_unary_bits):
        raise _corrupt(name, f"the unary stream must end {n} numbers with its last bit, it ends {len(ends)}")
    positions = ends
    if m > 1:
        remainders = _join(heads, tails, code, name)
        if float(remainders.sum(dtype=np.float64)) > code.n_values:
            raise _corrupt(name, f"positions must lie below {code.n_values}, gaps add up to more")
        counter = np.arange(n)
        positions = (ends - counter) * m
        positions += np.cumsum(remainders, dtype=np.int64)
        positions += counter
    if n and positions[-1] >= code.n_values:
        raise _corrupt(name, f"positions must lie below {code.n_values}, the last is {int(positions[-1])}")
    return positions, _bits(signs, n, name, "sign").view(bool)


def check_sizes(code: Code, name: str) -> None:
    """Whether the numbers fit each other and the bytes that are there: before anything is allocated by them.

    Raises:
        CorruptFileError: they do not.
    """
    d, n, m = code.n_values, code.n_kept, code.divisor
    if not (0 <= n <= d <= LARGEST and 1 <= m <= max(d, 1) and 0 <= code.n_long <= n):
        raise _corrupt(name, f"its numbers must fit each other, got {d} values, {n} kept, divisor {m}")
    if not (n <= code.n_unary_bits <= n + (d - n) // m and (n > 0 or code.n_unary_bits == 0)):
        raise _corrupt(name, f"{n} of {d} values with divisor {m} cannot take {code.n_unary_bits} unary bits")
    if (m == 1 and code.n_long) or sum(code.sizes) != len(code.streams):
        raise _corrupt(name, f"its streams must have {sum(code.sizes)} bytes, got {len(code.streams)}")


def _width(m: int) -> int:
    """b, the bits of the longer remainders."""
    return (m - 1).bit_length()


def _split(remainders: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Truncated binary: r < c = 2^b - m takes b - 1 bits, other r the b bits of r + c."""
    cut = remainders.dtype.type((1 << _width(m)) - m)
    is_long = remainders >= cut
    shifted = remainders + cut
    heads = np.where(is_long, shifted >> shifted.dtype.type(1), remainders)
    return heads, (shifted[is_long] & shifted.dtype.type(1)).astype(bool)


def _join(heads: np.ndarray, tails: np.ndarray, code: Code, name: str) -> np.ndarray:
    """The remainders from their two streams, (n,)."""
    n, width = code.n_kept, _width(code.divisor) - 1
    cut = (1 << _width(code.divisor)) - code.divisor
    kind: Any = np.uint32 if width < 31 else np.int64
    planes = _bits(heads, n * width, name, "head").reshape(width, n)
    values: Any = np.zeros(n, kind)
    for bit in range(width):
        values |= planes[bit].astype(kind) << kind(bit)
    is_long = values >= kind(cut)
    if (n_long := int(np.count_nonzero(is_long))) != code.n_long:
        raise _corrupt(name, f"{code.n_long} remainders must be long, {n_long} are")
    last: Any = np.zeros(n, kind)
    last[is_long] = _bits(tails, n_long, name, "tail")
    joined: np.ndarray = np.where(is_long, 2 * values + last - kind(cut), values)
    return joined


def _bits(stream: np.ndarray, n: int, name: str, what: str) -> np.ndarray:
    """The first n bits, (n,) uint8; what is left of the last byte must be zero."""
    if n % 8 and int(stream[-1]) & (0xFF >> n % 8):
        raise _corrupt(name, f"the bits behind the {what} stream must be zero")
    return np.unpackbits(stream, count=n)


def _corrupt(name: str, reason: str) -> CorruptFileError:
    return CorruptFileError(f"`{name}` cannot be decoded: {reason}; copy the file again, or compress anew")
