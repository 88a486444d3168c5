"""Noise on weights: as large as it says, where it says, and gone without a trace."""

import pytest
import torch

from deltaproof.backbones import tiny_backbone
from deltaproof.backbones.sites import weight_of
from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.robustness.weight_noise import QUESTIONS, disturbed, weight_noise
from deltaproof.testing import Bench

METHODS = (
    "full", "head", "bitfit", "lora(rank=4)", "dora(rank=4)", "ia3", "together(lora(rank=2), ia3)",
    "peft_lora(r=4, target_modules=['query'])", "peft_prefix_tuning(num_virtual_tokens=3)",
)  # fmt: skip
BENCH = Bench("bert")


def effective(tuned):
    """The weights that the model answers with, by site, edits folded in: by `delta`, not by the code tried."""
    found = {}
    for site in tuned.backbone.all_sites:
        if site.has_weight and site.role != "embedding":
            found[site.name] = weight_of(tuned.backbone.module(site), site).detach().clone()
    for site, edit in tuned.placed():
        if site is not None and hasattr(edit, "delta"):
            found[site.name] += edit.delta(weight_of(tuned.backbone.module(site), site)).detach()
    return found


def bare(tuned):
    """The weights as they stand in the model."""
    return {
        site.name: weight_of(tuned.backbone.module(site), site).detach().clone()
        for site in tuned.backbone.all_sites
        if site.has_weight and site.role != "embedding"
    }


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("text", METHODS)
def test_noise_changes_the_answers_and_leaves_no_trace(text, question):
    tuned = BENCH.tuned(method_from(text), n_steps=2)
    before, answers = {name: value.clone() for name, value in tuned.state_dict().items()}, BENCH.answers(tuned)
    with weight_noise(tuned, question, 0.3, seed=1) as noise:
        assert (BENCH.answers(tuned) - answers).abs().max() > 1e-4
        assert noise.frobenius_norm > 0
    for name, value in tuned.state_dict().items():
        assert value.numpy().tobytes() == before[name].numpy().tobytes()
    assert torch.equal(BENCH.answers(tuned), answers)


def test_it_is_taken_out_when_something_fails_inside():
    tuned = BENCH.tuned(method_from("lora(rank=4)"))
    answers = BENCH.answers(tuned)
    with pytest.raises(RuntimeError, match="inside"), weight_noise(tuned, "all", 0.3):
        raise RuntimeError("inside")
    assert torch.equal(BENCH.answers(tuned), answers)


@pytest.mark.parametrize("text", ["full", "lora(rank=4)", "dora(rank=4)", "ia3"])
def test_on_everything_it_is_s_times_each_tuned_weight(text):
    tuned = BENCH.tuned(method_from(text))
    wanted = effective(tuned)
    with weight_noise(tuned, "all", 0.1):
        noisy = bare(tuned)
    for name, weight in wanted.items():
        if weight.ndim == 2 and weight.numel() > 500:
            ratio = (noisy[name] - weight).norm() / weight.norm()
            assert ratio.item() == pytest.approx(0.1, rel=0.1), name


@pytest.mark.parametrize("text", ["lora(rank=4)", "dora(rank=4)", "ia3"])
def test_on_what_was_trained_it_is_s_times_the_change_and_dense(text):
    tuned = BENCH.tuned(method_from(text))
    base, wanted = bare(tuned), effective(tuned)
    with weight_noise(tuned, "trained", 0.1) as noise:
        noisy = bare(tuned)
    edited = {site.name for site in tuned.sites}
    squares = 0.0
    for name, weight in wanted.items():
        change, added = weight - base[name], noisy[name] - weight
        squares += added.double().square().sum().item()
        if name in edited and weight.numel() > 500:
            assert (added.norm() / change.norm()).item() == pytest.approx(0.1, rel=0.1)
            assert torch.linalg.matrix_rank(added) == min(added.shape), "all of the matrix, not the factors"
    assert noise.frobenius_norm >= squares**0.5 * (1 - 1e-3)


def test_weights_that_were_not_trained_get_none():
    tuned = BENCH.tuned(method_from("lora(rank=4, roles=['query'])"))
    wanted = effective(tuned)
    with weight_noise(tuned, "trained", 0.5) as noise:
        noisy = bare(tuned)
    trained = {site.name for site in tuned.sites} | {"classifier"}
    for name in wanted:
        assert torch.allclose(noisy[name], wanted[name], atol=1e-6) == (name not in trained), name
    head = sum(parameter.numel() for parameter in tuned.backbone.module("classifier").parameters())
    assert noise.n_weights == head + 2 * 32 * 32


@pytest.mark.parametrize("text", METHODS)
def test_at_equal_norm_it_is_as_long_as_it_says_for_every_method(text):
    tuned = BENCH.tuned(method_from(text), n_steps=2)
    before = {name: value.double().clone() for name, value in tuned.named_parameters()}
    with weight_noise(tuned, "equal_norm", 0.7, seed=3) as noise:
        assert noise.frobenius_norm == pytest.approx(0.7)
        if not any(hasattr(edit, "delta") for edit in tuned.edits):  # nothing was folded: the difference is the noise
            moved = sum((value.double() - before[name]).square().sum() for name, value in tuned.named_parameters())
            assert moved.sqrt().item() == pytest.approx(0.7, rel=1e-4)


def test_in_full_training_the_change_counts_where_the_start_is_given():
    backbone = tiny_backbone("bert")
    base = {name: value.detach().clone() for name, value in backbone.model.named_parameters()}
    tuned = attach(backbone, method_from("full"))
    BENCH.train(tuned, 3, 1e-2)
    change = sum((value - base[name]).double().square().sum() for name, value in tuned.model.named_parameters()).sqrt()
    whole = sum(value.double().square().sum() for value in tuned.model.parameters()).sqrt()
    with weight_noise(tuned, "trained", 0.2, base=base) as on_change:
        pass
    with weight_noise(tuned, "trained", 0.2) as on_values:
        pass
    assert on_change.frobenius_norm == pytest.approx(0.2 * change.item(), rel=0.05)
    assert on_values.frobenius_norm == pytest.approx(0.2 * whole.item(), rel=0.05)


@pytest.mark.parametrize("text", ["full", "lora(rank=4)", "peft_prefix_tuning(num_virtual_tokens=3)"])
def test_one_draw_at_several_sizes_is_each_size_by_itself(text):
    tuned = BENCH.tuned(method_from(text), n_steps=2)
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    wanted = {}
    for question, size in (("trained", 0.1), ("trained", 0.4), ("equal_norm", 0.3)):
        with weight_noise(tuned, question, size, seed=2, draw=1):
            wanted[question, size] = BENCH.answers(tuned)
    with disturbed(tuned, "trained", seed=2, draw=1) as noise:
        for (question, size), answers in reversed(wanted.items()):
            noise.put(size, question)
            assert torch.equal(BENCH.answers(tuned), answers)
    assert all(torch.equal(value, before[name]) for name, value in tuned.state_dict().items())


def test_draws_are_the_seeds_own_and_independent_of_the_global_generator():
    tuned = BENCH.tuned(method_from("lora(rank=4)"))

    def answers(**which):
        torch.manual_seed(torch.randint(100, (1,)).item())
        with weight_noise(tuned, "all", 0.2, **which):
            return BENCH.answers(tuned)

    assert torch.equal(answers(seed=1), answers(seed=1))
    assert not torch.equal(answers(seed=1), answers(seed=2))
    assert not torch.equal(answers(seed=1, draw=0), answers(seed=1, draw=1))


def test_no_noise_changes_not_a_bit_and_gradients_are_as_the_caller_set_them():
    tuned = BENCH.tuned(method_from("lora(rank=4)"))
    answers = BENCH.answers(tuned)
    with weight_noise(tuned, "all", 0.0) as noise:
        assert torch.equal(BENCH.answers(tuned), answers)
        assert noise.n_weights == 0
    with torch.no_grad(), weight_noise(tuned, "all", 0.1):
        assert not torch.is_grad_enabled()
    with weight_noise(tuned, "all", 0.1):
        assert torch.is_grad_enabled()
        assert BENCH.loss(tuned).requires_grad


def test_wrong_settings_are_refused():
    tuned = BENCH.tuned(method_from("head"))
    with pytest.raises(ConfigError, match="did you mean `trained`"), weight_noise(tuned, "traned", 0.1):
        pass
    with pytest.raises(ConfigError, match="size >= 0"), weight_noise(tuned, "all", -1.0):
        pass
