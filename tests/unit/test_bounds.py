"""The displacement bound: never violated by random networks, tight where it can be, and where floats end."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from deltaproof.theory.bounds import (
    ACTIVATIONS,
    Block,
    Map,
    Reach,
    activation_lipschitz,
    log10_first_order,
    log10_layer_bound,
    log10_uniform_bound,
)


def norm_2(matrices):
    return [float(np.linalg.norm(matrix, 2)) for matrix in matrices]


def relu_net(weights, biases, x):
    for weight, bias in zip(weights, biases, strict=True):
        x = np.maximum(weight @ x + bias, 0)
    return x


def test_2000_random_relu_networks_never_move_further_than_the_bounds_say():
    draw = np.random.default_rng(0)
    tightest = 0.0
    for _ in range(2000):
        depth, width = int(draw.integers(1, 6)), int(draw.integers(2, 17))
        base = [draw.normal(size=(width, width)) / math.sqrt(width) for _ in range(depth)]
        changes = [draw.normal(size=(width, width)) * draw.exponential(0.3) for _ in range(depth)]
        x, none = draw.normal(size=width), [np.zeros(width)] * depth
        tuned = [one + other for one, other in zip(base, changes, strict=True)]
        moved = np.linalg.norm(relu_net(tuned, none, x) - relu_net(base, none, x))
        sizes, alphas, length = norm_2(base), norm_2(changes), float(np.linalg.norm(x))
        layer = 10 ** log10_layer_bound(sizes, alphas, 1.0, length)
        uniform = 10 ** log10_uniform_bound(max(sizes), alphas, 1.0, length)
        assert moved <= layer * (1 + 1e-9)
        assert layer <= uniform * (1 + 1e-9)
        tightest = max(tightest, moved / layer)
    assert 0.05 < tightest <= 1


def test_random_networks_with_biases_and_residuals_never_move_further_either():
    draw = np.random.default_rng(1)
    for _ in range(500):
        depth, width = int(draw.integers(1, 5)), int(draw.integers(2, 9))
        base = [draw.normal(size=(width, width)) for _ in range(depth)]
        changes = [0.2 * draw.normal(size=(width, width)) for _ in range(depth)]
        bias = [draw.normal(size=width) for _ in range(depth)]
        bias_changes = [0.5 * draw.normal(size=width) for _ in range(depth)]
        start, shift = draw.normal(size=width), 0.1 * draw.normal(size=width)
        h0, h, blocks = start, start + shift, []
        for at in range(depth):
            h0 = h0 + np.maximum(base[at] @ h0 + bias[at], 0)
            h = h + np.maximum((base[at] + changes[at]) @ h + bias[at] + bias_changes[at], 0)
            sizes = Map(*norm_2([base[at], changes[at]]), *(np.linalg.norm(b[at]) for b in (bias, bias_changes)))
            blocks.append(Block((sizes,), is_residual=True))
        reach = Reach.at(np.linalg.norm(start), np.linalg.norm(shift)).past(blocks)
        assert np.linalg.norm(h0) <= np.exp(reach.size) * (1 + 1e-9)
        assert np.linalg.norm(h - h0) <= 10**reach.log10_shift * (1 + 1e-9)


def test_where_all_directions_are_aligned_the_bound_is_the_displacement_and_the_first_order_form_is_too_small():
    """Three layers I + I/2 on a positive x: 1.5^3 - 1 = 2.375, and 3/2 to first order."""
    base, change, x = [np.eye(4)] * 3, [0.5 * np.eye(4)] * 3, np.array([1.0, 0, 0, 0])
    tuned = [one + other for one, other in zip(base, change, strict=True)]
    moved = np.linalg.norm(relu_net(tuned, [0] * 3, x) - relu_net(base, [0] * 3, x))
    assert moved == 2.375
    assert 10 ** log10_layer_bound(norm_2(base), norm_2(change)) == pytest.approx(2.375, rel=1e-12)
    assert 10 ** log10_uniform_bound(1.0, norm_2(change)) == pytest.approx(2.375, rel=1e-12)
    assert 10 ** log10_first_order(1.0, norm_2(change)) == pytest.approx(1.5, rel=1e-12)
    assert moved > 10 ** log10_first_order(1.0, norm_2(change))


def test_the_recursion_without_biases_and_residuals_is_the_closed_form():
    draw = np.random.default_rng(2)
    norms, changes, slopes = draw.exponential(size=(3, 12))
    blocks = [Block((Map(norm, change),), slope) for norm, change, slope in zip(norms, changes, slopes, strict=True)]
    reach = Reach.at([3.0, 7.0]).past(blocks)
    wanted = [log10_layer_bound(norms, changes, slopes, size) for size in (3.0, 7.0)]
    np.testing.assert_allclose(reach.log10_shift, wanted, rtol=1e-12)


def test_a_residual_block_multiplies_by_one_plus_l_m():
    reach = Reach.at(2.0).past([Block((Map(3.0), Map(5.0)), 1.5, is_residual=True)])
    assert math.exp(float(reach.size)) == pytest.approx(2 * (1 + 1.5 * 15), rel=1e-12)


def test_the_bound_of_a_deep_network_is_a_number_where_its_value_is_none():
    assert log10_layer_bound([1e5] * 200, [1.0] * 200) == pytest.approx(
        5 * 200 + math.log10(math.expm1(200 * math.log1p(1e-5)))
    )
    assert log10_layer_bound([1.0] * 3, [1e-300, 0, 0]) == pytest.approx(-300)


def test_what_did_not_change_does_not_move_and_a_layer_that_was_zero_begins_to():
    assert log10_layer_bound([2.0, 3.0], [0.0, 0.0]) == -math.inf
    assert float(Reach.at(1.0).past([Block((Map(2.0, bias=1.0),))]).shift) == -math.inf
    assert 10 ** log10_layer_bound([0.0, 3.0], [0.5, 0.0]) == pytest.approx(1.5)
    assert log10_layer_bound([0.0, 3.0], [0.0, 1.0]) == -math.inf


@pytest.mark.parametrize(("name", "activation"), [
    ("relu", nn.ReLU()), ("tanh", nn.Tanh()), ("gelu", nn.GELU()), ("silu", nn.SiLU()),
])  # fmt: skip
def test_the_slopes_of_activations_are_the_known_ones(name, activation):
    assert activation_lipschitz(activation) == pytest.approx(ACTIVATIONS[name], abs=5e-5)
    x = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    assert float(activation(x).diff().abs().max()) <= ACTIVATIONS[name] * 0.005 * (1 + 1e-4)
