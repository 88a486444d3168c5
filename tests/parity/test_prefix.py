"""Prefix tuning is peft's: equal logits and gradients from equal keys and values, and the MLP in front of them too.

peft puts the prefix into the key-value cache, which moves every token `length` positions on; ours leaves positions as
they are. Given peft's positions, ours answers like it. Tolerance 1e-5: fp32, the same products in another order.
"""

import copy

import peft
import pytest
import torch

from deltaproof.backbones import tiny_backbone, tiny_language_model
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.testing import Bench

LENGTH = 5
FAMILIES = ("bert", "gpt2", "llama", "qwen3", "gemma2", "opt")
"""Absolute and rotary positions, grouped keys, norms of keys, soft-capped scores; peft knows no other encoders."""


def pair(family, **fields):
    """Ours and peft's on equal models, and peft's prompt encoder."""
    config = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=LENGTH, **fields)
    torch.manual_seed(0)
    theirs = peft.get_peft_model(copy.deepcopy(tiny_backbone(family).model), config).eval()
    text = f"prefix(length={LENGTH}, bottleneck=6)" if fields else f"prefix(length={LENGTH})"
    return attach(tiny_backbone(family), method_from(text)).eval(), theirs, theirs.prompt_encoder["default"]


def by_layer(rows, ours):
    """peft's columns, (tokens, layer x (key, value) x head x width), as (layer, (key, value), head, tokens, width)."""
    _, n_heads, width = ours.backbone.heads
    return rows.view(LENGTH, -1, 2, n_heads, width).permute(1, 2, 3, 0, 4)


def moved(batch):
    """The positions that peft's model sees."""
    n_tokens = batch["input_ids"].shape[1]
    return {**batch, "position_ids": torch.arange(LENGTH, LENGTH + n_tokens).expand(len(batch["input_ids"]), -1)}


def assert_same_answers(ours, theirs):
    batch = Bench().batch(ours.backbone)
    wanted = theirs(**batch).logits
    got = ours(**moved(batch)).logits
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert (got - ours(**batch).logits).abs().max() > 1e-2, "positions must matter, else nothing is shown"
    (got.square().sum() + wanted.square().sum()).backward()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_is_that_of_peft(family):
    ours, theirs, encoder = pair(family)
    stored = by_layer(encoder.embedding.weight.detach(), ours)
    with torch.no_grad():
        for (_, edit), (keys, values) in zip(ours.placed(), stored, strict=True):
            edit.keys.copy_(keys)
            edit.values.copy_(values)
    assert sum(edit.keys.numel() + edit.values.numel() for edit in ours.edits) == encoder.embedding.weight.numel()
    assert_same_answers(ours, theirs)
    gradient = by_layer(encoder.embedding.weight.grad, ours)
    for (_, edit), (keys, values) in zip(ours.placed(), gradient, strict=True):
        torch.testing.assert_close(edit.keys.grad, keys, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(edit.values.grad, values, rtol=1e-4, atol=1e-5)


def test_a_prefix_behind_a_bottleneck_is_that_of_peft():
    """On BERT; in models with grouped keys peft's embedding is as wide as the keys, ours as the model."""
    ours, theirs, encoder = pair("bert", prefix_projection=True, encoder_hidden_size=6)
    first, _, last = encoder.transform
    with torch.no_grad():
        shared = ours.edits[0].shared
        shared.embedding.copy_(encoder.embedding.weight)
        shared.a.copy_(first.weight)
        shared.a_bias.copy_(first.bias)
        for edit, weight, bias in zip(ours.edits, last.weight.chunk(2), last.bias.chunk(2), strict=True):
            edit.b.copy_(weight)
            edit.b_bias.copy_(bias)
    trained = sum(parameter.numel() for parameter in ours.edits.parameters())
    assert trained == sum(parameter.numel() for parameter in encoder.parameters())
    assert_same_answers(ours, theirs)
    for got, wanted in ((shared.embedding, encoder.embedding.weight), (shared.a, first.weight)):
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-4, atol=1e-5)


def test_what_is_generated_is_what_peft_generates():
    """From the same keys and values; tokens one at a time, since positions have to be peft's."""
    backbone = tiny_language_model("llama")
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    torch.manual_seed(0)
    theirs = peft.get_peft_model(copy.deepcopy(backbone.model), config).eval()
    ours = attach(backbone, method_from(f"prefix(length={LENGTH})")).eval()
    stored = by_layer(theirs.prompt_encoder["default"].embedding.weight.detach(), ours)
    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():
        for (_, edit), (keys, values) in zip(ours.placed(), stored, strict=True):
            edit.keys.copy_(keys)
            edit.values.copy_(values)
        wanted = theirs.generate(input_ids=ids, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)
        for _ in range(6):
            logits = ours(**moved({"input_ids": ids})).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(ids, wanted)


def test_a_bottleneck_is_shared_by_the_layers_and_counted_once():
    """length d + (d + 1) k in all, and 2 (k + 1) d per layer: BERT's d = 32, k = 6, two layers."""
    backbone = tiny_backbone("bert")
    tuned = attach(backbone, method_from("prefix(length=5, bottleneck=6)"))
    assert tuned.n_trainable == 5 * 32 + (32 + 1) * 6 + 2 * 2 * (6 + 1) * 32 + 2 * 32 + 2
    assert tuned.edits[0]._made[0] is tuned.edits[1]._made[0]
    assert attach(tiny_backbone("llama"), method_from("prefix(length=5)")).n_trainable == 2 * 2 * 5 * 2 * 8 + 2 * 32


def test_layers_without_a_prefix_are_left_alone():
    tuned = attach(tiny_backbone("bert"), method_from("on_layers(prefix(length=5), [1])"))
    assert [site.layer for site in tuned.sites] == [1]
    both = attach(tiny_backbone("bert"), method_from("on_layers(together(serial, parallel, prefix), [1])"))
    assert {site.layer for site in both.sites} == {1}


def test_the_reachable_set_is_measured():
    """Rank of the Jacobian of one layer's answers by keys and values: every number of them moves the answers."""
    tuned = attach(tiny_backbone("bert"), method_from("prefix(length=1)"))
    tuned.double().eval()
    torch.manual_seed(0)
    states = torch.randn(1, 40, 32, dtype=torch.double)
    module, edit = tuned.backbone.module(tuned.sites[0]), tuned.edits[0]

    def answers(keys, values):
        edit.keys_and_values = lambda context: (keys, values)
        return module(states)[0].flatten()

    jacobian = torch.autograd.functional.jacobian(answers, (edit.keys.detach(), edit.values.detach()))
    measured = torch.linalg.matrix_rank(torch.cat([part.flatten(1) for part in jacobian], dim=1))
    assert int(measured) == edit.reachable_dimension() == 2 * 32
