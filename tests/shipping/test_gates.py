"""Every gate holds on folders that peft and transformers wrote, and fails on one that was broken for it."""

import json
import shutil

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from by_hand_folders import NAMES, classifier
from deltaproof.backbones import load_backbone, save_tiny
from deltaproof.backbones.tiny import tiny_language_model
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.records.spec import Spec
from deltaproof.saving.folder import save_tuned
from deltaproof.shipping import gates as g
from deltaproof.shipping.check import check
from deltaproof.shipping.gate import Gate, all_hold, gates_text
from deltaproof.tasks.text import TextTask
from deltaproof.testing.bench import Bench
from small import call


def broken(gates: list[Gate]) -> set[str]:
    return {gate.name for gate in gates if gate.holds is False}


def named(gates: list[Gate], name: str) -> Gate:
    return next(gate for gate in gates if gate.name == name)


def rewrite(folder, change, file="model.safetensors"):
    """Change the tensors of a file."""
    tensors = load_file(folder / file)
    save_file(change(tensors), folder / file, {"format": "pt"})


def without(tensors, *parts):
    return {name: value for name, value in tensors.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize("family", ["bert", "gpt2", "modernbert"])
def test_every_gate_holds_on_what_peft_merged_by_hand(made_by_hand, family):
    made = made_by_hand[family]
    gates = check(str(made.base), made.adapter, made.merged)
    assert all_hold(gates), gates_text(gates)
    assert all(gate.holds for gate in gates)


@pytest.mark.parametrize("family", ["bert", "gpt2", "modernbert"])
def test_every_gate_holds_on_an_adapter_alone_and_its_label_names_are_not_asked_for(made_by_hand, family):
    made = made_by_hand[family]
    gates = check(str(made.base), made.adapter)
    assert all_hold(gates)
    assert [gate.name for gate in gates if gate.holds is None] == ["label names are there"]


def test_the_answers_gate_gives_the_distance_that_the_two_models_have(made):
    gate = named(check(str(made.base), made.adapter, made.merged), "output answers like the tuned")
    tokenizer = AutoTokenizer.from_pretrained(made.base)
    attached = peft.PeftModel.from_pretrained(classifier(made.base), made.adapter).eval()
    from transformers import AutoModelForSequenceClassification

    merged = AutoModelForSequenceClassification.from_pretrained(made.merged).eval()
    from deltaproof.shipping.probes import TEXTS

    with torch.no_grad():
        distances = [
            (attached(**row).logits - merged(**row).logits).abs().max().item()
            for row in (tokenizer(text, return_tensors="pt", truncation=True, max_length=128) for text in TEXTS)
        ]
    assert gate.number == pytest.approx(max(distances), rel=1e-6)
    assert gate.number < gate.threshold < 1e-3


def test_a_head_that_was_dropped_from_the_merged_file_is_found(made):
    rewrite(made.merged, lambda tensors: without(tensors, "classifier"))
    gates = check(str(made.base), made.adapter, made.merged)
    assert broken(gates) == {"output: head is there", "head is equal", "output answers like the tuned"}
    assert named(gates, "output: head is there").number == 2
    assert "`classifier.bias`" in named(gates, "output: head is there").reason


def test_a_head_that_was_dropped_from_the_adapter_is_found(made):
    rewrite(made.adapter, lambda tensors: without(tensors, "classifier"), "adapter_model.safetensors")
    gates = check(str(made.base), made.adapter)
    assert broken(gates) == {"tuned: opens"}
    assert "must hold its head" in gates[-1].reason


def test_half_a_head_is_found(made):
    rewrite(made.adapter, lambda tensors: without(tensors, "classifier.bias"), "adapter_model.safetensors")
    gates = check(str(made.base), made.adapter)
    assert "lacks 'base_model.model.classifier.bias'" in gates[-1].reason


def test_a_head_that_peft_was_not_told_to_save_is_found(made):
    """Without `task_type` peft leaves the head out and says nothing."""
    config = json.loads((made.adapter / "adapter_config.json").read_text())
    (made.adapter / "adapter_config.json").write_text(json.dumps(config | {"modules_to_save": None, "task_type": None}))
    rewrite(made.adapter, lambda tensors: without(tensors, "classifier"), "adapter_model.safetensors")
    gates = check(str(made.base), made.adapter, made.merged)
    assert broken(gates) == {"tuned: head is there", "output answers like the tuned"}
    assert named(gates, "tuned: head is there").number == 2


def test_a_head_with_other_values_is_found(made):
    rewrite(made.merged, lambda tensors: tensors | {"classifier.bias": tensors["classifier.bias"] + 0.25})
    gates = check(str(made.base), made.adapter, made.merged)
    assert broken(gates) == {"head is equal", "output answers like the tuned"}
    assert named(gates, "head is equal").number == pytest.approx(0.25)


def test_tuning_that_was_silently_lost_is_found(made):
    """The head is right, the body is the base's: what a merge without effect leaves."""
    lost = classifier(made.base)
    tuned = load_file(made.adapter / "adapter_model.safetensors")
    lost.classifier.weight.data = tuned["base_model.model.classifier.weight"]
    lost.classifier.bias.data = tuned["base_model.model.classifier.bias"]
    lost.save_pretrained(made.merged)
    gates = check(str(made.base), made.adapter, made.merged)
    assert broken(gates) == {"tuning is in the weights", "output answers like the tuned"}
    gate = named(gates, "tuning is in the weights")
    assert (gate.number, gate.threshold) == (0, 4)


def test_tuning_that_was_lost_in_one_matrix_is_found(made):
    base = load_file(made.base / "model.safetensors")
    rewrite(
        made.merged,
        lambda tensors: tensors | {
            "bert.encoder.layer.1.attention.self.value.weight": base["encoder.layer.1.attention.self.value.weight"]
        },
    )  # fmt: skip
    gate = named(check(str(made.base), made.adapter, made.merged), "tuning is in the weights")
    assert (gate.holds, gate.number, gate.threshold) == (False, 3, 4)
    assert "`bert.encoder.layer.1.attention.self.value.weight` is the base's, bit by bit" in gate.reason


def test_the_base_copied_as_merged_is_found(made):
    shutil.rmtree(made.merged)
    shutil.copytree(made.base, made.merged)
    gates = check(str(made.base), made.adapter, made.merged)
    assert "tuning is in the weights" in broken(gates)


def test_a_base_copied_as_a_fully_tuned_model_is_found(made):
    gates = check(str(made.base), made.base)
    gate = named(gates, "tuning is in the weights")
    assert (gate.holds, gate.number, gate.threshold) == (False, 0, 1)


def test_a_missing_tokenizer_is_found_and_so_is_another_one(made, tmp_path):
    for file in made.merged.glob("token*"):
        file.unlink()
    gates = check(str(made.base), made.adapter, made.merged)
    assert broken(gates) == {"tokenizer is there"}
    assert "has none of tokenizer.json" in named(gates, "tokenizer is there").reason
    AutoTokenizer.from_pretrained(save_tiny("roberta", tmp_path / "other")).save_pretrained(made.merged)
    gates = check(str(made.base), made.adapter, made.merged)
    assert broken(gates) == {"tokenizer is there"}
    assert named(gates, "tokenizer is there").number == 10


def test_label_names_that_are_gone_are_found(made):
    config = json.loads((made.merged / "config.json").read_text())
    config["id2label"] = {str(at): f"LABEL_{at}" for at in range(3)}
    (made.merged / "config.json").write_text(json.dumps(config))
    gates = check(str(made.base), made.adapter, made.merged)
    assert broken(gates) == {"label names are there"}
    assert named(gates, "label names are there").number == 3


def test_an_adapter_of_another_base_is_found_by_the_base_that_it_names(made, tmp_path):
    other = save_tiny("bert", tmp_path / "other", seed=1)
    gates = check(str(other), made.adapter)
    assert broken(gates) == {"made on this base"}


def test_an_adapter_of_another_base_that_is_not_named_is_found_by_its_answers(made, tmp_path):
    other = save_tiny("bert", tmp_path / "other", seed=1)
    config = json.loads((made.adapter / "adapter_config.json").read_text())
    (made.adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "me/elsewhere"}))
    gates = check(str(other), made.adapter, made.merged)
    assert named(gates, "made on this base").holds is None
    assert broken(gates) == {"output answers like the tuned"}


def test_an_adapter_of_a_base_of_other_widths_does_not_open(made, tmp_path):
    gates = check(str(save_tiny("electra", tmp_path / "other")), made.adapter)
    assert "tuned: opens" in broken(gates)


@pytest.mark.parametrize("which", ["adapter", "merged"])
def test_a_truncated_file_is_found_and_nothing_further_is_asked(made, which):
    file = made.adapter / "adapter_model.safetensors" if which == "adapter" else made.merged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    gates = check(str(made.base), made.adapter, made.merged)
    assert broken(gates) == {f"{'tuned' if which == 'adapter' else 'output'}: files are whole"}
    assert "must be a whole safetensors file" in gates[-1].reason


def test_numbers_that_are_none_are_found(made):
    rewrite(made.merged, lambda tensors: tensors | {"classifier.bias": torch.tensor([0.0, float("nan"), 1.0])})
    gates = check(str(made.base), made.adapter, made.merged)
    assert broken(gates) == {"output: files are whole"}
    assert gates[-1].number == 1


def test_an_adapter_that_was_never_trained_is_found(made, tmp_path):
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
    peft.get_peft_model(classifier(made.base), config).save_pretrained(tmp_path / "fresh")
    gates = check(str(made.base), tmp_path / "fresh")
    assert broken(gates) == {"tuning is in the weights"}


def test_a_pickled_adapter_is_never_opened(made):
    (made.adapter / "adapter_model.safetensors").rename(made.adapter / "adapter_model.bin")
    gates = check(str(made.base), made.adapter)
    assert "pickled weights can run code and are never opened" in gates[-1].reason


@pytest.mark.parametrize(("dtype", "at_most"), [(torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
def test_a_model_stored_in_half_precision_is_held_to_its_rounding(made, dtype, at_most):
    rewrite(made.merged, lambda tensors: {name: value.to(dtype) for name, value in tensors.items()})
    gates = check(str(made.base), made.adapter, made.merged)
    assert all_hold(gates), gates_text(gates)
    gate = named(gates, "output answers like the tuned")
    assert 1e-6 < gate.number < gate.threshold
    strict = check(str(made.base), made.adapter, made.merged, relative=1e-6)
    assert broken(strict) == {"output answers like the tuned"}


def test_a_language_model_and_its_adapter_are_gated_too(tmp_path):
    backbone = tiny_language_model("llama")
    for name in ("base", "merged"):
        backbone.tokenizer.save_pretrained(tmp_path / name)
    backbone.model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), config)
    wrapped.save_pretrained(tmp_path / "adapter")
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    gates = check(str(tmp_path / "base"), tmp_path / "adapter", tmp_path / "merged")
    assert all_hold(gates), gates_text(gates)
    backbone.model.save_pretrained(tmp_path / "merged")
    gates = check(str(tmp_path / "base"), tmp_path / "adapter", tmp_path / "merged")
    assert broken(gates) == {"tuning is in the weights", "output answers like the tuned"}


@pytest.mark.parametrize("text", ["lora(rank=2)", "bitfit", "full", "prefix(length=2)", "ia3"])
def test_every_gate_holds_on_what_this_package_saved(made, text, tmp_path):
    task = TextTask("classification", NAMES, ("accuracy",), 16)
    backbone = load_backbone(str(made.base), "classification", 3, labels=NAMES)
    tuned = attach(backbone, method_from(text))
    batch = Bench().batch(backbone)
    optimizer = torch.optim.AdamW(tuned.trained().values(), lr=1e-2)
    tuned(**batch).logits.square().sum().backward()
    optimizer.step()
    model = {"name": str(made.base), "fingerprint": backbone.fingerprint, "revision": ""}
    spec = Spec(text, tuned.method.to_dict(), model, task.to_json(), {}, {}, seed=0, stage="final")
    save_tuned(tuned, task, spec, tmp_path / "tuned")
    gates = check(str(made.base), tmp_path / "tuned")
    assert all_hold(gates), gates_text(gates)
    assert named(gates, "seed reaches the start").holds
    other = save_tiny("bert", tmp_path / "other", seed=1)
    assert "made on this base" in broken(check(str(other), tmp_path / "tuned"))


def test_a_start_that_no_seed_reaches_is_found_and_one_that_obeys_none():
    alike = {"a": "1", "b": "2"}
    gate = g.seed_reaches_the_start([alike, alike, alike])
    assert (gate.holds, gate.number) == (False, 0)
    assert "two seeds start alike" in gate.reason
    gate = g.seed_reaches_the_start([alike, alike | {"a": "9"}, alike | {"a": "3"}])
    assert (gate.holds, gate.number) == (False, 1)
    assert "something draws without it" in gate.reason
    assert g.seed_reaches_the_start([alike, alike, alike | {"a": "3"}]).holds


def test_a_score_that_was_lost_is_found():
    assert not g.score_is_kept("accuracy", 0.9, 0.85, 0.005, 200, "").holds
    assert g.score_is_kept("accuracy", 0.9, 0.896, 0.005, 200, "").holds


def test_answers_of_another_shape_or_without_a_number_do_not_hold():
    one = [np.array([1.0, 2.0])]
    assert not g.answers_are_equal("answers", one, [np.array([1.0, 2.0, 3.0])], 1.0, "").holds
    assert not g.answers_are_equal("answers", one, [np.array([1.0, np.nan])], 1.0, "").holds


def test_the_command_ends_with_0_where_all_hold_and_with_3_where_one_does_not(made):
    result = call("gate", made.base, made.adapter, made.merged)
    assert result.exit_code == 0
    assert result.stdout.endswith("10 of 10 gates hold\n")
    rewrite(made.merged, lambda tensors: without(tensors, "classifier"))
    result = call("gate", made.base, made.adapter, made.merged)
    assert result.exit_code == 3
    assert "FAIL  output: head is there" in result.stdout


def test_the_command_prints_one_json_object_and_takes_texts_of_a_file(made, tmp_path):
    (tmp_path / "texts.csv").write_text("text\na good film\nno\n")
    result = call("gate", made.base, made.adapter, made.merged, "--json", "--data", tmp_path / "texts.csv")
    found = json.loads(result.stdout)
    assert found["holds"] is True
    assert "over 2 texts" in found["gates"][-1]["reason"]
    assert {"name", "number", "threshold", "holds", "reason"} <= found["gates"][0].keys()


def test_a_folder_that_is_not_there_fails_its_gate(made):
    result = call("gate", made.base, made.adapter.parent / "nothing")
    assert result.exit_code == 3
    assert "a folder must exist" in result.stdout
    assert call("gate", made.base.parent / "nothing", made.adapter).exit_code == 1
