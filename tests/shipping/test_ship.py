"""What is shipped answers like what was measured, stands under its name only then, and brings its evidence."""

import json
import shutil

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from deltaproof.backbones import save_tiny
from deltaproof.cli.main import app
from deltaproof.data.ledger import openings
from deltaproof.data.run_folder import read_dataset
from deltaproof.errors import ConfigError
from deltaproof.experiments.answer import find_tuned
from deltaproof.saving.folder import load_tuned
from deltaproof.shipping import exports
from deltaproof.shipping import ship as module
from deltaproof.shipping.check import check
from deltaproof.shipping.gate import all_hold
from deltaproof.shipping.ship import ship

TEXTS = ["a good film", "a bad film with a bad story", "no"]


def logits(model, tokenizer):
    with torch.no_grad():
        return model.eval()(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.numpy()


def of(run_folder, method):
    return find_tuned(run_folder, method)


@pytest.mark.parametrize("method", ["full", "lora(rank=2)", "head"])
def test_a_merged_model_loads_in_transformers_and_answers_like_the_tuned_one(run_folder, method, tmp_path):
    source = of(run_folder, method)
    shipped = ship(source, "merged", tmp_path / "out")
    assert shipped.holds
    assert {"score is kept", "reload equals memory", "seed reaches the start"} <= {gate.name for gate in shipped.gates}
    tuned, task, _ = load_tuned(source)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    np.testing.assert_allclose(logits(model, tokenizer), logits(tuned, tuned.backbone.tokenizer), atol=1e-5)
    assert tuple(model.config.id2label[at] for at in range(2)) == task.labels
    assert shipped.stored_bytes < sum(file.stat().st_size for file in (tmp_path / "out").iterdir())


def test_an_adapter_loads_in_peft_and_answers_like_the_tuned_one(run_folder, tmp_path):
    source = of(run_folder, "lora(rank=2)")
    assert ship(source, "adapter", tmp_path / "out").holds
    tuned, _, spec = load_tuned(source)
    base = AutoModelForSequenceClassification.from_pretrained(spec["model"]["name"], num_labels=2)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    np.testing.assert_allclose(logits(loaded, tokenizer), logits(tuned, tuned.backbone.tokenizer), atol=1e-5)
    assert all_hold(check(spec["model"]["name"], tmp_path / "out"))
    other = save_tiny("bert", tmp_path / "other", seed=1)
    assert not all_hold(check(str(other), tmp_path / "out"))


def test_heads_of_a_merge_that_stay_behind_are_named(run_folder, tmp_path):
    shutil.copytree(of(run_folder, "full"), tmp_path / "merge")
    (tmp_path / "merge" / "heads" / "subj").mkdir(parents=True)
    said: list[str] = []
    ship(tmp_path / "merge", "merged", tmp_path / "out", say=said.append)
    assert any("stay behind (subj)" in line for line in said)


def test_a_tolerance_that_was_asked_for_is_not_called_rounding(run_folder, tmp_path):
    shipped = ship(of(run_folder, "lora(rank=2)"), "merged", tmp_path / "out", dtype="bf16", tolerance=0.5)
    reason = next(gate.reason for gate in shipped.gates if gate.name == "in memory as tuned")
    assert reason.endswith("at most 0.5 of the largest logit, as asked")


def test_an_export_in_fewer_bits_is_entered_beside_the_one_in_full(run_folder, tmp_path):
    source = of(run_folder, "lora(rank=2)")
    ship(source, "merged", tmp_path / "whole")
    ship(source, "merged", tmp_path / "half", dtype="bf16")
    entered = json.loads((run_folder / "studies" / "gates.json").read_text())["runs"]
    assert {"export as merged", "export as merged in bf16"} <= {entry["what"] for entry in entered}


def test_the_card_and_the_evidence_say_what_was_measured(run_folder, tmp_path):
    source = of(run_folder, "lora(rank=2)")
    ship(source, "merged", tmp_path / "out", licence="apache-2.0")
    card = (tmp_path / "out" / "README.md").read_text()
    facts = json.loads((tmp_path / "out" / "evidence.json").read_text())
    record = json.loads((run_folder / "records" / f"{source.resolve().name}.json").read_text())
    assert facts["record"] == source.resolve().name
    accuracy = next(entry for entry in facts["scores"] if entry["metric"] == "accuracy")
    assert accuracy["this_model"] == record["test"]["accuracy"]
    assert accuracy["low"] <= accuracy["mean"] <= accuracy["high"]
    assert facts["data"]["fingerprint"] in card
    assert facts["base"]["fingerprint"] in card
    assert 'license: "apache-2.0"' in card
    assert f"| {100 * accuracy['this_model']:.1f} | {100 * accuracy['mean']:.1f} |" in card
    assert [gate["holds"] for gate in facts["gates"]] == [True] * len(facts["gates"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<html" in page
    texts = read_dataset(run_folder / "data").validation.texts
    assert not any(text[0] in page for text in texts[:5])


def test_the_sealed_test_split_is_not_opened(run_folder, tmp_path):
    fingerprint = read_dataset(run_folder / "data").test.fingerprint
    before = len(openings(fingerprint))
    ship(of(run_folder, "head"), "merged", tmp_path / "out")
    assert len(openings(fingerprint)) == before


def test_the_tokenizer_gives_the_model_what_training_gave_it(run_folder, tmp_path):
    """Segments of a pair among it, which a tokenizer forgets when it is saved plainly."""
    source = of(run_folder, "lora(rank=2)")
    ship(source, "merged", tmp_path / "out")
    tuned, _, _ = load_tuned(source)
    shipped, own = AutoTokenizer.from_pretrained(tmp_path / "out"), tuned.backbone.tokenizer
    assert shipped("one text", "another").keys() == own("one text", "another").keys()
    assert shipped("one text", "another")["token_type_ids"] == own("one text", "another")["token_type_ids"]
    assert (shipped.pad_token, shipped.padding_side) == (own.pad_token, "right")


def test_names_cannot_break_the_front_matter(run_folder, tmp_path):
    folder = shutil.copytree(of(run_folder, "lora(rank=2)").resolve(), tmp_path / "moved")
    facts = json.loads((folder / "deltaproof.json").read_text())
    evil = 'x"\n---\n# <script>alert(1)</script> `'
    facts["spec"]["data"]["name"] = evil
    (folder / "deltaproof.json").write_text(json.dumps(facts))
    ship(folder, "merged", tmp_path / "out", licence=evil)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("\n---\n") == 1
    assert card.count("\n# ") == 1
    assert "Not known: the folder that this was made from does not lie in its run folder" in card


def test_what_fails_a_gate_gets_no_name(run_folder, tmp_path, monkeypatch):
    """A merge without effect: the worst of the reports, planted."""
    monkeypatch.setitem(exports.EXPORTS, "merged", _without_tuning)
    shipped = ship(of(run_folder, "lora(rank=2)"), "merged", tmp_path / "out")
    assert not shipped.holds
    assert shipped.folder is None
    assert list(tmp_path.iterdir()) == []
    names = {gate.name for gate in shipped.gates if gate.holds is False}
    assert names == {"tuning is in the weights", "output answers like the tuned", "in memory as tuned"}


def test_what_fails_a_gate_can_be_kept_under_another_name(run_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(exports.EXPORTS, "merged", _without_tuning)
    shipped = ship(of(run_folder, "lora(rank=2)"), "merged", tmp_path / "out", keep_failed=True)
    assert shipped.folder == tmp_path / "out.failed"
    assert [path.name for path in tmp_path.iterdir()] == ["out.failed"]
    facts = json.loads((tmp_path / "out.failed" / "evidence.json").read_text())
    assert not all(gate["holds"] for gate in facts["gates"])
    assert "FAIL  tuning is in the weights" in (tmp_path / "out.failed" / "README.md").read_text()


def _without_tuning(tuned, task, folder):
    from deltaproof.saving.transformers_folder import save_model_folder

    plain = tuned.detach()
    save_model_folder(tuned.backbone, task.labels, folder)
    return plain


def test_a_reload_that_differs_from_memory_is_found(run_folder, tmp_path, monkeypatch):
    def rounded(tuned, task, folder):
        model = exports.merged(tuned, task, folder)
        with torch.no_grad():
            model.classifier.bias += 1e-3  # memory goes on, the file stays
        return model

    monkeypatch.setitem(exports.EXPORTS, "merged", rounded)
    shipped = ship(of(run_folder, "lora(rank=2)"), "merged", tmp_path / "out")
    gate = next(gate for gate in shipped.gates if gate.name == "reload equals memory")
    assert (gate.holds, gate.threshold) == (False, 0)
    assert gate.number == pytest.approx(1e-3, rel=1e-2)


def test_nothing_is_overwritten_unasked_and_a_failure_leaves_what_was_there(run_folder, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="nothing is overwritten unasked"):
        ship(of(run_folder, "head"), "merged", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setitem(exports.EXPORTS, "merged", _without_tuning)
        ship(of(run_folder, "lora(rank=2)"), "merged", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"
    assert ship(of(run_folder, "head"), "merged", tmp_path / "out", overwrite=True).holds
    assert not (tmp_path / "out" / "precious.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_crash_leaves_nothing_behind(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "check", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ship(of(run_folder, "head"), "merged", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "to", "says"),
    [
        ("prefix(length=2)", "merged", "only changes of weights and biases that the model has can be merged"),
        ("prefix(length=2)", "adapter", "needs a method that PEFT has, `prefix.length=2.` is none"),
        ("full", "adapter", "full fine-tuning is a whole model; use `--to merged`"),
        ("full", "gguf", "the maintained one is `convert_hf_to_gguf.py` of llama.cpp"),
        ("full", "onxn", "got `onxn`; did you mean `onnx`"),
    ],
)
def test_what_cannot_be_says_why_and_what_can(run_folder, method, to, says, tmp_path):
    with pytest.raises(ConfigError, match=says):
        ship(of(run_folder, method), to, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["gguf", "onxn"])
def test_a_form_that_nobody_writes_here_is_refused_before_a_model_is_read(to, tmp_path):
    with pytest.raises(ConfigError, match=to):
        ship(tmp_path / "nowhere", to, tmp_path / "out")


def test_the_command_prints_the_gates_and_ends_with_3_where_one_fails(run_folder, tmp_path, monkeypatch):
    def call(*options):
        arguments = [
            "ship",
            str(of(run_folder, "lora(rank=2)")),
            "--to",
            "merged",
            "-o",
            str(tmp_path / "out"),
            *options,
        ]
        return CliRunner().invoke(app, arguments)

    result = call()
    assert result.exit_code == 0
    assert "14 of 14 gates hold" in result.stdout
    assert call().exit_code == 2
    monkeypatch.setitem(exports.EXPORTS, "merged", _without_tuning)
    result = call("--overwrite", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["folder"] is None


def test_an_onnx_graph_answers_alone_and_in_batches_like_the_tuned_model(run_folder, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    source = of(run_folder, "lora(rank=2)")
    shipped = ship(source, "onnx", tmp_path / "out")
    assert shipped.holds, shipped.gates
    tuned, _, spec = load_tuned(source)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    batch = tokenizer(TEXTS, padding=True, return_tensors="np")
    given = {entry.name: batch[entry.name].astype(np.int64) for entry in session.get_inputs()}
    np.testing.assert_allclose(session.run(None, given)[0], logits(tuned, tuned.backbone.tokenizer), atol=1e-5)
    other = ship(of(run_folder, "full"), "onnx", tmp_path / "other")
    assert other.holds
    gates = check(spec["model"]["name"], source, tmp_path / "other")
    assert {gate.name for gate in gates if gate.holds is False} == {"output answers like the tuned"}


def test_without_the_extra_onnx_says_what_to_install(run_folder, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    result = CliRunner().invoke(app, ["ship", str(of(run_folder, "full")), "--to", "onnx", "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "pip install 'deltaproof[onnx]'" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_gates_of_a_run_s_model_are_kept_for_its_report_the_last_outcome_of_each_question(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "studies" / "gates.json").unlink(missing_ok=True)  # of the tests before this one
    source = of(tmp_path / "run", "lora(rank=2)")
    for overwrite in (False, True):
        ship(source, "merged", tmp_path / "out", overwrite=overwrite)
    spec = json.loads((source / "deltaproof.json").read_text())["spec"]
    told = CliRunner().invoke(app, ["gate", spec["model"]["name"], str(source), str(tmp_path / "out"), "--json"])
    assert told.exit_code == 0, told.output
    runs = json.loads((tmp_path / "run" / "studies" / "gates.json").read_text())["runs"]
    assert [(run["what"], run["contestant"], run["holds"]) for run in runs] == [
        ("export as merged", "lora(rank=2)", True), ("check of out", "lora(rank=2)", True)
    ]  # fmt: skip
    assert runs[1]["gates"] == json.loads(told.stdout)["gates"]
    assert "export as merged of lora(rank=2)" in (tmp_path / "out" / "report.html").read_text()
