"""Serial and parallel adapters give what their papers' formulas give, written out by hand on the plain model."""

import pytest
import torch
import torch.nn.functional as F

from deltaproof.backbones import Site, tiny_backbone, tiny_language_model
from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.bottleneck import Bottleneck
from deltaproof.methods.tuned import attach
from deltaproof.testing import CHECKS, Bench, check_method
from deltaproof.training.recomputing import recompute_activations

IDS = torch.tensor([[5, 17, 40, 8, 60, 23, 2], [9, 33, 51, 12, 70, 4, 2]])
BOTH = "together(serial(reduction=4, initial='bert'), parallel(reduction=8, initial='bert'))"


def moved(family: str, text: str, make=tiny_backbone):
    """A method in fp64, away from its start, and by (layer, number of the adapter there) what it adds to x."""
    tuned = attach(make(family), method_from(text)).double().eval()
    draw = torch.Generator().manual_seed(1)
    branches: dict[int, list] = {}
    for site, edit in tuned.placed():
        for parameter in edit.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=draw, dtype=torch.double)
        branches.setdefault(site.layer, []).append(by_hand(edit))
    return tuned, branches


def by_hand(edit):
    a, a0, b, b0 = (p.detach().clone() for p in (edit.down.weight, edit.down.bias, edit.up.weight, edit.up.bias))
    act = {"relu": torch.relu, "gelu_new": lambda x: F.gelu(x, approximate="tanh")}[edit.settings.activation]
    scale = edit.settings.scale
    return lambda x: scale * (act(x @ a.T + a0) @ b.T + b0)


def nothing(x):
    return torch.zeros_like(x)


def plain(family: str):
    return tiny_backbone(family).model.double().eval()


def states(tuned):
    with torch.no_grad():
        return tuned(input_ids=IDS, output_hidden_states=True).hidden_states[-1]


@torch.no_grad()
def bert_by_hand(block):
    """The last states of a plain BERT whose layers are computed by `block(layer, number, x)`."""
    model = plain("bert").bert
    x = model.embeddings(IDS)
    for number, layer in enumerate(model.encoder.layer):
        x = block(layer, number, x)
    return x


def feed_forward(layer, r):
    return layer.output.dense(layer.intermediate(r))


def agree(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def test_serial_and_parallel_together_are_autopefts_layer_on_a_post_norm_model():
    """LN(h + SA(LN(h + r)) + PA(r) + r), arXiv:2301.12132: both read the frozen values."""
    tuned, branches = moved("bert", BOTH)

    def block(layer, number, x):
        serial, parallel = branches[number]
        r = layer.attention(x, None)[0]
        h, norm = feed_forward(layer, r), layer.output.LayerNorm
        return norm(h + serial(norm(h + r)) + parallel(r) + r)

    agree(states(tuned), bert_by_hand(block))


def test_a_mask_of_layers_leaves_the_other_layers_as_they_were():
    tuned, branches = moved("bert", f"on_layers({BOTH}, [1])")
    assert list(branches) == [1]

    def block(layer, number, x):
        serial, parallel = branches.get(number, (nothing, nothing))
        r = layer.attention(x, None)[0]
        h, norm = feed_forward(layer, r), layer.output.LayerNorm
        return norm(h + serial(norm(h + r)) + parallel(r) + r)

    agree(states(tuned), bert_by_hand(block))


def test_houlsbys_adapters_stand_behind_both_blocks_before_the_sums():
    tuned, branches = moved("bert", "serial(placement='houlsby', reduction=4)")

    def block(layer, number, x):
        first, second = branches[number]
        a = layer.attention.output.dense(layer.attention.self(x, None)[0])
        r = layer.attention.output.LayerNorm(a + first(a) + x)
        h = feed_forward(layer, r)
        return layer.output.LayerNorm(h + second(h) + r)

    agree(states(tuned), bert_by_hand(block))


def test_adapters_after_the_norms_read_and_change_the_residual_stream():
    tuned, branches = moved("bert", "serial(placement='after_norm', activation='gelu_new', initial='near')")

    def block(layer, number, x):
        first, second = branches[number]
        r = layer.attention(x, None)[0]
        r = r + first(r)
        y = layer.output.LayerNorm(feed_forward(layer, r) + r)
        return y + second(y)

    agree(states(tuned), bert_by_hand(block))


def test_a_parallel_adapter_may_stand_beside_attention():
    tuned, branches = moved("bert", "parallel(placement='attention', reduction=4)")

    def block(layer, number, x):
        (beside,) = branches[number]
        a = layer.attention.output.dense(layer.attention.self(x, None)[0])
        r = layer.attention.output.LayerNorm(a + beside(x) + x)
        return layer.output.LayerNorm(feed_forward(layer, r) + r)

    agree(states(tuned), bert_by_hand(block))


def test_on_a_pre_norm_model_adapters_join_the_block_before_the_sum():
    tuned, branches = moved("gpt2", BOTH)
    model = plain("gpt2").transformer
    with torch.no_grad():
        x = model.wte(IDS) + model.wpe(torch.arange(IDS.shape[1]))
        for number, layer in enumerate(model.h):
            serial, parallel = branches[number]
            x = x + layer.attn(layer.ln_1(x))[0]
            r = layer.ln_2(x)
            h = layer.mlp(r)
            x = x + h + serial(h) + parallel(r)
        agree(states(tuned), model.ln_f(x))


def test_a_shared_layer_uses_its_adapters_in_every_pass():
    tuned, branches = moved("albert", BOTH)
    assert list(branches) == [0]
    serial, parallel = branches[0]
    model = plain("albert").albert
    layer = model.encoder.albert_layer_groups[0].albert_layers[0]
    with torch.no_grad():
        x = model.encoder.embedding_hidden_mapping_in(model.embeddings(IDS))
        for _ in range(model.config.num_hidden_layers):
            r = layer.attention(x, None)[0]
            h, norm = layer.ffn_output(layer.activation(layer.ffn(r))), layer.full_layer_layer_norm
            x = norm(h + serial(norm(h + r)) + parallel(r) + r)
    agree(states(tuned), x)


@pytest.mark.parametrize("text", ["serial", "serial(placement='houlsby')", "parallel", BOTH])
@pytest.mark.parametrize("family", ["deberta-v2", "distilbert", "mpnet", "gemma2", "qwen3_5_text", "phi3", "gpt_neox"])
def test_adapters_start_as_the_base_and_learn_in_families_of_every_build(text, family):
    CHECKS["a_fresh_method_leaves_the_model_as_it_was"](method_from(text), Bench(family))
    CHECKS["a_step_lowers_the_loss"](method_from(text), Bench(family))


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "modernbert"])
def test_recomputed_activations_give_the_same_gradients(family):
    def gradients(recomputes: bool):
        tuned, _ = moved(family, BOTH)
        if recomputes:
            recompute_activations(tuned.backbone)
        Bench(family).loss(tuned.train()).backward()
        return {name: parameter.grad for name, parameter in tuned.trained().items()}

    kept, recomputed = gradients(False), gradients(True)
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    assert all(gradient.any() for gradient in kept.values())


def test_under_autocast_gradients_come_in_fp32():
    tuned = attach(tiny_backbone("bert"), method_from(BOTH))
    with torch.autocast("cpu", torch.bfloat16):
        Bench("bert").loss(tuned.train()).backward()
    for name, parameter in tuned.trained().items():
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name


def test_with_and_without_the_cache_the_same_text_is_generated():
    tuned, _ = moved("llama", BOTH, tiny_language_model)
    arguments = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(IDS), "pad_token_id": 0}
    cached, anew = (tuned.generate(input_ids=IDS, use_cache=use, **arguments) for use in (True, False))
    assert torch.equal(cached, anew)
    tuned.detach()
    assert not torch.equal(tuned.model.generate(input_ids=IDS, **arguments), cached)


def bert_base_share(text: str) -> float:
    """Weights (biases left out) that an adapter in each of BERT-base's twelve layers adds, in % of the model."""
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        n_base = sum(parameter.numel() for parameter in BertModel(BertConfig()).parameters())
    edit = Bottleneck(Site("here", "ffn_norm", 0, 768, 768), method_from(text))
    return 100 * 12 * sum(p.numel() for name, p in edit.named_parameters() if "weight" in name) / n_base


@pytest.mark.parametrize(
    ("text", "share"),
    [("serial(bottleneck=48)", 0.808), ("serial", 0.808), ("parallel(bottleneck=384)", 6.465), ("parallel", 0.808)],
)
def test_on_bert_base_the_cost_is_that_of_autopefts_formula(text, share):
    """100 * 2 d D n_layers / parameters of the base, as arXiv:2301.12132's code has it."""
    assert round(bert_base_share(text), 3) == share


@pytest.mark.parametrize(
    ("text", "n_adapters", "n_between"),
    [
        ("serial(bottleneck=6)", 2, 6),
        ("serial(reduction=4)", 2, 8),
        ("serial(reduction=64)", 2, 1),
        ("serial(placement='houlsby')", 4, 2),
        ("serial(placement='after_norm', bottleneck=5)", 4, 5),
        ("parallel(bottleneck=6, layers=[1])", 1, 6),
    ],
)
def test_the_number_of_trained_parameters_is_that_of_the_formula(text, n_adapters, n_between):
    """2 d D + D + d for each adapter, d = 32; the classifier has 66."""
    tuned = attach(tiny_backbone("bert"), method_from(text))
    assert tuned.n_trainable == 66 + n_adapters * (2 * 32 * n_between + n_between + 32)


def test_on_roberta_base_after_norm_counts_as_in_code_change_learning():
    """24 (2 * 768 * 128 + 128 + 768) = 4 740 096 in two adapters of each of twelve layers, arXiv:2402.06247."""
    edit = Bottleneck(Site("here", "ffn_norm", 0, 768, 768), method_from("serial(bottleneck=128)"))
    assert 24 * sum(parameter.numel() for parameter in edit.parameters()) == 4_740_096


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_reachable_set_leaves_out_what_relu_cannot_tell_apart(activation):
    """Measured as the rank of the Jacobian of the outputs over the parameters, at a random point."""
    edit = Bottleneck(
        Site("here", "ffn_out", 0, 5, 5), method_from(f"serial(bottleneck=3, activation='{activation}')")
    ).double()
    draw = torch.Generator().manual_seed(0)
    names = [name for name, _ in edit.named_parameters()]
    values = tuple(torch.randn(p.shape, generator=draw, dtype=torch.double) for p in edit.parameters())
    x = torch.randn(60, 5, generator=draw, dtype=torch.double)

    def outputs(*values):
        return torch.func.functional_call(
            _Branch(edit), {f"edit.{n}": v for n, v in zip(names, values, strict=True)}, (x,)
        )

    jacobian = torch.autograd.functional.jacobian(outputs, values)
    measured = torch.linalg.matrix_rank(torch.cat([part.reshape(x.numel(), -1) for part in jacobian], dim=1))
    assert edit.reachable_dimension() == int(measured) == 2 * 5 * 3 + 3 + 5 - (3 if activation == "relu" else 0)


class _Branch(torch.nn.Module):
    def __init__(self, edit):
        super().__init__()
        self.edit = edit

    def forward(self, x):
        return self.edit.branch(x, None)


def test_the_papers_starts_are_close_to_the_base_and_not_the_base():
    with torch.no_grad():
        before = tiny_backbone("bert").model(IDS).logits
    for initial, std in (("near", 0.01), ("bert", 0.02)):
        tuned = attach(tiny_backbone("bert"), method_from(f"serial(bottleneck=256, initial='{initial}')")).eval()
        with torch.no_grad():
            difference = (tuned(input_ids=IDS).logits - before).abs().max()
        assert 0 < difference < 0.1
        for _, edit in tuned.placed():
            assert abs(float(edit.up.weight.detach().std()) / std - 1) < 0.05
            assert not edit.up.bias.any()
            assert not edit.down.bias.any()
        assert not tuned.method.is_base_at_start


def test_dropout_acts_in_the_bottleneck_and_in_training_only():
    tuned = attach(tiny_backbone("gpt2"), method_from("parallel(dropout=0.5, bottleneck=16)"))
    with torch.no_grad():
        for _, edit in tuned.placed():
            edit.up.weight.normal_(generator=torch.Generator().manual_seed(0))
        assert torch.equal(states(tuned.eval()), states(tuned))
        assert not torch.equal(states(tuned.train()), states(tuned))


def test_attaching_draws_nothing_from_the_global_generator():
    backbone = tiny_backbone("bert")
    before = torch.get_rng_state()
    attach(backbone, method_from(BOTH))
    assert torch.equal(torch.get_rng_state(), before)


def test_after_norm_is_refused_where_no_norm_stands_behind_the_sums():
    with pytest.raises(ConfigError, match=r"`placement='after_norm'` needs .* `tiny-llama` has none there; choose"):
        attach(tiny_backbone("llama"), method_from("serial(placement='after_norm')"))


def test_kept_to_roles_that_an_adapter_does_not_stand_at_it_says_so():
    """It does not quietly stand elsewhere, as it would in a pre-norm model."""
    with pytest.raises(ConfigError, match="got ffn_out; name ffn_norm as well"):
        attach(tiny_backbone("bert"), method_from("only(serial, ['ffn_out'])"))


def test_an_adapter_beside_attention_is_refused_where_queries_cannot_be_reached():
    with pytest.raises(ConfigError, match="rows alternate head by head"):
        attach(tiny_backbone("gpt_neox"), method_from("parallel(placement='attention')"))


@pytest.mark.parametrize(
    ("text", "families"),
    [
        ("serial(placement='houlsby', initial='near', dropout=0.2)", ("bert", "llama")),
        ("serial(placement='after_norm', initial='bert', activation='gelu_new')", ("bert", "distilbert")),
        ("parallel(placement='attention', bottleneck=3, activation='silu')", ("bert", "gpt2", "modernbert")),
    ],
)
def test_variants_keep_the_contract(text, families):
    check_method(method_from(text), families)
