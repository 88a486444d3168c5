"""A few numbers that tell whether a frozen tensor, made anew instead of stored, came out as it was."""

import torch
from torch import Tensor

from deltaproof.errors import ConfigError

TOLERANCE = 1e-5
"""Rounding to fp32 moves a fingerprint by about 1e-7; a row with its sign turned moves it by about 1."""


def probed(rows: Tensor) -> Tensor:
    """One number per row: its product with the fixed vector cos(1), cos(4), cos(9), …

    The squares keep the vector away from every row that a model may plausibly hold: constant, alternating, a wave.

    Args:
        rows: (r, d).
    Returns:
        (r,), in fp32.
    """
    vector = torch.arange(1, rows.shape[1] + 1, dtype=torch.double).square().cos()
    return (rows.detach().cpu().double() @ vector).float()


def check_fingerprint(own: Tensor, stored: Tensor, what: str, remedy: str) -> None:
    """Refuse stored values that were trained beside other frozen ones than those at hand.

    Args:
        own: (kinds, n) or (n,): fingerprints of the tensors at hand, each kind in a row with a scale of its own.
        stored: those of the tensors that the values were trained beside.
    Raises:
        ConfigError: the two differ by more than rounding.
    """
    own, stored = own.detach().cpu(), stored.detach().cpu()
    scale = own.abs().amax(-1, keepdim=True).clamp_min(1)
    difference = float(((own - stored) / scale).abs().max()) if own.shape == stored.shape else float("inf")
    if not difference <= TOLERANCE:
        raise ConfigError(
            f"{what} must come out as in the training that made these values, they differ by {difference:.2g}; {remedy}"
        )
