"""Displacement on models whose movement is known, and on a real small run."""

import json

import numpy as np
import pytest
import torch

from deltaproof.backbones import tiny_backbone, weight_of
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.records.store import Store
from deltaproof.studies.displacement import displacement, log10_bounds
from deltaproof.studies.kept_models import Bed, kept_models
from deltaproof.studies.movement import measure_displacement
from deltaproof.studies.same_head import base_with_head, below_the_head
from deltaproof.tasks.text import TextTask
from deltaproof.theory.bounds import Reach
from deltaproof.theory.chains import Chain, sizes_of_changes
from deltaproof.theory.in_memory import deltas_of

CPU = torch.device("cpu")
TASK = TextTask("classification", ("neg", "pos"), ("accuracy",), 16)
TEXTS = [("a good film",), ("the dog is bad and the fox is not",), ("one",)]


def measured(tuned, base):
    tokenizer = base.tokenizer
    return measure_displacement(tuned.eval(), base, TASK.encode_texts(tokenizer, TEXTS), tokenizer.pad_token_id, 2)


@pytest.mark.parametrize("method", ["full", "lora(rank=2)", "bitfit", "ia3", "serial", "ln_tune"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "albert"])
def test_a_method_that_has_not_been_trained_has_moved_nothing(family, method):
    found = measured(attach(tiny_backbone(family), method_from(method)), tiny_backbone(family))
    np.testing.assert_allclose(found.logits, 0, atol=1e-5)
    np.testing.assert_allclose(found.layers, 0, atol=1e-5)
    np.testing.assert_allclose(found.shift, 0, atol=1e-6)


def test_what_is_measured_is_the_difference_of_transformers_own_outputs():
    """Logits and hidden states of each row alone, as the library gives them."""
    base, other = tiny_backbone("bert"), tiny_backbone("bert")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for site in other.sites(["query", "ffn_out"]):
            weight = weight_of(other.module(site), site)
            weight.add_(0.05 * torch.randn(weight.shape, generator=draw))
    found = measured(attach(other, method_from("full")), base)
    for row, text in enumerate(TEXTS):
        ids = torch.tensor(TASK.encode_texts(base.tokenizer, [text]).columns["input_ids"])
        with torch.no_grad():
            first, second = (model.model(input_ids=ids, output_hidden_states=True) for model in (base, other))
        assert found.logits[row] == pytest.approx(float((second.logits - first.logits).norm()), rel=1e-4)
        for layer in range(2):
            before, after = first.hidden_states[layer + 1], second.hidden_states[layer + 1]
            assert found.layers[row, layer] == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-3)
        assert found.size[row] == pytest.approx(float(first.hidden_states[0].norm()), rel=1e-4)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "modernbert", "qwen3", "gemma2"])
def test_every_changed_weight_bias_and_norm_of_a_model_has_a_place_in_the_chain(family):
    base, other = tiny_backbone(family), tiny_backbone(family)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.01)
    changes = sizes_of_changes(deltas_of(attach(other, method_from("full")), below_the_head(base)))
    blocks, missing = Chain(base).changed(changes)
    assert missing == []
    changed = [step for block in blocks for step in block.maps if step.change > 0]
    n_linear = sum(site.role in ("query", "key", "value", "attention_out", "ffn_in", "ffn_gate", "ffn_out")
                   for site in base.all_sites)  # fmt: skip
    assert len(changed) >= n_linear
    for step in changed:  # all weights grew by 1 %: so did their largest singular values
        assert step.change <= 0.0101 * step.norm + 1e-6


def test_the_chain_of_one_changed_map_is_the_theorems_formula_by_hand():
    base, other = tiny_backbone("bert"), tiny_backbone("bert")
    (site,) = other.sites(["ffn_out"], [1])
    with torch.no_grad():
        weight_of(other.module(site), site).mul_(1.5)
    tuned = attach(other, method_from("full"))
    moved = measured(tuned, base)
    found, missing = log10_bounds(tuned, base, moved, {})
    assert missing == []
    blocks, _ = Chain(base).changed(sizes_of_changes(deltas_of(tuned, below_the_head(base))))
    (at,) = (number for number, block in enumerate(blocks) if any(step.change > 0 for step in block.maps))
    block, size = blocks[at], Reach.at(moved.size).past(blocks[:at])
    assert [step.change > 0 for step in block.maps] == [False, True]
    reached = size.through(block.maps[0]).size / np.log(10) + np.log10(block.lipschitz * block.maps[1].change)
    behind = sum(np.log10(step.norm) for later in blocks[at + 1 :] for step in later.maps)
    np.testing.assert_allclose(found, reached + behind, rtol=1e-9)
    assert (np.log10(moved.logits) < found).all()


def test_the_base_of_a_tuned_model_has_its_head_and_none_of_its_changes(kept_run):
    for kept in kept_models(Store(kept_run)):
        tuned, _ = kept.load()
        base, start = base_with_head(kept), kept.load_base()
        head = {name: value for name, value in tuned.trained().items() if name.startswith(base.head)}
        now = dict(base.model.named_parameters())
        assert head
        for name, value in head.items():
            assert torch.equal(now[name], value)
            assert not torch.equal(now[name], dict(start.model.named_parameters())[name])
        for name, value in below_the_head(start).items():
            assert torch.equal(now[name], value)


def test_a_run_is_measured_method_by_method_without_a_look_at_the_test_set(kept_run):
    bed = Bed(Store(kept_run), CPU)
    before = bed.dataset.test.openings()
    result = displacement(bed)
    assert bed.dataset.test.openings() == before
    json.dumps(result, allow_nan=False)
    entries = {entry["label"]: entry for entry in result["methods"]}
    assert list(entries) == ["full", "lora(rank=2)", "bitfit", "prefix(length=2)"]
    for label in ("full", "lora(rank=2)", "bitfit"):
        entry = entries[label]
        assert entry["displacement"]["low"] <= entry["displacement"]["mean"] <= entry["displacement"]["high"]
        assert entry["bound"]["log10_tightness_high"] <= 0
        assert len(entry["layers"]) == 2
        assert entry["not_in_bound"] == []
        assert entry["slopes"]["tuned"]["lipschitz"][2] > 0
    assert entries["prefix(length=2)"]["bound"] is None
    assert "changes more than weights" in entries["prefix(length=2)"]["why_no_bound"]
    assert entries["prefix(length=2)"]["displacement"]["mean"] > 0


def test_the_measured_logits_are_those_of_the_loaded_models(kept_run):
    bed = Bed(Store(kept_run), CPU)
    kept = kept_models(bed.store, ["lora(rank=2)"])[0]
    tuned, task = kept.load()
    base = base_with_head(kept)
    texts = bed.dataset.validation.texts[:3]
    encoded = task.encode_texts(tuned.backbone.tokenizer, texts)
    found = measure_displacement(tuned, base, encoded, tuned.backbone.tokenizer.pad_token_id)
    for row in range(3):
        ids = torch.tensor([encoded.columns["input_ids"][row]])
        with torch.no_grad():
            moved = tuned(input_ids=ids).logits - base.model(input_ids=ids).logits
        assert found.logits[row] == pytest.approx(float(moved.norm()), rel=1e-3, abs=1e-6)
