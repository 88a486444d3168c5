"""Activation density: the penalty against its released formula, the measure against facts of the non-linearities."""

import gc
import json
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from by_hand import encoded, texts
from safetensors.torch import load_file
from torch import nn

from deltaproof.backbones import tiny_backbone
from deltaproof.errors import ConfigError
from deltaproof.evaluation.density import Watched, activation_density
from deltaproof.methods import method_from
from deltaproof.methods.context import Context
from deltaproof.methods.density import Density, Rational, Tanh, soft_density, token_weights
from deltaproof.methods.tuned import attach
from deltaproof.saving.peft_adapter import save_peft_adapter
from deltaproof.tasks.text import TextTask, collate
from deltaproof.testing import Bench
from deltaproof.training.gradient import BatchGradient
from deltaproof.training.loop import Run
from deltaproof.training.precision import accelerator_for
from deltaproof.training.recomputing import recompute_activations
from deltaproof.training.settings import Training

EPSILON = 1e-7
FIXTURE = torch.tensor([[[[0, 1e-3], [1, 0]]], [[[1e-4, 0], [0, 0]]]], dtype=torch.double)
"""What two layers' non-linearities put out for one example of two tokens: (layers, batch, tokens, d_ff)."""
TASK = TextTask("classification", ("no", "yes"), ("accuracy",), 32)


def released_penalty(outputs, epsilon=EPSILON):
    """The formula of the authors' code: means over tokens and units, a column per layer, and the mean of them all."""
    per_layer = [(o.double() ** 2 / (o.double() ** 2 + epsilon)).mean((1, 2))[:, None] for o in outputs]
    return torch.cat(per_layer, dim=1).mean()


def watched_outputs(backbone):
    """A list that fills with what the non-linearities put out, and the hooks that fill it."""
    outputs = []
    modules = [backbone.module(site) for site in backbone.sites(["activation"])]
    return outputs, [module.register_forward_hook(lambda m, i, o: outputs.append(o.detach())) for module in modules]


def densities(tuned):
    return [edit for _, edit in tuned.placed() if isinstance(edit, Density)]


def penalty(tuned):
    return sum(edit.penalty() for edit in densities(tuned))


def attached(inner="lora(rank=2)", family="bert", **fields):
    return attach(tiny_backbone(family), method_from({"name": "density_penalty", "inner": inner, **fields})).train()


def gradients(tuned):
    return {name: parameter.grad for name, parameter in tuned.trained().items() if parameter.grad is not None}


# the surrogates


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_the_fixture_has_the_penalty_of_the_released_code(dtype):
    layers = [soft_density(o.to(dtype), Rational(EPSILON), token_weights(o, Context())) for o in FIXTURE]
    assert float(sum(layers) / 2) == pytest.approx(0.2499999851, abs=1e-7)


def test_the_fixture_has_the_exact_density_counted_by_hand():
    assert np.mean([exact_density(nn.Identity(), o) for o in FIXTURE]) == 0.375


def test_the_rational_surrogate_and_its_slope_have_their_known_values():
    o = torch.tensor([0, 1e-5, 1e-4, EPSILON**0.5, 1e-3, 1e-2], dtype=torch.double)
    wanted = torch.tensor([0, 0.001, 0.091, 0.5, 0.909, 0.999], dtype=torch.double)
    torch.testing.assert_close(Rational(EPSILON).value(o), wanted, rtol=0, atol=5e-4)
    slope = Rational(EPSILON).slope(torch.tensor([0, (EPSILON / 3) ** 0.5, 0.1], dtype=torch.double))
    assert slope[0] == 0
    assert float(slope[1]) == pytest.approx(2.05e3, rel=5e-3)
    assert float(slope[2]) == pytest.approx(2e-4, rel=1e-4)


@pytest.mark.parametrize("surrogate", [Rational(0.3), Tanh(2.0)], ids=["rational", "tanh"])
def test_the_written_out_gradient_is_that_of_differences(surrogate):
    draw = torch.Generator().manual_seed(0)
    o = torch.randn(2, 3, 4, generator=draw, dtype=torch.double, requires_grad=True)
    weights = torch.rand(2, 3, generator=draw, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda o: soft_density(o, surrogate, weights), (o,))


@pytest.mark.parametrize("surrogate", [Rational(EPSILON), Tanh(20.0)], ids=["rational", "tanh"])
def test_a_surrogate_grows_with_the_magnitude_from_0_to_1_and_pulls_nothing_at_0(surrogate):
    o = torch.logspace(-8, 1, 200, dtype=torch.double)
    value = surrogate.value(o)
    assert (value.diff() >= 0).all()
    assert torch.equal(surrogate.value(-o), value)
    assert 0 <= value.min() <= value.max() <= 1
    zero = torch.zeros(1)
    assert surrogate.value(zero) == surrogate.slope(zero) == 0


@pytest.mark.parametrize("kind", [lambda sharpness: Rational(sharpness**-2), Tanh], ids=["rational", "tanh"])
def test_a_surrogate_stays_below_the_exact_density_and_reaches_it_in_the_limit(kind):
    o = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.double).relu()
    exact = float((o != 0).double().mean())
    soft = [float(soft_density(o, kind(sharpness), token_weights(o, Context()))) for sharpness in (1e0, 1e2, 1e8)]
    assert soft[0] < soft[1] < soft[2] <= exact + 1e-12  # but for the order of sums
    assert soft[2] == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_squared_in_fp32(dtype):
    """1e-4 squared is nothing in fp16."""
    o = torch.full((1, 2, 4), 1e-4, dtype=dtype, requires_grad=True)
    density = soft_density(o, Rational(EPSILON), token_weights(o, Context()))
    density.backward()
    assert density.dtype == torch.float32
    assert density.item() == pytest.approx(float(Rational(EPSILON).value(o.detach().double()).mean()), rel=1e-5)
    assert o.grad.dtype == dtype
    wanted = Rational(EPSILON).slope(o.detach().double()) / 8
    torch.testing.assert_close(o.grad.double(), wanted, rtol=1e-2, atol=0)


# the penalty in a model


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "modernbert", "opt", "albert"])
def test_with_padding_counted_the_penalty_is_the_released_formula(family):
    tuned = attached(family=family, masked=False, strength=0.7)
    outputs, _ = watched_outputs(tuned.backbone)
    Bench(family).loss(tuned)
    outputs = [o if o.ndim == 3 else o.view(4, -1, o.shape[-1]) for o in outputs]
    assert len(outputs) == 2  # of ALBERT's one layer, used twice, too
    assert penalty(tuned).item() == pytest.approx(0.7 * float(released_penalty(outputs)), rel=1e-6)


@pytest.mark.parametrize("family", ["bert", "opt"])
def test_without_padding_the_penalty_does_not_know_how_long_the_batch_is(family):
    def found(masked, n_padding):
        tuned = attached(family=family, masked=masked, surrogate="tanh")
        batch = Bench(family).batch(tuned.backbone)
        pad = tuned.backbone.tokenizer.pad_token_id
        fillers = {"input_ids": pad if pad is not None else 0}
        tuned(**{key: F.pad(value, (0, n_padding), value=fillers.get(key, 0)) for key, value in batch.items()})
        return penalty(tuned).item()

    assert found(True, 0) == pytest.approx(found(True, 9), rel=1e-5)
    assert found(False, 0) != pytest.approx(found(False, 9), rel=1e-3)


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_the_penalty_does_not_depend_on_micro_batches(micro_batch_size):
    def of(size):
        tuned = attached("lora(rank=2)", surrogate="tanh")
        rows = encoded(tuned.backbone.tokenizer, 6)
        accelerator = accelerator_for(torch.device("cpu"), "fp32")
        settings = Training(batch_size=6, micro_batch_size=size)
        run = Run(tuned, TASK, rows, rows, settings, 1e-3, 0, accelerator)
        run.begin()
        (loss,) = BatchGradient(TASK, rows, tuned.backbone.tokenizer.pad_token_id, accelerator)([run], [np.arange(6)])
        return loss, gradients(tuned)

    whole, pieces = of(6), of(micro_batch_size)
    assert pieces[0] == pytest.approx(whole[0], rel=1e-6)
    for name, gradient in whole[1].items():
        torch.testing.assert_close(pieces[1][name], gradient, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("family", ["bert", "llama", "opt"])
def test_at_strength_0_the_gradients_are_those_of_the_plain_method_to_the_bit(family):
    bench = Bench(family)
    plain, nil = attach(bench.backbone(), method_from("lora(rank=2)")).train(), attached(family=family, strength=0)
    bench.loss(plain).backward()
    (bench.loss(nil) + penalty(nil)).backward()
    assert gradients(plain).keys() == gradients(nil).keys()
    assert all(torch.equal(gradient, gradients(nil)[name]) for name, gradient in gradients(plain).items())


INNERS = (
    "lora(rank=2)", "ia3", "bitfit", "serial", "prefix", "full", "peft_lora(r=2)",
    "prompt_tuning(num_virtual_tokens=3)", "prefix_tuning(num_virtual_tokens=3)",
)  # fmt: skip


@pytest.mark.parametrize("inner", INNERS)
def test_it_pulls_at_the_inner_methods_parameters_and_at_no_others(inner):
    plain, tuned = attach(tiny_backbone("bert"), method_from(inner)), attached(inner, surrogate="tanh")
    assert tuned.trained().keys() == plain.trained().keys()
    assert tuned.mergeable == plain.mergeable
    Bench().loss(tuned)
    found = penalty(tuned)
    assert 0 < found.item() <= 1
    found.backward()
    reached = {name for name, gradient in gradients(tuned).items() if gradient.any()}
    assert any("classifier" not in name for name in reached)
    wanting = {id(parameter) for parameter in tuned.trained().values()}
    assert all(p.grad is None for p in tuned.parameters() if id(p) not in wanting)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_under_autocast_the_penalty_is_in_fp32_and_near_that_of_fp32(precision):
    def of(precision):
        tuned = attached(surrogate="tanh")
        with accelerator_for(torch.device("cpu"), precision).autocast():
            Bench().loss(tuned)
        return penalty(tuned)

    low, full = of(precision), of("fp32")
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(full.item(), rel=2e-2)


# hooks and memory


def test_each_block_is_watched_once_and_no_longer_after_detaching():
    for family in ("bert", "gpt2", "llama", "modernbert", "opt"):
        backbone = tiny_backbone(family)
        modules = [backbone.module(site) for site in backbone.sites(["activation"])]
        tuned = attach(backbone, method_from("density_penalty(lora(rank=2))"))
        assert [len(module._forward_hooks) for module in modules] == [1, 1]
        tuned.detach()
        assert [len(module._forward_hooks) for module in modules] == [0, 0]


@pytest.mark.parametrize("is_taken", [True, False])
def test_no_activation_outlives_its_step(is_taken):
    tuned = attached()
    seen = []
    module = tuned.backbone.module(tuned.backbone.sites(["activation"])[0])
    module.register_forward_hook(lambda m, i, o: seen.append(weakref.ref(o)))
    loss = Bench().loss(tuned)
    if is_taken:
        loss = loss + penalty(tuned)
    loss.backward()
    if not is_taken:
        tuned.eval()  # whoever never asks for penalties lets go of them here, or at the next call
    del loss
    gc.collect()
    assert len(seen) == 1
    assert seen[0]() is None


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_an_evaluation_keeps_nothing(context):
    tuned = attached()
    with context():
        tuned.train(context is not torch.enable_grad)(**Bench().batch(tuned.backbone))
    assert all(edit._kept == [] for edit in densities(tuned))


@pytest.mark.parametrize("family", ["bert", "opt", "llama"])
def test_recomputed_activations_are_not_counted_twice(family):
    def of(is_on):
        tuned = attached(family=family, surrogate="tanh")
        if is_on:
            recompute_activations(tuned.backbone, tuned.context)
        found = []
        for _ in range(2):  # the second step would show what the first has left behind
            loss, extra = Bench(family).loss(tuned), penalty(tuned)
            (loss + extra).backward()
            found.append(extra.item())
            assert all(edit._kept == [] for edit in densities(tuned))
        return found, gradients(tuned)

    kept, recomputed = of(False), of(True)
    assert recomputed[0] == pytest.approx(kept[0], rel=1e-6)
    for name, gradient in kept[1].items():
        torch.testing.assert_close(recomputed[1][name], gradient, rtol=1e-6, atol=1e-7, msg=name)


def test_the_forward_pass_keeps_no_more_than_one_tensor_per_block():
    def n_saved(method):
        tuned, saved = attach(tiny_backbone("bert"), method_from(method)).train(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.data_ptr()) or x, lambda x: x):
            tuned(**Bench().batch(tuned.backbone))
        return len(set(saved))

    # LoRA on the second matrix keeps its input already: what is new are the weights of the tokens, one per token
    assert n_saved("density_penalty(lora(rank=2))") <= n_saved("lora(rank=2)") + 2


# training


def test_a_short_training_lowers_the_density_by_a_fifth_and_the_task_hardly_suffers():
    def trained(strength):
        backbone = tiny_backbone("opt")  # with ReLU
        rows = encoded(backbone.tokenizer, 6)
        batch = collate(rows, range(6), backbone.tokenizer.pad_token_id)
        # four of five say so: whatever is learnt, the loss stays above the entropy of that, 0.5004
        yes = torch.tensor(rows.targets[:, 0]).float() * 0.6 + 0.2
        targets = torch.stack([1 - yes, yes], dim=1)
        tuned = attach(backbone, method_from(f"density_penalty(lora(rank=4), strength={strength})")).train()
        optimizer = torch.optim.AdamW(tuned.trained().values(), lr=5e-3)
        for _ in range(60):
            optimizer.zero_grad()
            loss = F.cross_entropy(tuned(**batch).logits, targets)
            (loss + penalty(tuned)).backward()
            optimizer.step()
        return activation_density(tuned, backbone, rows).mean_exact, loss.item()

    (plain_density, plain_loss), (density, loss) = trained(0), trained(1)
    assert plain_loss < 0.52
    assert loss <= 1.05 * plain_loss
    assert density <= 0.8 * plain_density


# the measure


def exact_density(activation, x, threshold=0.01, index=0):
    watched = Watched(activation, threshold)
    watched.hook(Context())(activation, None, activation(x))
    return float(watched.shares()[index])


def test_the_measure_knows_relu_and_gelu():
    x = torch.randn(4, 50, 500, generator=torch.Generator().manual_seed(0))
    assert exact_density(nn.ReLU(), x) == pytest.approx(0.5, abs=0.005)
    assert exact_density(nn.GELU(), x) == 1
    assert exact_density(nn.SiLU(), x) == 1
    assert exact_density(nn.GELU(), torch.full((2, 3, 4), -6.0)) == 0
    assert exact_density(nn.SiLU(), torch.full((2, 3, 4), -6.0)) == 1
    assert exact_density(nn.Identity(), torch.full((2, 3, 4), -0.0)) == 0


def test_the_thresholded_share_of_a_normal_is_that_of_its_distribution():
    x = torch.randn(4, 50, 500, generator=torch.Generator().manual_seed(0))
    above = 2 * (1 - torch.distributions.Normal(0, 1).cdf(torch.tensor(0.5)))
    assert exact_density(nn.Identity(), x, threshold=0.5, index=1) == pytest.approx(float(above), abs=0.005)


@pytest.mark.parametrize(("name", "x"), [("SiLU", -88.8), ("Mish", -103.0), ("GELU", -5.56)])
def test_a_non_linearity_is_exactly_zero_where_the_notes_say(name, x):
    act = getattr(nn, name)()
    assert act(torch.tensor([x] * 64)).eq(0).all()
    assert act(torch.tensor([x + 0.5] * 64)).ne(0).all()


@pytest.mark.parametrize("family", ["opt", "bert"])
def test_the_measured_density_is_that_of_each_example_by_itself(family):
    """No padding, no batches: the mean over examples of counted shares."""
    backbone = tiny_backbone(family)
    rows = encoded(backbone.tokenizer, 7)
    found = activation_density(backbone.model, backbone, rows, batch_size=3, threshold=0.5)
    outputs, hooks = watched_outputs(backbone)
    shares = []
    for text in texts(7)[0]:
        with torch.no_grad():
            backbone.model(**backbone.tokenizer(text[0], return_tensors="pt"))
        shares.append([[float((o != 0).double().mean()), float((o.abs() > 0.5).double().mean())] for o in outputs])
        outputs.clear()
    wanted = np.mean(shares, axis=0)
    assert np.allclose(found.exact, wanted[:, 0], atol=1e-4)
    assert np.allclose(found.above, wanted[:, 1], atol=1e-3)
    assert not backbone.module(backbone.sites(["activation"])[0])._forward_hooks.keys() - {h.id for h in hooks}


@pytest.mark.parametrize(
    ("family", "share"), [("opt", 1 / 2), ("bert", 1 / 2), ("llama", 2 / 3), ("modernbert", 2 / 3)]
)
def test_what_zeros_save_is_the_second_matrix_and_in_gated_blocks_the_map_beside_the_gate(family, share):
    backbone = tiny_backbone(family)
    for site in backbone.sites(["activation"]):  # nothing is active at all
        backbone.module(site).register_forward_hook(lambda m, i, o: torch.zeros_like(o))
    found = activation_density(backbone.model, backbone, encoded(backbone.tokenizer, 2))
    assert found.mean_exact == 0
    assert found.skippable == pytest.approx(share)


def test_models_that_can_hardly_win_a_zero_say_so():
    method = method_from("density_penalty(lora)")
    assert method.notes(tiny_backbone("bert")) == method.notes(tiny_backbone("opt")) == []
    assert method.notes(tiny_backbone("llama")) == [
        "tiny-llama can hardly win an exact zero: SiLU is 0 in fp32 only below -88.7; read the share of activations "
        "above a threshold instead"
    ]


# merging, saving, composing


@pytest.mark.parametrize("inner", ["lora(rank=2)", "ia3", "peft_lora(r=2)"])
def test_merging_leaves_the_density_as_it_was(inner):
    tuned = Bench("opt").tuned(method_from(f"density_penalty({inner})"))
    rows = encoded(tuned.backbone.tokenizer, 6)
    before = activation_density(tuned, tuned.backbone, rows)
    after = activation_density(tuned.merge(), tuned.backbone, rows)
    assert before.exact == pytest.approx(after.exact, abs=2e-3)  # a value near 0 may fall to the other side


def test_it_trains_on_a_base_whose_smaller_half_was_pruned():
    backbone = tiny_backbone("bert")
    for site in backbone.sites(["ffn_in", "ffn_out"]):
        weight = backbone.module(site).weight.data
        weight[weight.abs() < weight.abs().median()] = 0
    tuned = attach(backbone, method_from("density_penalty(lora(rank=2))")).train()
    (Bench().loss(tuned) + penalty(tuned)).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(tuned).values())


@pytest.mark.parametrize("inner", ["lora(rank=2)", "ia3", "peft_lora(r=2)"])
def test_what_peft_reads_is_what_it_reads_of_the_inner_method(inner, tmp_path):
    for name, text in (("plain", inner), ("dense", f"density_penalty({inner}, strength=0)")):
        (tmp_path / name).mkdir()
        assert save_peft_adapter(Bench().tuned(method_from(text)), tmp_path / name)
    plain, ours = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "dense"))
    assert plain.keys() == ours.keys()
    assert all(torch.equal(plain[name], ours[name]) for name in plain)
    configs = [json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("plain", "dense")]
    assert configs[0] == configs[1]


def test_it_composes_with_other_methods_of_methods():
    backbone = tiny_backbone("bert")
    kept = attach(backbone, method_from("on_layers(density_penalty(lora(rank=2)), [1])"))
    assert [edit.path for edit in densities(kept)] == ["bert.encoder.layer.1.intermediate.intermediate_act_fn"]
    both = method_from("together(density_penalty(lora(rank=2), layers=[0]), bitfit)")
    assert both.measures == ("activation_density",)
    assert [edit.factor for edit in densities(attach(tiny_backbone("bert"), both))] == [1.0]
    assert method_from("lora").measures == ()


def test_its_label_is_what_one_types():
    assert method_from("density_penalty(lora)").label == "density_penalty(lora)"
    text = "density_penalty(lora(rank=2), strength=0.5, surrogate='tanh', layers=[1])"
    assert method_from(text).label == text


# errors


def test_a_model_whose_non_linearity_is_no_module_is_refused():
    backbone = tiny_backbone("bert")
    backbone.all_sites = tuple(site for site in backbone.all_sites if site.role != "activation")
    with pytest.raises(ConfigError, match=r"needs the feed-forward block's non-linearity as a module .* `tiny-bert`"):
        attach(backbone, method_from("density_penalty(lora)"))


def test_a_non_linearity_that_is_never_called_is_an_error_and_no_penalty_of_0():
    tuned = attached()
    with pytest.raises(ConfigError, match="must be called in training for its density to be seen"):
        penalty(tuned)


def test_experts_that_see_some_of_the_tokens_are_refused():
    context = Context(attention_mask=torch.ones(2, 5))
    with pytest.raises(ConfigError, match=r"a mean over all tokens, \(2, 5\) .* shape \(7, 4\), as of a mixture"):
        token_weights(torch.zeros(7, 4), context)
