"""Overlap, captured energy and cosine, against closed forms and canonical angles."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from deltaproof.theory.spectra import spectrum
from deltaproof.theory.subspaces import captured_energy, cosine, leading_directions, overlap_grid, subspace_overlap


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(d, k, seed=0):
    return torch.linalg.qr(gaussian(d, k, seed=seed))[0]


def test_overlap_is_1_within_and_0_across():
    basis = orthonormal(20, 9)
    assert float(subspace_overlap(basis[:, :3], basis[:, :5])) == pytest.approx(1)
    assert float(subspace_overlap(basis[:, :3], basis[:, 3:])) == pytest.approx(0)
    assert float(subspace_overlap(basis[:, :4], basis[:, 2:6])) == pytest.approx(0.5)


def test_overlap_is_the_mean_squared_cosine_of_the_canonical_angles():
    u, v = orthonormal(30, 4), orthonormal(30, 7, seed=1)
    angles = scipy.linalg.subspace_angles(u.numpy(), v.numpy())
    assert float(subspace_overlap(u, v)) == pytest.approx(np.mean(np.cos(angles) ** 2))


def test_overlap_of_random_spaces_is_the_larger_dimension_over_all():
    found = [float(subspace_overlap(orthonormal(40, 3, seed), orthonormal(40, 8, seed + 500))) for seed in range(200)]
    assert np.mean(found) == pytest.approx(8 / 40, abs=0.02)


def test_overlap_knows_spaces_not_bases():
    u, v = orthonormal(30, 4), orthonormal(30, 6, seed=1)
    turned, common = orthonormal(4, 4, seed=2), orthonormal(30, 30, seed=3)
    expected = float(subspace_overlap(u, v))
    assert float(subspace_overlap(u @ turned, v)) == pytest.approx(expected)
    assert float(subspace_overlap(common @ u, common @ v)) == pytest.approx(expected)
    assert overlap_grid(u, v, (1, 4))[1][1] == pytest.approx(float(subspace_overlap(u, v[:, :4])))


@pytest.mark.parametrize("shape", [(24, 24), (24, 40), (40, 24)])
def test_leading_directions_rebuild_a_matrix_of_low_rank(shape):
    matrix = gaussian(shape[0], 5) @ gaussian(5, shape[1], seed=1)
    u, s, v = leading_directions(matrix, 9)
    assert (u.shape, v.shape) == ((shape[0], 5), (shape[1], 5))
    assert torch.allclose((u * s) @ v.mT, matrix, atol=1e-6)
    assert torch.allclose(s, torch.linalg.svdvals(matrix)[:5])
    for basis in (u, v):
        assert torch.allclose(basis.mT @ basis, torch.eye(5, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 20])
def test_an_updates_own_directions_capture_the_energy_of_that_rank(rank):
    matrix = gaussian(20, 30)
    u, _, v = leading_directions(matrix, rank)
    assert captured_energy(u, v, matrix) == pytest.approx(spectrum(matrix).energy(rank))
    assert captured_energy(u, v, torch.zeros(20, 30)) == 0


def test_captured_energy_is_known_for_diagonal_updates():
    e = torch.eye(4, dtype=torch.float64)
    change = torch.diag(torch.tensor([3.0, 2.0, 1.0, 1.0]))
    assert captured_energy(e[:, :2], e[:, :3], change) == pytest.approx(13 / 15)
    assert captured_energy(e[:, :2], e[:, 2:], change) == 0


def test_cosine_is_that_of_the_entries():
    one, other = gaussian(4, 5), gaussian(4, 5, seed=1)
    assert cosine(one, -3 * one) == pytest.approx(-1)
    assert cosine(one, other) == pytest.approx(float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0)))
    assert cosine(one, torch.zeros(4, 5)) == 0
    assert cosine(torch.eye(2), torch.ones(2, 2)) == pytest.approx(1 / math.sqrt(2))
