"""How small: every ratio with what it is a ratio to."""

from dataclasses import dataclass

import numpy as np

from deltaproof.compression.container import Compressed


@dataclass(frozen=True)
class Sizes:
    """Bytes of a compressed update and of what it stands for."""

    file_bytes: int
    """Of the whole file."""
    n_ternary: int
    """Values that were made ternary."""
    n_kept: int
    """Of them those that are not zero."""
    code_bytes: int
    """Of their code, scales included (4 bytes a tensor)."""
    entropy_bytes: float
    """Fewest that the code could take if kept positions were independent within each tensor, signs fair, scales "
    "fp16."""
    n_whole: int
    """Values of the tensors that were kept whole."""
    whole_bytes: int
    """Bytes that those take."""
    stored_bytes: int
    """All tensors as they were stored."""

    @property
    def bits_per_value(self) -> float:
        return 8 * self.code_bytes / self.n_ternary if self.n_ternary else 0.0

    @property
    def fp16_ratio(self) -> float:
        """Ternary tensors in fp16 over their code."""
        return 2 * self.n_ternary / self.code_bytes if self.code_bytes else 0.0

    @property
    def fp32_ratio(self) -> float:
        return 2 * self.fp16_ratio

    @property
    def stored_ratio(self) -> float:
        """All tensors as they were stored over the whole file."""
        return self.stored_bytes / self.file_bytes


def sizes_of(compressed: Compressed, file_bytes: int) -> Sizes:
    """Count.

    Args:
        file_bytes: of the file, as `stat` says.
    """
    ternary = compressed.ternary.values()
    whole = [entry for entry in compressed.entries.values() if entry.kind != "ternary"]
    return Sizes(
        file_bytes,
        sum(entry.n_values for entry in ternary),
        sum(entry.n_kept for entry in ternary),
        sum(len(entry.payload) + 4 for entry in ternary),
        sum(entropy_bits(entry.n_values, entry.n_kept) for entry in ternary) / 8,
        sum(entry.n_values for entry in whole),
        sum(len(entry.payload) for entry in whole),
        sum(entry.dense_bytes for entry in compressed.entries.values()),
    )


def entropy_bits(n_values: int, n_kept: int) -> float:
    """d (-rho log2 rho - (1 - rho) log2(1 - rho) + rho) + 16: positions, signs and a scale in fp16.

    Source: Yadav et al., 2023, arXiv:2311.13171, sec. 2.

    >>> round((entropy_bits(10**6, 200_000) - 16) / 10**6, 4)
    0.9219
    """
    if n_values == 0:
        return 16.0
    shares = np.array([n_kept, n_values - n_kept]) / n_values
    positions = -sum(share * np.log2(share) for share in shares if share > 0)
    return float(n_values * positions + n_kept + 16)
