"""Ternary vectors as two bit masks: products and similarities by AND, XOR and counting bits, nothing written out dense.

A vector of d entries takes 2 ceil(d / 8) bytes, 8 times less than fp16 at any density. That is the form to compute
with; the form to send is the code in `codec.py`.

Source: Yadav et al., 2023, arXiv:2311.13171, sec. 2 (binary masks as the form for computing).
"""

from dataclasses import dataclass

import numpy as np

from deltaproof.errors import ConfigError


@dataclass(frozen=True)
class Masks:
    """scale * (positive - negative), each mask packed, the first entry in the highest bit, spare bits zero."""

    n_values: int
    scale: float
    positive: np.ndarray
    """(ceil(d / 8),) uint8."""
    negative: np.ndarray

    @classmethod
    def of(cls, signs: np.ndarray, scale: float = 1.0) -> "Masks":
        """From signs in {-1, 0, +1}, (d,) int8.

        >>> Masks.of(np.array([1, 0, -1], np.int8)).signs().tolist()
        [1, 0, -1]
        """
        return cls(len(signs), scale, np.packbits(signs > 0), np.packbits(signs < 0))

    @property
    def n_bytes(self) -> int:
        """Of both masks; the scale comes on top."""
        return self.positive.nbytes + self.negative.nbytes

    @property
    def n_kept(self) -> int:
        return _count(self.positive) + _count(self.negative)

    def signs(self) -> np.ndarray:
        """(d,) int8."""
        bits = (np.unpackbits(mask, count=self.n_values).astype(np.int8) for mask in (self.positive, self.negative))
        signs: np.ndarray = next(bits) - next(bits)
        return signs

    def agreement(self, other: "Masks") -> int:
        """Entries kept by both with one sign less those kept by both with two signs: the product of the signs.

        Raises:
            ConfigError: the two have different lengths.
        """
        if self.n_values != other.n_values:
            raise ConfigError(
                f"vectors must have one length to be multiplied, got {self.n_values} and {other.n_values}; compare "
                f"updates of the same tensors"
            )
        both = (self.positive | self.negative) & (other.positive | other.negative)
        differ = (self.positive ^ other.positive) & both  # of what both keep, positive here and negative there
        return _count(both) - 2 * _count(differ)

    def dot(self, other: "Masks") -> float:
        """The inner product, scales included."""
        return self.scale * other.scale * self.agreement(other)

    def cosine(self, other: "Masks") -> float:
        """The cosine of the two vectors, in -1..1; NaN where one is zero."""
        lengths = float(self.n_kept * other.n_kept) ** 0.5
        return self.agreement(other) / lengths if lengths else float("nan")


def _count(mask: np.ndarray) -> int:
    """Bits that are set."""
    whole = len(mask) // 8 * 8
    words = np.bitwise_count(mask[:whole].view(np.uint64)).sum(dtype=np.int64)
    return int(words) + int(np.bitwise_count(mask[whole:]).sum(dtype=np.int64))
