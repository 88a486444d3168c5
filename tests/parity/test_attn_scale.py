"""AttnScale against closed forms: a temperature, scaled values, tables of counts, and the maps written out."""

import pytest
import torch
from torch import nn

from deltaproof.backbones import tiny_backbone
from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.attn_scale import MapGain
from deltaproof.methods.context import Context
from deltaproof.methods.tuned import attach
from deltaproof.testing import Bench

TEXTS = ("a good film", "a bad film with a bad story and then another quick brown fox over the lazy dog")


def batch_of(backbone, side="right"):
    backbone.tokenizer.padding_side = side
    return dict(backbone.tokenizer(list(TEXTS), padding=True, return_tensors="pt"))


def drawn(tuned, scale=0.5):
    """Gains away from 1, each of its own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for edit in tuned.edits:
            edit.shift.copy_(scale * torch.randn(edit.shift.shape, generator=generator))
    return tuned.eval()


@pytest.mark.parametrize(("size", "n", "heads", "per_head", "shared"), [
    ("ViT-S 224/16", 197, 6, 2_794_248, 465_708),
    ("ViT-S 128/16", 65, 6, 304_200, 50_700),
    ("ViT-B 224/16", 197, 12, 5_588_496, 465_708),
    ("ViT-B 128/16", 65, 12, 608_400, 50_700),
])  # fmt: skip
def test_counts_are_those_of_the_paper_s_models(size, n, heads, per_head, shared):
    """L H N^2 and L N^2 for twelve layers, N patches and a class token."""
    for n_heads, wanted in ((heads, per_head), (1, shared)):
        edits = [MapGain(n_heads, n, "scores", causal=False) for _ in range(12)]
        assert sum(edit.shift.numel() for edit in edits) == wanted
        assert sum(edit.reachable_dimension() for edit in edits) == wanted


def test_n_is_no_more_than_the_model_takes():
    backbone = tiny_backbone("bert")
    assert attach(backbone, method_from("attn_scale(tokens=1000, share_heads=True)")).edits[0].shift.shape == (
        1,
        128,
        128,
    )
    assert method_from("attn_scale(tokens=1000)").notes(backbone) == []
    assert "between the first 16 tokens" in method_from("attn_scale(tokens=16)").notes(backbone)[0]


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "modernbert", "gemma2"])
@pytest.mark.parametrize(
    "text", ["attn_scale", "attn_scale(scales='weights')", "together(attn_scale, domain_residual)"]
)
def test_gains_of_one_are_the_base(family, text):
    backbone = tiny_backbone(family)
    batch = batch_of(backbone)
    with torch.no_grad():
        before = backbone.model(**batch).logits
        after = attach(backbone, method_from(text)).eval()(**batch).logits
    torch.testing.assert_close(after, before, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("family", "side"), [("bert", "right"), *((name, side) for name in ("gpt2", "llama") for side in ("left", "right"))]
)
def test_equal_gains_c_are_a_temperature_of_one_over_c(family, side):
    """softmax(c S) is what a model gives whose own scale is c times as large."""
    c = 1.7
    tuned = attach(tiny_backbone(family), method_from("attn_scale")).eval()
    batch = batch_of(tuned.backbone, side)
    with torch.no_grad():
        for edit in tuned.edits:
            edit.shift.fill_(c - 1)
        got = tuned(**batch).logits
        modules = [tuned.backbone.module(site) for site in tuned.sites]
        tuned.detach()
        plain = tuned.backbone.model(**batch).logits
        for module in modules:
            module.scaling = module.scaling * c
        wanted = tuned.backbone.model(**batch).logits
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert (got - plain).abs().max() > 1e-2


def test_equal_gains_behind_the_softmax_scale_what_attention_gives():
    """c softmax(S) V is attention to c V: BERT with value maps c times as large."""
    c = 0.6
    tuned = attach(tiny_backbone("bert"), method_from("attn_scale(scales='weights')")).eval()
    batch = batch_of(tuned.backbone)
    with torch.no_grad():
        for edit in tuned.edits:
            edit.shift.fill_(c - 1)
        got = tuned(**batch).logits
        tuned.detach()
        for site in tuned.backbone.sites(["value"]):
            tuned.backbone.module(site).weight.mul_(c)
            tuned.backbone.module(site).bias.mul_(c)
        wanted = tuned.backbone.model(**batch).logits
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", ["attn_scale(tokens=9)", "attn_scale(tokens=9, share_heads=True)"])
def test_a_layer_s_answers_are_those_of_the_equation(text):
    """BERT's first attention written out, alpha 1 beyond the first 9 tokens."""
    tuned = drawn(attach(tiny_backbone("bert"), method_from(text)))
    module, edit = tuned.backbone.module(tuned.sites[0]), tuned.edits[0]
    torch.manual_seed(0)
    x = torch.randn(2, 14, 32)
    with torch.no_grad():
        got = module(x)[0]
        q, k, v = (maps(x).view(2, 14, 4, 8).transpose(1, 2) for maps in (module.query, module.key, module.value))
        alpha = torch.ones(4, 14, 14)
        alpha[:, :9, :9] = 1 + edit.shift
        wanted = (alpha * (q @ k.mT) / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(got, wanted.transpose(1, 2).reshape(2, 14, 32), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "bert"])
def test_padding_on_the_left_moves_no_gain(family):
    """Each text alone, without padding, answers as it does beside a longer one."""
    tuned = drawn(attach(tiny_backbone(family), method_from("attn_scale(tokens=9)")))
    backbone = tuned.backbone
    together = batch_of(backbone, "left")
    positions = (together["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        hidden = tuned(**together, position_ids=positions, output_hidden_states=True).hidden_states[-1][0]
        alone = dict(backbone.tokenizer([TEXTS[0]], return_tensors="pt"))
        wanted = tuned(**alone, output_hidden_states=True).hidden_states[-1][0]
    assert len(wanted) < len(hidden)
    torch.testing.assert_close(hidden[-len(wanted) :], wanted, rtol=1e-4, atol=1e-5)


def test_a_mask_of_pairs_is_refused_since_it_names_no_first_token():
    edit = MapGain(1, 4, "scores", causal=False)
    with pytest.raises(ConfigError, match=r"must be \(batch, tokens\) for `attn_scale`"):
        edit.scores(torch.zeros(1, 1, 4, 4), Context(attention_mask=torch.ones(1, 1, 4, 4)))


@pytest.mark.parametrize("scales", ["scores", "weights"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_reachable_set_is_measured(scales, causal):
    """Rank of the Jacobian of attention by alpha, over many maps: in a causal model what is never seen does nothing."""
    torch.manual_seed(0)
    n = 4
    maps, values = torch.randn(20, 2, n, n, dtype=torch.double), torch.randn(20, 2, n, 3, dtype=torch.double)
    unseen = torch.ones(n, n).triu(1).bool() if causal else torch.zeros(n, n).bool()

    def answers(alpha):
        scores = (alpha * maps if scales == "scores" else maps).masked_fill(unseen, -torch.inf)
        weights = scores.softmax(-1)
        return ((alpha * weights if scales == "weights" else weights) @ values).flatten()

    jacobian = torch.autograd.functional.jacobian(answers, torch.ones(2, n, n, dtype=torch.double))
    measured = int(torch.linalg.matrix_rank(jacobian.flatten(1)))
    assert measured == MapGain(2, n, scales, causal).reachable_dimension()


def test_weight_decay_pulls_towards_the_base():
    """What is decayed is alpha - 1: without a gradient from the loss, gains go to 1."""
    tuned = drawn(attach(tiny_backbone("bert"), method_from("attn_scale(tokens=4)")))
    shift = nn.Parameter(tuned.edits[0].shift.detach().clone())
    shift.grad = torch.zeros_like(shift)
    torch.optim.AdamW([shift], lr=0.1, weight_decay=0.5).step()
    gains = MapGain(4, 4, "scores", causal=False)
    gains.shift = shift
    torch.testing.assert_close(
        gains.gains(torch.zeros(1, 4, 4, 4), Context()) - 1, 0.95 * tuned.edits[0].shift.detach(), rtol=1e-5, atol=1e-7
    )


def test_one_step_of_training_moves_gains_of_real_tokens_only():
    tuned = attach(tiny_backbone("bert"), method_from("attn_scale"))
    batch = Bench().batch(tuned.backbone)
    tuned(**batch).logits.square().sum().backward()
    n_tokens = batch["input_ids"].shape[1]
    gradient = tuned.edits[0].shift.grad
    assert gradient[:, :n_tokens, :n_tokens].abs().sum() > 0
    assert gradient[:, n_tokens:].abs().sum() == gradient[:, :, n_tokens:].abs().sum() == 0
