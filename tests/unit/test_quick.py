"""Dropout, attention and linear maps on a CPU: held against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from deltaproof.quick import casts as casts_module
from deltaproof.quick.casts import Casts
from deltaproof.quick.dropping import draw_mask, dropout
from deltaproof.quick.mode import SHORT, Quick

TYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_mask_is_zero_with_probability_p_and_keeps_the_mean(dtype, p):
    torch.manual_seed(0)
    mask = draw_mask((1000, 1001), p, torch.empty(0, dtype=dtype))
    scale = torch.tensor(1 / (1 - p), dtype=dtype)
    assert mask.dtype == dtype
    assert set(mask.unique().tolist()) == {0.0, scale.item()}
    deviation = (p * (1 - p) / mask.numel()) ** 0.5
    assert abs((mask == 0).float().mean().item() - p) < 4 * deviation + 2**-17
    # every place, and neighbours of each other: four numbers share 64 random bits
    for lag in range(1, 5):
        flat = (mask == 0).flatten()
        both = (flat[lag:] & flat[:-lag]).float().mean().item()
        assert abs(both - p * p) < 4 * (p * p * (1 - p * p) * 3 / mask.numel()) ** 0.5
    for place in range(4):
        assert abs((mask.flatten()[place::4] == 0).float().mean().item() - p) < 8 * deviation + 2**-17


@pytest.mark.parametrize("dtype", [*TYPES, torch.float64], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout_drops_in_training_alone_and_hands_gradients_to_what_it_kept(dtype, p):
    x = torch.ones(7, 9, dtype=dtype, requires_grad=True)
    assert torch.equal(dropout(x, p, False), x)
    torch.manual_seed(1)
    y = dropout(x, p)
    y.sum().backward()
    assert y.dtype == dtype
    assert torch.equal(x.grad, y.detach())
    torch.manual_seed(1)
    assert torch.equal(dropout(x, p), y), "the generator decides"
    assert {0.0: y.min() > 0, 0.3: 0 < (y == 0).sum() < 63, 1.0: (y == 0).all()}[p]


def masks(kind: str):
    if kind == "boolean":
        seen = torch.ones(2, 1, 1, 6, dtype=torch.bool)
        seen[1, ..., 4:] = False
        return {"attn_mask": seen}
    if kind == "added":
        return {"attn_mask": torch.randn(2, 1, 6, 6)}
    return {"is_causal": True} if kind == "causal" else {"scale": 0.3} if kind == "scaled" else {}


@pytest.mark.parametrize("heads", [4, 2], ids=["", "grouped"])
@pytest.mark.parametrize("kind", ["none", "boolean", "added", "causal", "scaled"])
def test_attention_in_bf16_is_torchs_but_for_rounding(kind, heads):
    torch.manual_seed(0)
    given = [torch.randn(2, n, 6, 8).bfloat16().requires_grad_() for n in (4, heads, heads)]
    options = masks(kind) | ({"enable_gqa": True} if heads == 2 else {})
    if kind == "added":
        options["attn_mask"] = options["attn_mask"].bfloat16()
    found = []
    for mode in (Quick(), torch.autocast("cpu", enabled=False)):
        with mode:
            answer = F.scaled_dot_product_attention(*given, **options)
        found.append((answer, torch.autograd.grad(answer.float().square().sum(), given)))
    (mine, my_gradients), (theirs, their_gradients) = found
    assert mine.dtype == theirs.dtype
    assert (mine - theirs).float().abs().max() < 0.02
    for one, other in zip(my_gradients, their_gradients, strict=True):
        assert (one - other).float().norm() < 0.03 * other.float().norm()


def test_attention_with_dropout_is_the_formula_under_the_mask_that_was_drawn():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 8) for _ in range(3))
    torch.manual_seed(7)
    with Quick():
        answer = F.scaled_dot_product_attention(q, k, v, dropout_p=0.4)
    torch.manual_seed(7)
    mask = draw_mask((2, 3, 5, 5), 0.4, torch.empty(0))
    wanted = ((q @ k.mT * 8**-0.5).softmax(-1) * mask) @ v
    torch.testing.assert_close(answer, wanted)


def test_long_texts_and_passes_without_gradients_are_left_to_torch(monkeypatch):
    asked = []
    monkeypatch.setattr("deltaproof.quick.mode.written_out", lambda *given, **named: asked.append(given) or given[0])
    short, long = torch.zeros(1, 1, SHORT, 2).bfloat16(), torch.zeros(1, 1, SHORT + 1, 2).bfloat16()
    with Quick():
        F.scaled_dot_product_attention(long, long, long)
        with torch.no_grad():
            F.scaled_dot_product_attention(short, short, short)
        assert not asked
        F.scaled_dot_product_attention(short, short, short)
    assert len(asked) == 1


def bf16():
    return torch.autocast("cpu", torch.bfloat16)


def test_maps_that_read_the_same_answer_as_under_autocast_and_hand_back_the_same_gradient():
    torch.manual_seed(0)
    maps = [torch.nn.Linear(8, 8).requires_grad_(False) for _ in range(3)]
    x = torch.randn(4, 8, requires_grad=True)
    found = []
    for mode in (Quick(Casts()), torch.autocast("cpu", enabled=False)):
        with mode, bf16():
            answers = [each(x) for each in maps]
        (gradient,) = torch.autograd.grad(sum(each.float().square().sum() for each in answers), x)
        found.append((answers, gradient))
    (mine, my_gradient), (theirs, their_gradient) = found
    assert all(map(torch.equal, mine, theirs))
    assert my_gradient.dtype == torch.float32
    assert (my_gradient - their_gradient).norm() < 0.01 * their_gradient.norm()


def test_an_input_that_was_changed_in_place_is_cast_anew():
    torch.manual_seed(0)
    one, x = torch.nn.Linear(8, 8), torch.randn(4, 8, requires_grad=True)
    with Quick(Casts()), bf16():
        h = x * 1
        before = one(h)
        h.add_(1)
        after = one(h)
    with bf16():
        assert torch.equal(after, one(x + 1))
    assert not torch.equal(after, before)


def test_casts_are_kept_of_frozen_weights_alone_unless_all_rest():
    one, x = torch.nn.Linear(8, 8, bias=False), torch.ones(1, 8)
    for is_trained, all_rest, is_seen in [(True, False, True), (False, False, False), (True, True, False)]:
        one.weight.requires_grad_(is_trained).data.fill_(1.0)
        answers = []
        with Quick(Casts(all_rest)):
            for value in (1.0, 2.0):
                one.weight.data.fill_(value)
                with bf16():  # which keeps casts itself until it is left
                    answers.append(one(x)[0, 0].item())
        assert answers == ([8.0, 16.0] if is_seen else [8.0, 8.0])
        with Quick(), bf16():
            assert one(x)[0, 0] == 16, "nothing is kept from one to another"


def test_no_more_casts_are_kept_than_a_bound_allows(monkeypatch):
    monkeypatch.setattr(casts_module, "MOST_BYTES", 2 * 64)
    first, second = (torch.nn.Parameter(torch.ones(8, 8), requires_grad=False) for _ in range(2))
    kept = Casts()
    assert kept.of_weight(first, torch.bfloat16) is kept.of_weight(first, torch.bfloat16)
    assert kept.of_weight(second, torch.bfloat16) is second


def test_parameters_over_one_storage_have_one_cast():
    first = torch.nn.Parameter(torch.ones(8, 8), requires_grad=False)
    kept, other = Casts(), torch.nn.Parameter(first.data, requires_grad=False)
    cast = kept.of_weight(first, torch.bfloat16)
    assert kept.of_weight(other, torch.bfloat16) is cast
    first.data, other.data = torch.empty(0), torch.empty(0)  # as of a lane that is over
    fresh = torch.nn.Parameter(torch.zeros(8, 8), requires_grad=False)
    assert (kept.of_weight(fresh, torch.bfloat16) == 0).all(), "what is kept holds the storage that it is known by"


def test_what_the_model_gives_by_name_is_understood():
    x, weight = torch.ones(2, 8), torch.eye(8)
    q = torch.ones(1, 1, 4, 2)
    with Quick():
        assert torch.equal(F.linear(input=x, weight=weight, bias=None), x)
        assert torch.equal(F.dropout(input=x, p=0.5, training=False), x)
        assert torch.equal(F.scaled_dot_product_attention(query=q, key=q, value=q, dropout_p=0.0), q)
