"""SSF, DiffFit and domain residuals give what their formulas give, and merge exactly where they merge."""

import pytest
import torch

from deltaproof.backbones import TINY_FAMILIES, tiny_backbone
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.testing import CHECKS, Bench, check_method
from deltaproof.training.recomputing import recompute_activations

IDS = torch.tensor([[5, 17, 40, 8, 60, 23, 2], [9, 33, 51, 12, 70, 4, 2]])
WIDTH, FFN, LAYERS = 32, 48, 2
CLASSIFIER = 2 * WIDTH + 2


def moved(family: str, text: str):
    """A method in fp64, away from its start."""
    tuned = attach(tiny_backbone(family), method_from(text)).double().eval()
    draw = torch.Generator().manual_seed(1)
    for parameter in tuned.trained().values():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=draw, dtype=torch.double)
    return tuned


def by_place(tuned):
    """(role, layer) to the edit there; norms by path."""
    return {(site.path if site.role == "norm" else (site.role, site.layer)): e for site, e in tuned.placed() if site}


@torch.no_grad()
def states(model):
    return model(input_ids=IDS, output_hidden_states=True).hidden_states[-1]


@torch.no_grad()
def gpt2_by_hand(model, behind):
    """The last states of a plain GPT-2; `behind(place, y)` is what stands behind each map and norm."""
    base = model.transformer
    x = base.wte(IDS) + base.wpe(torch.arange(IDS.shape[1]))
    mask = torch.ones(IDS.shape[1], IDS.shape[1]).tril().bool()
    for number, layer in enumerate(base.h):
        n = behind(f"transformer.h.{number}.ln_1", layer.ln_1(x))
        fused = layer.attn.c_attn(n).split(WIDTH, dim=-1)
        parts = [behind((role, number), y) for role, y in zip(("query", "key", "value"), fused, strict=True)]
        q, k, v = (y.view(*y.shape[:2], 4, -1).transpose(1, 2) for y in parts)
        scores = (q @ k.mT / (WIDTH / 4) ** 0.5).masked_fill(~mask, -torch.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + behind(("attention_out", number), layer.attn.c_proj(mixed))
        n = behind(f"transformer.h.{number}.ln_2", layer.ln_2(x))
        between = layer.mlp.act(behind(("ffn_in", number), layer.mlp.c_fc(n)))
        x = x + behind(("ffn_out", number), layer.mlp.c_proj(between))
    return behind("transformer.ln_f", base.ln_f(x))


@torch.no_grad()
def bert_by_hand(model, behind):
    """The same of a plain BERT."""
    base = model.bert
    x = behind("bert.embeddings.LayerNorm", base.embeddings(IDS))
    for number, layer in enumerate(base.encoder.layer):
        own, path = layer.attention.self, f"bert.encoder.layer.{number}"
        parts = [behind((role, number), getattr(own, role)(x)) for role in ("query", "key", "value")]
        q, k, v = (y.view(*y.shape[:2], 4, -1).transpose(1, 2) for y in parts)
        mixed = ((q @ k.mT / (WIDTH / 4) ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        a = behind(("attention_out", number), layer.attention.output.dense(mixed))
        r = behind(f"{path}.attention.output.LayerNorm", layer.attention.output.LayerNorm(a + x))
        between = layer.intermediate.intermediate_act_fn(behind(("ffn_in", number), layer.intermediate.dense(r)))
        h = behind(("ffn_out", number), layer.output.dense(between))
        x = behind(f"{path}.output.LayerNorm", layer.output.LayerNorm(h + r))
    return x


BY_HAND = {"bert": bert_by_hand, "gpt2": gpt2_by_hand}


def plain(family):
    return tiny_backbone(family).model.double().eval()


def agree(got, wanted, tolerance=1e-12):
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", BY_HAND)
def test_ssf_scales_and_shifts_behind_every_map_and_norm(family):
    tuned = moved(family, "ssf")
    edits = by_place(tuned)
    agree(states(tuned), BY_HAND[family](plain(family), lambda place, y: edits[place].gain * y + edits[place].shift))


@pytest.mark.parametrize("family", BY_HAND)
def test_domain_residuals_are_added_to_what_each_block_adds(family):
    tuned = moved(family, "domain_residual")
    edits = by_place(tuned)

    def behind(place, y):
        return y + edits[place].offset if place in edits else y

    assert {role for role, _ in edits} == {"attention_out", "ffn_out"}
    agree(states(tuned), BY_HAND[family](plain(family), behind))


@pytest.mark.parametrize("family", BY_HAND)
def test_difffit_scales_what_each_block_adds_on_top_of_trained_biases_and_norms(family):
    tuned = moved(family, "difffit")
    edits = by_place(tuned)
    model = plain(family)
    own = dict(model.named_parameters())
    for name, parameter in tuned.trained().items():
        if name in own:  # biases and norms as trained; the gains stand apart
            own[name].data.copy_(parameter)

    def behind(place, y):
        return edits[place].gain * y if place in edits else y

    assert len(edits) == 2 * LAYERS
    agree(states(tuned), BY_HAND[family](model, behind))


THROUGH_FP32 = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "smollm3",
    "qwen3_5_text",
    "phi3",
)
"""Families whose norms go through fp32 whatever the model is in."""


@pytest.mark.parametrize("family", TINY_FAMILIES)
@pytest.mark.parametrize("text", ["ssf", "ssf(shift=False)", "difffit", "domain_residual"])
def test_merged_and_attached_agree_in_fp64(text, family):
    """Where a shift has no bias to go into, the method says that it cannot be merged."""
    tuned = moved(family, text)
    shifts = text in ("ssf", "domain_residual")
    sites = [tuned.backbone.module(site) for site in tuned.sites if site is not None]
    assert tuned.mergeable == (not shifts or all(getattr(module, "bias", None) is not None for module in sites))
    if not tuned.mergeable:
        return
    with torch.no_grad():
        attached = tuned(input_ids=IDS[:1]).logits
        merged = tuned.merge()(input_ids=IDS[:1]).logits
    agree(merged, attached, 1e-5 if family in THROUGH_FP32 else 1e-12)


def test_families_without_biases_are_those_where_ssf_stays_attached():
    """Guards the test above from agreeing by never merging."""
    mergeable = {family for family in TINY_FAMILIES if attach(tiny_backbone(family), method_from("ssf")).mergeable}
    assert {"bert", "roberta", "gpt2", "opt", "gpt_neox", "deberta-v2", "albert"} <= mergeable
    assert mergeable.isdisjoint({"llama", "qwen2", "qwen3", "gemma", "modernbert"})


@pytest.mark.parametrize("family", ["gemma", "gemma3_text", "qwen3_5_text", "llama"])
def test_a_gain_behind_a_norm_is_folded_into_what_the_norm_multiplies_by(family):
    """1 + w in Gemma and in most norms of Qwen 3.5, w in Llama: the merged norm gives g times what it gave."""
    backbone = tiny_backbone(family)
    plain_norms = {site.path: backbone.module(site) for site in tiny_backbone(family).sites(["norm"])}
    draw = torch.Generator().manual_seed(0)
    inputs = {path: torch.randn(3, len(norm.weight), generator=draw) for path, norm in plain_norms.items()}
    before = {path: norm(inputs[path]) for path, norm in plain_norms.items() if "linear_attn" not in path}
    tuned = attach(backbone, method_from("ssf(shift=False, roles=['norm'])"))
    gains = {}
    for site, edit in tuned.placed():
        edit.gain.data += 0.3 * torch.randn(len(edit.gain), generator=draw)
        gains[site.path] = edit.gain.detach()
    merged = tuned.merge()
    for path, output in before.items():
        torch.testing.assert_close(merged.get_submodule(path)(inputs[path]), gains[path] * output, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", ["ssf", "difffit", "domain_residual"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_recomputed_activations_give_the_same_gradients(family, text):
    def gradients(recomputes: bool):
        tuned = moved(family, text)
        if recomputes:
            recompute_activations(tuned.backbone)
        Bench(family).loss(tuned.train()).backward()
        return {name: parameter.grad for name, parameter in tuned.trained().items() if parameter.grad is not None}

    kept, recomputed = gradients(False), gradients(True)
    assert kept.keys() == recomputed.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-5, atol=1e-9, msg=name)


@pytest.mark.parametrize("check", ["a_fresh_method_leaves_the_model_as_it_was", "a_step_lowers_the_loss"])
@pytest.mark.parametrize("family", ["deberta", "distilbert", "gemma2", "qwen3_5_text", "albert"])
@pytest.mark.parametrize("text", ["ssf", "difffit", "domain_residual"])
def test_they_start_as_the_base_and_learn_in_families_of_every_build(text, family, check):
    CHECKS[check](method_from(text), Bench(family))


NORMS = 1 + 2 * LAYERS  # behind the embeddings, and two per layer
BIASES = LAYERS * (5 * WIDTH + FFN) + NORMS * WIDTH + WIDTH  # maps, norms, pooler
MAPS = LAYERS * (5 * WIDTH + FFN)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("ssf", 2 * (MAPS + NORMS * WIDTH)),
        ("ssf(shift=False)", MAPS + NORMS * WIDTH),
        ("ssf(roles=['ffn_in'], layers=[1])", 2 * FFN),
        ("difffit", BIASES + NORMS * WIDTH + 2 * LAYERS * WIDTH),
        ("domain_residual", 2 * LAYERS * WIDTH),
        ("domain_residual(layers=[0])", 2 * WIDTH),
    ],
)
def test_the_number_of_trained_parameters_is_that_of_the_formula(text, count):
    assert attach(tiny_backbone("bert"), method_from(text)).n_trainable == count + CLASSIFIER


def test_ssf_starts_as_the_paper_has_it_where_asked_to():
    tuned = attach(tiny_backbone("bert"), method_from("ssf(spread=0.02)"))
    gains = torch.cat([edit.gain.detach() for _, edit in tuned.placed()])
    shifts = torch.cat([edit.shift.detach() for _, edit in tuned.placed()])
    for drawn, mean in ((gains, 1.0), (shifts, 0.0)):
        assert abs(float(drawn.mean()) - mean) < 0.003
        assert abs(float(drawn.std()) / 0.02 - 1) < 0.15
    assert not tuned.method.is_base_at_start
    assert method_from("ssf").is_base_at_start


def test_ssf_says_where_a_shift_keeps_it_from_being_merged():
    bert, qwen = tiny_backbone("bert"), tiny_backbone("qwen2")
    assert method_from("ssf").notes(bert) == []
    assert method_from("ssf(shift=False)").notes(qwen) == []
    assert method_from("ssf").notes(qwen) == [
        "13 of 19 places of ssf in tiny-qwen2 have no bias to take up a shift, so it stays attached; `shift=False` can "
        "be merged"
    ]


def test_variants_of_ssf_keep_the_contract():
    check_method(method_from("ssf(shift=False, spread=0.02)"), ("bert", "gemma", "modernbert"))
