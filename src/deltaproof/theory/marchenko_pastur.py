"""Singular values of Gaussian noise, from the Marchenko-Pastur law: what a spectrum is held against; needs no torch."""

import numpy as np

_N_ANGLES = 4096


def noise_profile(m: int, n: int, positions: np.ndarray) -> np.ndarray:
    """Where the i-th largest singular value of an m x n matrix of independent Gaussians lies, 1 being the edge.

    With eigenvalues 1 + b + 2 sqrt(b) cos(t), b = smaller / larger side, the share of them above an angle t is the
    integral of (2 / pi) sin^2 t / (1 + b + 2 sqrt(b) cos t); see `nulls.r90_noise`. Source: Marchenko and Pastur, 1967.

    Args:
        positions: i, counted from 1, (k,).
    Returns:
        (k,), singular values divided by s (sqrt(m) + sqrt(n)), s being the size of an entry; expectations to a share
        of one position.

    >>> noise_profile(100, 100, np.array([1.0, 50.0, 100.0])).round(2).tolist()
    [0.97, 0.41, 0.0]
    """
    smaller, larger = sorted((m, n))
    ratio = smaller / larger
    angles = np.linspace(0.0, np.pi, _N_ANGLES)
    eigenvalues = 1 + ratio + 2 * np.sqrt(ratio) * np.cos(angles)
    density = 2 / np.pi * np.sin(angles) ** 2 / np.maximum(eigenvalues, 1e-12)
    above = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)]) * (angles[1] - angles[0])
    at = np.interp((np.asarray(positions, dtype=float) - 0.5) / smaller, above / above[-1], angles)
    values: np.ndarray = np.sqrt(np.maximum(1 + ratio + 2 * np.sqrt(ratio) * np.cos(at), 0.0)) / (1 + np.sqrt(ratio))
    return values
