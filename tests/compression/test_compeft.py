"""ComPEFT on vectors and factors whose answers are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deltaproof.compression.compeft import compress, pruned, ternarised
from deltaproof.compression.restore import restored
from deltaproof.compression.source import Part
from deltaproof.compression.topk import Moments, find_cut
from deltaproof.errors import CompressionError, ConfigError
from updates import InMemory, adapters

VECTORS = arrays(
    np.float32, st.integers(1, 60), elements=st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.5, -2.0, 1e-40, -1e-40, 3e38])
)


def decoded(source, **settings):
    """The tensors of a compressed update."""
    found = compress(source, **settings)
    starts = {name: source.starts.get(name) for name in source.tensors}
    return {name: restored(entry, starts.__getitem__) for name, entry in found.compressed.entries.items()}


def by_sorting(vector, n):
    """The n largest magnitudes, ties to the lowest index, zeros never: by a stable sort."""
    signs = np.zeros(len(vector), np.int8)
    for at in np.argsort(-np.abs(vector), kind="stable")[:n]:
        signs[at] = np.sign(vector[at])
    return signs


@settings(max_examples=300, deadline=None)
@given(VECTORS, st.integers(0, 60), st.integers(1, 4))
def test_what_is_kept_is_what_a_stable_sort_keeps(vector, n, n_parts):
    parts = np.array_split(vector, n_parts)
    cut = find_cut(lambda: parts, min(n, len(vector)))
    assert np.concatenate([cut.signs(part) for part in parts]).tolist() == by_sorting(vector, n).tolist()


def test_exactly_the_share_is_kept_with_ties_and_the_lowest_come_first():
    signs = compress(InMemory({"w": torch.ones(1000)}), 0.2).compressed.ternary["w"].signs()
    assert np.count_nonzero(signs) == 200
    assert signs[:200].all()


def test_nothing_dropped_is_larger_than_what_is_kept():
    vector = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    entry = compress(InMemory({"w": vector}), 0.13).compressed.ternary["w"]
    kept = entry.signs() != 0
    assert entry.n_kept == round(0.13 * 5000)
    assert vector.abs()[~kept].max() <= vector.abs()[kept].min()


def test_the_hand_vector_gets_two_deviations_where_it_is_large():
    vector = np.array([3, -1, 0.5, 0], np.float32)
    sigma = np.std([3, -1, 0.5, 0], ddof=1)
    assert sigma == pytest.approx(1.7017, abs=1e-4)
    assert ternarised(vector, 0.5, 2.0).tolist() == pytest.approx([2 * sigma, -2 * sigma, 0, 0])


def test_the_deviation_is_that_of_the_whole_update_in_any_division():
    draw = np.random.default_rng(0)
    vector = (1e3 + draw.standard_normal(10_001)).astype(np.float32)
    moments = Moments()
    for part in np.array_split(vector, 7):
        moments.add(part)
    assert moments.deviation == pytest.approx(np.std(vector.astype(np.float64), ddof=1), rel=1e-9)
    assert moments.energy == pytest.approx(float(np.square(vector.astype(np.float64)).sum()), rel=1e-12)


def test_scaling_an_update_scales_the_scale_alone_and_turning_it_turns_signs_alone():
    vector = torch.randn(3000, generator=torch.Generator().manual_seed(1))
    one = compress(InMemory({"w": vector}), 0.2, 1.5).compressed.ternary["w"]
    four = compress(InMemory({"w": 4 * vector}), 0.2, 1.5).compressed.ternary["w"]
    turned = compress(InMemory({"w": -vector}), 0.2, 1.5).compressed.ternary["w"]
    assert four.payload == one.payload
    assert four.scale == 4 * one.scale
    assert np.array_equal(turned.signs(), -one.signs())
    assert turned.scale == one.scale


@pytest.mark.parametrize("scope", ["per_tensor", "per_factor", "global"])
def test_the_order_in_which_tensors_come_does_not_matter(scope):
    tensors, _ = adapters(3, 32, 4, 0.1)
    backwards = dict(reversed(tensors.items()))
    assert (
        compress(InMemory(tensors), 0.2, scope=scope).compressed.to_bytes()
        == compress(InMemory(backwards), 0.2, scope=scope).compressed.to_bytes()
    )


def test_the_automatic_alpha_leaves_the_smallest_error_of_all_scales():
    vector = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    found = compress(InMemory({"w": torch.from_numpy(vector)}), 0.2)
    group = found.groups["w"]
    assert group.best_alpha == pytest.approx(1.76, abs=0.02)  # of a Gaussian at a fifth, by its closed form
    entry = found.compressed.ternary["w"]
    signs = entry.signs().astype(np.float64)

    def error(scale):
        return np.linalg.norm(vector - scale * signs)

    assert error(entry.scale) <= min(error(0.99 * entry.scale), error(1.01 * entry.scale))
    assert found.relative_error == pytest.approx(error(entry.scale) / np.linalg.norm(vector), rel=1e-5)
    twice = found.with_alpha(2.0)
    scale = twice.compressed.ternary["w"].scale
    assert scale == pytest.approx(2 * np.std(vector, ddof=1), rel=1e-6)
    assert twice.relative_error == pytest.approx(error(scale) / np.linalg.norm(vector), rel=1e-5)


@pytest.mark.parametrize(
    ("draw", "percent", "alpha"),
    [
        ("standard_normal", 5, 2.34), ("standard_normal", 50, 1.27), ("laplace", 5, 2.82), ("laplace", 20, 1.84),
        ("uniform", 10, 1.65), ("uniform", 50, 1.30),
    ],
)  # fmt: skip
def test_alphas_of_known_shapes_are_those_of_their_closed_forms(draw, percent, alpha):
    generator = np.random.default_rng(0)
    size = 400_000
    vector = generator.uniform(-1, 1, size) if draw == "uniform" else getattr(generator, draw)(size=size)
    found = compress(InMemory({"w": torch.from_numpy(vector.astype(np.float32))}), percent / 100)
    assert found.groups["w"].best_alpha == pytest.approx(alpha, abs=0.015)


def test_a_ternary_update_comes_back_as_it_was():
    signs = torch.from_numpy(np.random.default_rng(0).choice([-1, 0, 0, 0, 1], 10_000))
    update = signs * torch.tensor(0.0137)
    assert torch.equal(decoded(InMemory({"w": update}), density=0.5)["w"], update)


def test_one_threshold_for_all_tensors_deletes_an_adapter_and_the_guard_sees_it():
    with pytest.raises(CompressionError, match="nothing of B is left"):
        compress(InMemory(adapters(24, 768, 8, 0.005)[0]), 0.2, scope="global")
    tensors, starts = adapters(4, 768, 8, 0.004)
    with pytest.raises(CompressionError, match=r"nothing of B is left in 4 of 4 modules, such as `00`: .* `per_ten"):
        compress(InMemory(tensors), 0.2, scope="global")
    found = compress(InMemory(tensors), 0.2, scope="global", allow_erased=True)
    assert found.notes == ("nothing of B is left in 4 of 4 modules, such as `00`: their update is lost",)
    for scope in ("per_factor", "per_tensor"):
        kept = compress(InMemory(tensors, starts), 0.2, scope=scope).compressed.ternary
        assert all(entry.n_kept > 0 for entry in kept.values())


def test_the_true_start_keeps_more_of_the_update_than_raw_factors_do():
    """Cosine of the module's update before and after; two values of a table that was measured elsewhere."""
    tensors, starts = adapters(4, 768, 8, 0.02)

    def cosine(source):
        found = decoded(source, density=0.2)
        pairs = [[of[f"{at:02}.B"] @ of[f"{at:02}.A"] for of in (tensors, found)] for at in range(4)]
        dot = sum(float((one * other).sum()) for one, other in pairs)
        lengths = [sum(float(pair[at].square().sum()) for pair in pairs) ** 0.5 for at in (0, 1)]
        return dot / (lengths[0] * lengths[1])

    assert cosine(InMemory(tensors)) == pytest.approx(0.55, abs=0.03)
    assert cosine(InMemory(tensors, starts)) == pytest.approx(0.78, abs=0.03)


def test_an_untrained_update_keeps_nothing_and_restores_its_start():
    _, starts = adapters(2, 16, 2, 0.1)
    tensors = {**starts, **{name.replace("A", "B"): torch.zeros(16, 2) for name in starts}, "gain": torch.ones(8)}
    gain = Part("gain", (8,), torch.float32, "one", "gain", "gain")
    source = InMemory(tensors, starts, gain=gain)
    found = compress(source)
    assert all(entry.n_kept == 0 for entry in found.compressed.ternary.values())
    for name, tensor in decoded(source).items():
        assert torch.equal(tensor, tensors[name])


def test_an_update_of_which_nothing_would_be_left_is_refused():
    with pytest.raises(CompressionError, match="nothing is left of 1 tensors; use a higher density"):
        compress(InMemory({"w": torch.tensor([1.0, 2.0, 3.0])}), 0.1)


def test_pruning_alone_keeps_the_values_of_what_compression_keeps():
    tensors, _ = adapters(2, 32, 4, 0.1)
    source = InMemory(tensors)
    signs = {name: entry.signs() for name, entry in compress(source, 0.3, scope="global").compressed.ternary.items()}
    for name, tensor in pruned(source, 0.3, "global"):
        kept = torch.from_numpy(signs[name] != 0).reshape(tensor.shape)
        assert torch.equal(tensor, torch.where(kept, tensors[name], 0))


def test_the_automatic_scale_under_one_threshold_is_the_mean_magnitude_of_stc():
    vector = np.random.default_rng(0).normal(0, 0.01, 100_000).astype(np.float32)
    made = ternarised(vector, 0.2)
    kept = np.abs(vector)[made != 0]
    assert np.abs(made).max() == pytest.approx(kept.mean(), rel=1e-6)
    assert np.abs(made).max() == pytest.approx(0.0140 * 1.2533, rel=0.02)  # sigma phi(z) / (density / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"density": 0.0}, r"`0.0001 <= density <= 1` must hold, got 0.0"),
        ({"density": 20}, "must hold, got 20; 0.2 keeps every fifth"),
        ({"alpha": -1.0}, "`alpha > 0` must hold, got -1.0"),
        ({"alpha": "best"}, "`alpha` must be a number or `auto`, got `best`"),
        ({"scope": "all"}, "`scope` must be one of per_tensor, per_factor, global, got `all`"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        compress(InMemory({"w": torch.ones(3)}), **settings)


def test_an_update_that_is_not_finite_is_refused_by_name():
    with pytest.raises(CompressionError, match="`w` holds NaN or infinity"):
        compress(InMemory({"w": torch.tensor([1.0, float("nan")])}))


def test_half_precision_is_reckoned_in_full():
    update = torch.randn(4000, generator=torch.Generator().manual_seed(0)).mul(1e-2).bfloat16()
    entry = compress(InMemory({"w": update}), 0.2, 1.0).compressed.ternary["w"]
    assert entry.scale == pytest.approx(np.std(update.float().numpy(), ddof=1), rel=1e-5)
    assert decoded(InMemory({"w": update}))["w"].dtype == torch.bfloat16
