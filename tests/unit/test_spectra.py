"""Spectra, the nulls of noise and rounding, and histograms of increments, against closed forms and sampled matrices."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from deltaproof.theory.increments import Increments
from deltaproof.theory.nulls import noise_edge, r90_noise, rounding
from deltaproof.theory.spectra import gram, low_rank_dimension, spectrum, spectrum_of_factors

SHAPES = [(48, 48), (32, 80), (80, 32)]


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_values(values, shape, seed=0):
    """A matrix with these singular values and random singular vectors."""
    m, n = shape
    u, v = torch.linalg.qr(gaussian(m, m, seed=seed))[0], torch.linalg.qr(gaussian(n, n, seed=seed + 1))[0]
    return (u[:, : len(values)] * values) @ v[:, : len(values)].mT


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_are_those_of_a_full_decomposition(shape):
    values = torch.logspace(0, -5, 32, dtype=torch.float64)
    found = spectrum(with_values(values, shape))
    assert len(found.values) == min(shape)
    assert torch.allclose(found.values[:32], values, rtol=0, atol=found.floor)
    assert torch.allclose(spectrum(gaussian(*shape)).values, torch.linalg.svdvals(gaussian(*shape)), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gram_matrix_is_that_of_the_smaller_side_and_of_the_rows_where_both_are_equal(shape):
    matrix = gaussian(*shape)
    expected = matrix @ matrix.mT if shape[0] <= shape[1] else matrix.mT @ matrix
    assert torch.allclose(gram(matrix), expected)
    assert torch.allclose(gram(gaussian(20_000, 4)), gaussian(20_000, 4).mT @ gaussian(20_000, 4))


def test_the_rank_of_a_product_is_seen_in_spite_of_the_squared_condition_number():
    a, b = gaussian(5, 60), gaussian(40, 5, seed=1)
    assert spectrum(b @ a).rank == 5
    assert spectrum((b @ a).float()).n_above(1e-5) == 5


def test_factors_keep_singular_values_that_the_gram_matrix_loses():
    values = torch.tensor([1.0, 1e-6, 1e-12], dtype=torch.float64)
    u, v = torch.linalg.qr(gaussian(40, 3))[0], torch.linalg.qr(gaussian(60, 3, seed=1))[0]
    a, b = v.mT, u * values
    found = spectrum_of_factors(a, b)
    assert torch.allclose(found.values, values, rtol=1e-3)
    assert found.rank == 3
    assert found.shape == (40, 60)
    assert spectrum(b @ a).rank == 2


def test_factors_and_product_agree_on_every_number():
    a, b = gaussian(6, 50), gaussian(30, 6, seed=1)
    from_factors, from_product = spectrum_of_factors(a, b), spectrum(b @ a)
    for name in ("norm_f", "norm_2", "r90", "stable_rank", "rank"):
        assert getattr(from_factors, name) == pytest.approx(getattr(from_product, name), rel=1e-9)
    assert from_factors.entropy_rank == pytest.approx(from_product.entropy_rank, rel=1e-4)  # noise values enter its sum


@pytest.mark.parametrize(
    ("values", "r90", "stable", "entropy"),
    [(torch.ones(64), 58, 64, 64), (1 / torch.arange(1, 65), 6, 1.63, 29)],
    ids=["flat", "harmonic"],
)
def test_three_ranks_of_two_spectra_disagree_as_they_should(values, r90, stable, entropy):
    found = spectrum(torch.diag(values.double()))
    energy = values.double().square().cumsum(0) / values.double().square().sum()
    assert found.r90 == int((energy < 0.9).sum()) + 1
    assert found.stable_rank == pytest.approx(stable, abs=0.01)
    assert found.entropy_rank == pytest.approx(entropy, abs=0.5)
    assert found.r90 == r90


@pytest.mark.parametrize("rank", [0, 1, 5, 31, 32])
def test_no_matrix_of_the_rank_comes_nearer_than_the_truncation_error(rank):
    matrix = gaussian(32, 80) * torch.logspace(0, -2, 80, dtype=torch.float64)
    found = spectrum(matrix)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    rest = matrix - (u[:, :rank] * s[:rank]) @ vt[:rank]
    assert found.truncation_error(rank) == pytest.approx(float(rest.norm() / matrix.norm()), abs=1e-9)
    assert found.truncation_error(rank) == pytest.approx(math.sqrt(1 - found.energy(rank)), abs=1e-7)
    assert found.spectral_error(rank) == pytest.approx(float(torch.linalg.matrix_norm(rest, 2) / s[0]), abs=1e-7)
    projector = torch.linalg.qr(gaussian(32, 32, seed=3))[0][:, :rank]
    rival = projector @ (projector.mT @ matrix)  # the best matrix of this rank within another column space
    assert found.truncation_error(rank) <= float((matrix - rival).norm() / matrix.norm()) + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_each_further_rank_adds_no_more_energy_than_the_one_before(seed):
    energies = spectrum(gaussian(24, 40, seed=seed) * gaussian(40, seed=seed + 50).exp()).energies
    steps = torch.diff(energies, prepend=torch.zeros(1, dtype=torch.float64))
    assert (steps >= 0).all()
    assert (torch.diff(steps) <= 1e-15).all()
    assert float(energies[-1]) == pytest.approx(1)


def test_rotations_change_no_number():
    matrix = gaussian(30, 50) * torch.logspace(0, -2, 50, dtype=torch.float64)
    left, right = torch.linalg.qr(gaussian(30, 30, seed=2))[0], torch.linalg.qr(gaussian(50, 50, seed=3))[0]
    assert torch.allclose(spectrum(left @ matrix @ right).values, spectrum(matrix).values)
    assert torch.allclose(spectrum(matrix.mT).values, spectrum(matrix).values)


def test_a_zero_matrix_has_no_directions_and_nothing_to_lose():
    found = spectrum(torch.zeros(4, 6))
    assert (found.r90, found.stable_rank, found.entropy_rank, found.rank) == (0, 0, 0, 0)
    assert (found.energy(0), found.truncation_error(0), found.spectral_error(0)) == (1, 0, 0)


def test_matrices_of_a_rank_have_the_dimension_that_the_jacobian_of_their_factors_has():
    m, n, r = 6, 5, 2
    factors = gaussian(r * (m + n))

    def product(flat):
        return (flat[: m * r].reshape(m, r) @ flat[m * r :].reshape(r, n)).flatten()

    jacobian = torch.autograd.functional.jacobian(product, factors)
    assert low_rank_dimension((m, n), r) == int(torch.linalg.matrix_rank(jacobian)) == 18
    assert len(factors) == 22
    assert low_rank_dimension((m, n), 99) == m * n


@pytest.mark.parametrize("shape", [(200, 200), (150, 400), (400, 150)])
def test_r90_of_noise_is_that_of_sampled_gaussians(shape):
    sampled = [spectrum(gaussian(*shape, seed=seed)).r90 for seed in range(5)]
    assert abs(np.mean(sampled) - r90_noise(*shape)) <= 1


def test_r90_of_noise_at_the_sizes_of_a_large_model():
    assert r90_noise(4096, 4096) / 4096 == pytest.approx(0.51, abs=0.005)
    assert r90_noise(4096, 11008) / 4096 == pytest.approx(0.71, abs=0.005)
    assert r90_noise(11008, 4096) == r90_noise(4096, 11008)
    assert r90_noise(1, 1) == r90_noise(1, 50) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_any_share_of_the_energy_of_noise_agrees_with_samples(shape):
    shape = (4 * shape[0], 4 * shape[1])
    for share in (0.5, 0.9, 0.99):
        assert abs(spectrum(gaussian(*shape)).rank_for(share) - r90_noise(*shape, share)) <= 2


@pytest.mark.parametrize("shape", [(200, 200), (150, 400)])
def test_noise_ends_at_its_edge_and_planted_directions_stand_above(shape):
    noise = 0.1 * gaussian(*shape)
    found = spectrum(noise)
    assert found.norm_2 == pytest.approx(noise_edge(shape, found.norm_f), rel=0.05)
    strength = 2 * found.norm_2
    planted = spectrum(noise + with_values(torch.full((3,), strength, dtype=torch.float64), shape, seed=9))
    assert planted.n_above(noise_edge(shape, planted.norm_f)) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_expected_rounding_is_that_of_a_real_one(dtype):
    weight = 0.02 * gaussian(300, 200)
    rounded = float((weight.to(dtype).double() - weight).norm())
    assert rounding(weight, dtype).norm_f == pytest.approx(rounded, rel=0.02)
    assert rounding(weight.to(dtype), dtype).norm_f == pytest.approx(rounded, rel=0.05)
    assert rounding(torch.zeros(3, 2), dtype) == (0, 0)


@pytest.mark.parametrize("outlier", [1, 30], ids=["alike", "one large row"])
def test_no_singular_value_of_a_rounding_lies_beyond_its_edge(outlier):
    weight = gaussian(300, 200)
    weight[7] *= outlier
    largest = spectrum(weight.bfloat16().double() - weight).norm_2
    found = rounding(weight, torch.bfloat16)
    assert largest <= found.edge <= 1.6 * largest
    if outlier == 1:
        assert found.edge == pytest.approx(noise_edge((300, 200), found.norm_f), rel=0.2)
    else:
        assert largest > 1.5 * noise_edge((300, 200), found.norm_f)


def test_rounding_to_bf16_makes_a_small_update_of_rank_8_look_wide():
    base = gaussian(384, 384).bfloat16().double()
    change = gaussian(384, 8, seed=1) @ gaussian(8, 384, seed=2)
    change *= 0.003 * base.norm() / change.norm()
    stored = (base + change).bfloat16().double()
    found = spectrum(stored - base)
    assert spectrum(change).r90 <= 8
    assert 0.10 < found.r90 / 384 < 0.25
    assert 0.4 < rounding(stored, torch.bfloat16).norm_f / found.norm_f < 0.6
    assert found.n_above(rounding(stored, torch.bfloat16).edge) == 8
    large = spectrum((base + 33 * change).bfloat16().double() - base)
    assert large.r90 <= 8


def test_increments_have_the_moments_that_scipy_finds():
    entries = gaussian(500, 20) ** 3
    found = Increments().add(entries)
    assert found.n == 10_000
    assert found.std == pytest.approx(float(entries.std(correction=0)))
    assert found.excess_kurtosis == pytest.approx(scipy.stats.kurtosis(entries.flatten().numpy()))
    assert found.largest == float(entries.abs().max())
    assert found.negligible_fraction == pytest.approx(float((entries.abs() < 1e-6).double().mean()))


def test_the_histogram_counts_every_entry_where_numpy_does():
    entries = gaussian(5000) * torch.logspace(-6, 1, 5000, dtype=torch.float64)
    edges, counts = Increments().add(entries).histogram()
    expected, _ = np.histogram(entries.numpy(), bins=edges)
    assert counts == expected.tolist()
    assert sum(counts) == 5000
    assert counts[0] > 0
    assert counts[-1] > 0


def test_pieces_added_or_merged_in_any_order_give_one_histogram():
    pieces = [scale * gaussian(100, seed=at) for at, scale in enumerate((1e-9, 3.0, 1e-3, 0.0))]
    together = Increments().add(torch.cat(pieces))
    one_by_one = Increments()
    for piece in reversed(pieces):
        one_by_one.add(piece)
    merged = Increments()
    for piece in pieces:
        merged.merge(Increments().add(piece))
    assert together.histogram() == one_by_one.histogram() == merged.histogram()
    assert together.excess_kurtosis == pytest.approx(merged.excess_kurtosis)
    assert Increments().to_dict()["histogram"] == {"edges": [], "counts": []}
