"""Intruder dimensions: planted ones, none where there are none, and the counts of peft's own code."""

import pytest
import torch

from deltaproof.backbones import tiny_backbone
from deltaproof.theory.intruders import intruders

N = 192


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(n, seed):
    return torch.linalg.qr(gaussian(n, n, seed=seed))[0]


def base(values, n_rows=N, n_columns=N):
    k = min(n_rows, n_columns)
    return (rotation(n_rows, 1)[:, :k] * values[:k]) @ rotation(n_columns, 2)[:, :k].mT


def spike(strength, n_rows=N, n_columns=N):
    """A change of rank 1 and this norm in a random direction."""
    u, v = gaussian(n_rows, 1, seed=3), gaussian(1, n_columns, seed=4)
    return strength * (u / u.norm()) @ (v / v.norm())


def dense(norm, n_rows=N, n_columns=N):
    change = gaussian(n_rows, n_columns, seed=5)
    return norm * change / change.norm()


DECAYING = 10 / torch.arange(1, N + 1, dtype=torch.float64)
FLAT = 1 + 1e-4 * torch.linspace(1, 0, N, dtype=torch.float64)


def by_definition(weight, change, top_k=10, epsilon=0.5):
    """The authors' procedure, by full decompositions in float32."""
    before = torch.linalg.svd(weight.float(), full_matrices=False)[0]
    after = torch.linalg.svd((weight + change).float(), full_matrices=False)[0]
    cosines = (after.mT @ before).abs().max(1).values[:top_k]
    return int((cosines < epsilon).sum()), cosines


@pytest.mark.parametrize("shape", [(N, N), (N, 300), (300, N)])
def test_a_strong_planted_direction_is_one_intruder_by_either_count(shape):
    found = intruders(base(DECAYING, *shape), spike(8.0, *shape))
    assert (found.n_official(), found.n_robust(), found.n_undetermined()) == (1, 1, 0)


@pytest.mark.parametrize("change", [spike(5.0), dense(8.0)], ids=["a weaker direction", "the same norm spread out"])
def test_what_does_not_lead_is_no_intruder(change):
    found = intruders(base(DECAYING), change)
    assert (found.n_official(), found.n_robust()) == (0, 0)


@pytest.mark.parametrize("shape", [(N, N), (N, 300), (300, N)])
def test_a_flat_base_gives_false_intruders_by_the_definition_and_undetermined_ones_here(shape):
    weight = base(FLAT, *shape)
    found = intruders(weight, dense(0.006 * float(weight.norm()), *shape))
    assert found.n_official() == 10
    assert found.n_robust() == 0
    assert found.n_undetermined() == 10


def test_a_planted_direction_is_found_on_a_flat_base_too():
    found = intruders(base(FLAT), spike(1.5))
    assert found.n_robust() == 1
    assert found.cosines[0] < 0.5
    assert found.outside[0] > 0.9


def test_no_change_is_no_intruder():
    found = intruders(base(DECAYING), torch.zeros(N, N))
    assert found.n_official(epsilon=0.99) == 0
    assert max(found.outside) < 1e-6


@pytest.mark.parametrize("change", [spike(8.0), dense(20.0), dense(8.0)])
def test_cosines_are_those_of_full_decompositions(change):
    found = intruders(base(DECAYING), change)
    n_intruders, cosines = by_definition(base(DECAYING), change)
    assert found.n_official() == n_intruders
    assert found.cosines[:10] == pytest.approx(cosines.tolist(), abs=1e-3)


def test_rotations_of_both_change_nothing():
    left, right = rotation(N, 8), rotation(N, 9)
    weight, change = base(DECAYING), spike(8.0) + dense(5.0)
    found, turned = intruders(weight, change), intruders(left @ weight @ right, left @ change @ right)
    assert turned.cosines == pytest.approx(found.cosines, abs=1e-6)
    assert turned.outside == pytest.approx(found.outside, abs=1e-6)


def test_more_vectors_and_wider_thresholds_never_find_fewer():
    found = intruders(base(DECAYING), spike(8.0) + dense(30.0))
    counts = [found.n_official(top_k, epsilon) for top_k in (1, 5, 10, 50) for epsilon in (0.1, 0.5, 0.9)]
    by_epsilon = [counts[at : at + 3] for at in range(0, 12, 3)]
    assert all(row == sorted(row) for row in by_epsilon)
    assert all(list(column) == sorted(column) for column in zip(*by_epsilon, strict=True))
    assert len(found.cosines) == 50


def test_the_count_is_that_of_pefts_own_code():
    peft = pytest.importorskip("peft")
    pytest.importorskip("peft.tuners.lora.intruders")
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["query", "value", "intermediate.dense"])
    model = peft.get_peft_model(tiny_backbone("bert").model, config)
    with torch.no_grad():
        for at, (name, parameter) in enumerate(model.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.25 * gaussian(*parameter.shape, seed=at))
    layers = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, peft.tuners.lora.LoraLayer)
    }  # fmt: skip
    ours = {}
    for name, layer in layers.items():
        weight, change = layer.get_base_layer().weight.detach(), layer.get_delta_weight("default").detach()
        ours[name] = intruders(weight, change).n_official()
    said: list[str] = []
    peft.tuners.lora.intruders.reduce_intruder_dimension(model, logging_sink=said.append)
    theirs = {}
    for line in said:
        name, _, rest = line.partition(": ")
        if name in layers:
            theirs[name] = 0 if rest == "No intruders" else int(rest.removeprefix("Intruders: "))
    assert ours == theirs
    assert sum(ours.values()) > 0
