"""Exports in fewer bits, and regressions in their user's unit: what the gates say, and that they fail when broken."""

import json

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import deltaproof
from deltaproof.backbones import save_tiny
from deltaproof.errors import ConfigError
from deltaproof.evaluation.predict import predict
from deltaproof.experiments.answer import find_tuned
from deltaproof.saving.folder import load_tuned
from deltaproof.shipping import gates as g
from deltaproof.shipping import seeds
from deltaproof.shipping import ship as module
from deltaproof.shipping.check import check
from deltaproof.shipping.gate import gates_text
from deltaproof.shipping.onnx_graph import OnnxModel
from deltaproof.shipping.ship import ship
from deltaproof.tasks.text import TextTask
from own_folders import save_own

TEXTS = ["a good film", "a bad film with a bad story", "no"]
NUMBER = TextTask("regression", None, ("mae",), 16, target_mean=20.0, target_std=4.0)


def named(gates, name):
    return next(gate for gate in gates if gate.name == name)


def broken(gates):
    return {gate.name for gate in gates if gate.holds is False}


@pytest.mark.parametrize(("dtype", "stored"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_merged_model_in_half_precision_says_how_far_its_answers_and_its_score_are(
    dtype, stored, run_folder, tmp_path
):
    source = find_tuned(run_folder, "lora(rank=2)")
    shipped = ship(source, "merged", tmp_path / "half", dtype=dtype)
    assert shipped.holds, gates_text(shipped.gates)
    tensors = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {stored}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "half")
    assert model.dtype == stored
    own = named(shipped.gates, "answers in its own type")
    assert 0 < own.number <= own.threshold
    assert named(shipped.gates, "score is kept").unit == "difference in accuracy"
    assert named(shipped.gates, "reload equals memory").threshold == 0
    assert json.loads((tmp_path / "half" / "evidence.json").read_text())["stored_as"] == dtype
    assert f"stored in {dtype}" in (tmp_path / "half" / "README.md").read_text()
    whole = ship(source, "merged", tmp_path / "whole")
    assert shipped.stored_bytes < 0.75 * whole.stored_bytes


def test_half_precision_that_is_too_far_from_what_was_tuned_is_not_shipped(run_folder, tmp_path):
    shipped = ship(find_tuned(run_folder, "full"), "merged", tmp_path / "half", dtype="bf16", tolerance=1e-6)
    assert {"output answers like the tuned", "in memory as tuned", "answers in its own type"} == broken(shipped.gates)
    assert shipped.folder is None


def test_a_number_that_half_precision_cannot_hold_is_found(bert_number, tmp_path):
    """fp16 ends at 65504: a weight beyond it becomes infinite, and nothing says so but a gate."""
    tensors = load_file(bert_number / "deltaproof.safetensors")
    tensors["classifier.weight"][0, 0] = 1e6
    save_file(tensors, bert_number / "deltaproof.safetensors")
    assert "output: files are whole" in broken(ship(bert_number, "merged", tmp_path / "half", dtype="fp16").gates)


def test_a_score_that_moves_further_than_asked_is_not_shipped(run_folder, tmp_path, monkeypatch):
    scores = iter([0.8, 0.7])
    monkeypatch.setattr(module, "score", lambda *_: next(scores))
    monkeypatch.setattr(module, "score_opened", lambda *_: next(scores))
    shipped = ship(find_tuned(run_folder, "full"), "merged", tmp_path / "out", dtype="bf16")
    assert broken(shipped.gates) == {"score is kept"}
    scores = iter([0.8, 0.7])
    assert ship(find_tuned(run_folder, "full"), "merged", tmp_path / "out", dtype="bf16", score_tolerance=0.2).holds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"to": "adapter", "dtype": "bf16"}, "`dtype` is for a merged model, got `bf16` for `adapter`"),
        ({"to": "merged", "dtype": "bf61"}, "got `bf61`; did you mean `bf16`"),
        ({"to": "merged", "quantize": "int8"}, "`quantize` is for an ONNX graph"),
        ({"to": "onnx", "quantize": "int4"}, "`quantize` must be `int8`, got `int4`"),
        ({"to": "merged", "tolerance": -1.0}, "`tolerance >= 0` must hold, got -1.0"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_read(settings, message, tmp_path):
    to = settings.pop("to")
    with pytest.raises(ConfigError, match=message):
        ship(tmp_path / "nowhere", to, tmp_path / "out", **settings)


@pytest.fixture
def bert_number(tmp_path):
    base = save_tiny("bert", tmp_path / "bert")
    return save_own("lora(rank=2)", base, tmp_path / "tuned", NUMBER)


@pytest.mark.parametrize("method", ["lora(rank=2)", "full", "loha(r=2)"])
def test_a_regression_that_is_shipped_answers_in_its_users_unit(method, tmp_path):
    base = save_tiny("bert", tmp_path / "bert")
    source = save_own(method, base, tmp_path / "tuned", NUMBER)
    tuned, task, _ = load_tuned(source)
    tokenizer = tuned.backbone.tokenizer
    wanted = predict(tuned, task, task.encode_texts(tokenizer, [(text,) for text in TEXTS]), tokenizer.pad_token_id)
    for to in ("merged", "adapter") if method != "full" else ("merged",):
        shipped = ship(source, to, tmp_path / to)
        assert shipped.holds, gates_text(shipped.gates)
        assert named(shipped.gates, "answers in its unit").number < 1e-3
        if to == "merged":
            model = AutoModelForSequenceClassification.from_pretrained(tmp_path / to)
            assert broken(check(str(base), source, tmp_path / to)) == set()
        else:
            plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
            model = peft.PeftModel.from_pretrained(plain, tmp_path / to)
            told = deltaproof.Experts(str(base), {"x": tmp_path / to}).predict("x", TEXTS)
            np.testing.assert_allclose([row["value"] for row in told], wanted[:, 0], rtol=1e-5)
        batch = AutoTokenizer.from_pretrained(tmp_path / to)(TEXTS, padding=True, return_tensors="pt")
        with torch.no_grad():
            found = model.eval()(**batch).logits
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)
        assert "the output is the value itself" in (tmp_path / to / "README.md").read_text()


def test_a_unit_that_was_lost_is_found(bert_number, tmp_path, monkeypatch):
    """The head is told to be in the unit of the data, and is not."""
    monkeypatch.setattr(
        module,
        "in_units",
        lambda tuned, task: TextTask(**{**task.to_json(), "metrics": ("mae",), "target_mean": 0.0, "target_std": 1.0}),
    )
    shipped = ship(bert_number, "merged", tmp_path / "out")
    assert {"answers in its unit", "head is equal", "output answers like the tuned"} <= broken(shipped.gates)
    expected = [np.array([20.0]), np.array([24.0])]
    assert not g.answers_in_its_unit(expected, [np.array([0.0]), np.array([1.0])], 4.0).holds


def test_a_head_without_a_bias_stays_in_the_unit_of_training_and_the_card_says_how_to_leave_it(tmp_path):
    base = save_tiny("gpt2", tmp_path / "gpt2")
    source = save_own("lora(rank=2)", base, tmp_path / "tuned", NUMBER)
    shipped = ship(source, "merged", tmp_path / "out")
    assert shipped.holds
    assert named(shipped.gates, "answers in its unit").holds is None
    assert "value = output · 4 + 20" in (tmp_path / "out" / "README.md").read_text()


def test_a_graph_in_8_bits_is_smaller_and_says_how_far_it_is(run_folder, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    source = find_tuned(run_folder, "full")
    small = ship(source, "onnx", tmp_path / "small", quantize="int8", tolerance=0.5, score_tolerance=0.1)
    whole = ship(source, "onnx", tmp_path / "whole")
    assert small.holds, gates_text(small.gates)
    assert small.stored_bytes < whole.stored_bytes
    assert named(small.gates, "weights are in 8 bits").number >= 12
    assert named(whole.gates, "output answers like the tuned").number < 1e-5
    assert named(small.gates, "output answers like the tuned").number > 1e-5
    strict = ship(source, "onnx", tmp_path / "strict", quantize="int8", tolerance=1e-6)
    assert "output answers like the tuned" in broken(strict.gates)
    assert not g.matrices_are_small(0, 12).holds


def test_a_graph_that_looks_at_padding_is_found(run_folder, tmp_path, monkeypatch):
    """Alone every text is answered well; beside a longer one its padding is read as if it were text."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    source = find_tuned(run_folder, "full")
    assert ship(source, "onnx", tmp_path / "out").holds
    whole = OnnxModel.__call__

    def careless(self, row):
        return whole(self, {**row, "attention_mask": torch.ones_like(row["input_ids"])})

    monkeypatch.setattr(OnnxModel, "__call__", careless)
    base = load_tuned(source)[2]["model"]["name"]
    assert broken(check(base, source, tmp_path / "out")) == {"answers in a batch as alone"}


@pytest.mark.parametrize("arrives", [lambda call, seed: 0, lambda call, seed: call], ids=["no seed", "something else"])
def test_a_folder_whose_start_no_seed_decides_is_found(arrives, tmp_path, monkeypatch):
    base = save_tiny("bert", tmp_path / "bert")
    source = save_own("lora(rank=2)", base, tmp_path / "tuned")
    assert broken(check(str(base), source)) == set()
    honest, calls = seeds._start, []

    def planted(base, spec, task, seed):
        calls.append(seed)
        return honest(base, spec, task, arrives(len(calls), seed))

    monkeypatch.setattr(seeds, "_start", planted)
    assert broken(check(str(base), source)) == {"seed reaches the start"}
