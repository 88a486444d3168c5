"""Editing attention leaves everything else as the model does it, and comes off without a trace."""

import copy
import json

import pytest
import torch
from torch import nn

from deltaproof.backbones import TINY_FAMILIES, tiny_backbone, tiny_language_model
from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.attention import attention, edit_attention
from deltaproof.methods.context import Context
from deltaproof.methods.edits import AttentionEdit
from deltaproof.methods.tuned import attach
from deltaproof.testing import check_method

TEXTS = ("a good film", "a bad film with a bad story and then another quick brown fox over the lazy dog")
WITHOUT_SITES = ("deberta", "gpt_neox")  # their queries, keys and values alternate within one weight
DEAF = ("deberta-v2", "mpnet")  # attention of their own, past the interface
EDITABLE = [family for family in TINY_FAMILIES if family not in WITHOUT_SITES + DEAF]


class Nothing(AttentionEdit):
    """Further keys it has none, and scores it leaves."""


class SameScores(AttentionEdit):
    """The scores as they are: but they are written out."""

    changes_scores = True


class Squared(AttentionEdit):
    """Scores that depend on the scores, so that whatever is left out of them shows."""

    changes_scores = True

    def scores(self, scores, context):
        return scores * scores.abs()


def batch_of(backbone, side="right"):
    backbone.tokenizer.padding_side = side
    return dict(backbone.tokenizer(list(TEXTS), padding=True, return_tensors="pt"))


def edited(backbone, edit):
    return edit_attention(backbone, [(site, edit) for site in backbone.sites(["attention"])], Context())


@pytest.mark.parametrize("implementation", ["as loaded", "eager"])
@pytest.mark.parametrize("family", EDITABLE)
def test_edits_that_change_nothing_leave_the_logits(family, implementation):
    backbone = tiny_backbone(family)
    if implementation == "eager":
        backbone.model.set_attn_implementation("eager")
    with torch.no_grad():
        for side in ("left", "right"):
            batch = batch_of(backbone, side)
            before = backbone.model(**batch).logits
            for edit in (Nothing(), SameScores()):
                handle = edited(backbone, edit)
                after = backbone.model(**batch).logits
                handle.remove()
                torch.testing.assert_close(after, before, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("family", DEAF)
def test_a_model_with_attention_of_its_own_says_so_and_stays_as_it_was(family):
    backbone = tiny_backbone(family)
    before = backbone.model.config._attn_implementation
    with pytest.raises(ConfigError, match=f"attention interface, `.*` of family `{family}` computes its own"):
        edited(backbone, Nothing())
    assert backbone.model.config._attn_implementation == before
    assert not traces(backbone.model)


def traces(model):
    return [name for name, module in model.named_modules() if any("deltaproof" in key for key in vars(module))]


@pytest.mark.parametrize("loaded", ["sdpa", "eager"])
def test_one_method_after_the_other_on_one_model(loaded, tmp_path):
    backbone = tiny_backbone("llama")
    backbone.model.set_attn_implementation(loaded)
    batch = batch_of(backbone)
    with torch.no_grad():
        before = backbone.model(**batch).logits
        for text in ("prefix(length=2)", "together(attn_scale, prefix(length=3))"):
            tuned = attach(backbone, method_from(text))
            assert not torch.equal(tuned(**batch).logits, before)
            tuned.detach()
            assert torch.equal(backbone.model(**batch).logits, before)
            assert backbone.model.config._attn_implementation == loaded
            assert not traces(backbone.model)


def test_what_transformers_saves_of_an_edited_model_is_the_plain_model(tmp_path):
    backbone = tiny_backbone("bert")
    backbone.model.save_pretrained(tmp_path / "before")
    tuned = attach(backbone, method_from("prefix(length=2)"))
    backbone.model.save_pretrained(tmp_path / "attached")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "attached" / name).read_bytes()
    assert "deltaproof" not in json.dumps(tuned.model.config.to_dict())


def test_a_copy_of_an_edited_model_answers_like_it():
    tuned = attach(tiny_backbone("bert"), method_from("prefix(length=2)")).eval()
    batch = batch_of(tuned.backbone)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(tuned)(**batch).logits, tuned(**batch).logits)


def test_scores_come_with_the_soft_cap():
    """Against Gemma 2 written out: what Squared sees is cap tanh(q k^T s / cap)."""
    backbone = tiny_backbone("gemma2")
    attention_module = backbone.module(backbone.sites(["attention"])[0])
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 16), torch.randn(2, 2, 5, 16), torch.randn(2, 2, 5, 16)
    vars(attention_module)["_deltaproof_attention_edits"] = (Context(), [Squared()])
    got, weights = attention("eager", attention_module, q, k, v, None, scaling=0.3, softcap=0.5)
    capped = 0.5 * torch.tanh(q @ k.repeat_interleave(2, 1).mT * 0.3 / 0.5)
    wanted = (capped * capped.abs()).softmax(-1)
    torch.testing.assert_close(weights, wanted)
    torch.testing.assert_close(got, (wanted @ v.repeat_interleave(2, 1)).transpose(1, 2))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("edit", [SameScores(), Nothing()], ids=["written out", "by sdpa"])
def test_a_position_bias_is_heeded_with_and_without_further_keys(edit, causal):
    """Against softmax(q k^T s + bias) v written out, where further keys have no bias."""
    module = tiny_backbone("llama" if causal else "bert").model.get_submodule(
        "model.layers.0.self_attn" if causal else "bert.encoder.layer.0.attention.self"
    )
    torch.manual_seed(0)
    heads = 2 if causal else 4
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, heads, 5, 8), torch.randn(2, heads, 5, 8)
    bias, more = torch.randn(1, 4, 5, 5), (torch.randn(heads, 3, 8), torch.randn(heads, 3, 8))
    further = Nothing()
    further.keys_and_values = lambda context: more
    vars(module)["_deltaproof_attention_edits"] = (Context(), [edit, further])
    got, _ = attention("sdpa", module, q, k, v, None, scaling=0.3, position_bias=bias)
    k, v = (torch.cat([extra.expand(2, -1, -1, -1), tensor], 2) for extra, tensor in zip(more, (k, v), strict=True))
    scores = q @ k.repeat_interleave(4 // heads, 1).mT * 0.3 + nn.functional.pad(bias, (3, 0))
    if causal:
        scores = scores.masked_fill(torch.ones(5, 8).triu(4).bool(), -torch.inf)
    wanted = (scores.softmax(-1) @ v.repeat_interleave(4 // heads, 1)).transpose(1, 2)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_sinks_beside_the_keys_are_refused_where_scores_change():
    module = tiny_backbone("llama").model.model.layers[0].self_attn
    vars(module)["_deltaproof_attention_edits"] = (Context(), [SameScores()])
    q = torch.zeros(1, 4, 2, 8)
    with pytest.raises(ConfigError, match="has sinks beside them"):
        attention("eager", module, q, q, q, None, s_aux=torch.zeros(4))


METHODS = ("prefix(length=3)", "prefix(length=3, bottleneck=4)", "deep_prompt(length=3)", "attn_scale(tokens=12)")


def changed(tuned):
    """Away from the start, so that the method does something."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (parameter for _, edit in tuned.placed() for parameter in edit.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return tuned.eval()


@pytest.mark.parametrize("text", METHODS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_generating_with_a_cache_gives_what_it_gives_without(family, text):
    """Each step attends to the extra keys once, and a gain belongs to the place in the whole text; padding on the left.

    Without a cache every step reckons all tokens anew.
    """
    tuned = changed(attach(tiny_language_model(family), method_from(text)))
    without = generated(tuned, use_cache=False)
    torch.testing.assert_close(generated(tuned), without, rtol=1e-4, atol=1e-4)
    if "attn_scale" not in text:
        torch.testing.assert_close(generated(tuned, cache_implementation="static"), without, rtol=1e-4, atol=1e-4)
        return
    with pytest.raises(ConfigError, match=r"`attention_mask` must be \(batch, tokens\) for `attn_scale`"):
        generated(tuned, cache_implementation="static")


ROTARY = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "phi3")


@pytest.mark.parametrize("text", [*METHODS, "together(serial, parallel, prefix(length=3))"])
@pytest.mark.parametrize("family", ROTARY)
def test_in_models_with_rotary_positions_padding_on_either_side_changes_nothing(family, text):
    """How a token sees a prefix hangs on its place in its own text and not on how long the batch is."""
    if text.startswith("deep_prompt") and family in ("qwen3", "gemma3_text"):
        pytest.skip("keys pass norms of their own there")
    tuned = changed(attach(tiny_backbone(family), text))
    with torch.no_grad():
        tokenize = tuned.backbone.tokenizer
        alone = torch.cat([tuned(**tokenize([one], return_tensors="pt")).logits for one in TEXTS])
        for side in ("left", "right"):
            batch = batch_of(tuned.backbone, side)
            torch.testing.assert_close(tuned(**batch).logits, alone, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(tuned.model(batch["input_ids"], batch["attention_mask"]).logits, alone,
                                       rtol=1e-4, atol=1e-4)  # fmt: skip


def test_positions_that_the_caller_gives_are_left_alone():
    tuned = changed(attach(tiny_backbone("llama"), "prefix(length=3)"))
    batch = batch_of(tuned.backbone, "left")
    shifted = torch.arange(batch["input_ids"].shape[1])[None] + 5
    with torch.no_grad():
        assert (tuned(**batch, position_ids=shifted).logits - tuned(**batch).logits).abs().max() > 1e-3


@pytest.mark.parametrize("text", METHODS)
def test_a_cache_that_lets_go_of_old_tokens_keeps_the_places_of_the_rest(text):
    """Sliding windows of 8 tokens, far shorter than the text: keys of the cache start somewhere within it."""
    tuned = changed(attach(tiny_language_model("mistral"), method_from(text)))
    plain = generated(tuned)
    tuned.model.config.sliding_window = 8
    windowed = generated(tuned)
    assert (windowed - plain).abs().max() > 1e-2, "the window must matter"
    torch.testing.assert_close(windowed, generated(tuned, use_cache=False), rtol=1e-4, atol=1e-4)


def generated(tuned, **arguments):
    """Logits of eight tokens, (8, 2, words)."""
    tuned.backbone.tokenizer.pad_token = tuned.backbone.tokenizer.eos_token
    batch = batch_of(tuned.backbone, side="left")
    answer = tuned.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=False, max_new_tokens=8,
        pad_token_id=0, eos_token_id=None, output_logits=True, return_dict_in_generate=True, **arguments,
    )  # fmt: skip
    return torch.stack(answer.logits)


@pytest.mark.parametrize("text", METHODS)
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_layers_that_are_computed_again_give_the_same_gradients(family, text):
    gradients = []
    for again in (False, True):
        tuned = changed(attach(tiny_backbone(family), method_from(text)))
        if again:
            tuned.model.activation_checkpointing_enable()
        tuned.train()(**batch_of(tuned.backbone)).logits.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in tuned.trained().items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", METHODS)
@pytest.mark.parametrize("family", ["bert", "gemma2", "modernbert"])
def test_autocast_answers_nearly_like_full_precision(family, text):
    tuned = attach(tiny_backbone(family), method_from(text)).eval()
    batch = batch_of(tuned.backbone)
    with torch.no_grad():
        exact = tuned(**batch).logits
        with torch.autocast("cpu", torch.bfloat16):
            rounded = tuned(**batch).logits.float()
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max() + 0.05


@pytest.mark.parametrize("edit", [Nothing(), SameScores()], ids=["by the model's function", "written out"])
def test_dropout_of_attention_weights_acts_in_training_only(edit):
    backbone = tiny_backbone("gpt2")
    for module in backbone.model.modules():
        if hasattr(module, "attn_dropout"):
            module.attn_dropout.p = 0.5
    batch = batch_of(backbone)
    with torch.no_grad():
        before = backbone.model.eval()(**batch).logits
        edited(backbone, edit)
        torch.testing.assert_close(backbone.model(**batch).logits, before, rtol=1e-6, atol=2e-6)
        torch.manual_seed(0)
        one, other = (backbone.model.train()(**batch).logits for _ in range(2))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["bert", "gemma2"])
@pytest.mark.parametrize(
    "text",
    [
        "prefix(length=3, bottleneck=4)",
        "attn_scale(scales='weights', share_heads=True)",
        "together(deep_prompt, prefix, attn_scale)",
    ],
)
def test_other_settings_keep_the_contract(text, family):
    check_method(method_from(text), families=(family,))
