"""What is saved answers the same in another process, in our format, in PEFT's and in that of transformers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from deltaproof.backbones import load_backbone, save_tiny
from deltaproof.errors import RecordError
from deltaproof.methods import METHODS, method_from
from deltaproof.methods.peft_bridge import peft_types
from deltaproof.methods.tuned import Tuned, attach
from deltaproof.records.spec import Spec
from deltaproof.saving.folder import load_tuned, save_tuned
from deltaproof.tasks.text import TextTask
from deltaproof.testing.bench import TEXTS, Bench
from deltaproof.testing.examples import example

OURS = [example(name).label for name in METHODS if name != "peft"]
VARIANTS = ["lora(rank=4)", "lora(rank=4, roles=['key', 'ffn_out'], layers=[1])", "dora(rank=4)", "vera(rank=8)"]
PEFTS = ["peft_vera(r=4)", "adalora", "peft_lora(r=4)", "prompt_tuning(num_virtual_tokens=4)", "loha(r=2)"]
OTHER_PEFTS = [example(f"peft_{name}").label for name in peft_types()]
FAMILIES = ("bert", "gpt2", "modernbert")
LABELS = ("no", "perhaps", "yes")
TASK = TextTask("classification", LABELS, ("accuracy",), 32)
SKIPPED = {("gpt2", "loha(r=2)"), ("bert", "shadow")}
"""What peft's own code cannot put on a family."""
CASES = [(family, text) for family in FAMILIES for text in (*OURS, *VARIANTS, *PEFTS)]
CASES += [("bert", text) for text in OTHER_PEFTS]
CASES = [case for case in dict.fromkeys(CASES) if case not in SKIPPED]
IN_PEFT = ("lora", "dora", "ia3", "pica", "vera", "density_penalty(lora", "only(dora")
"""How methods of ours begin that peft has a form for."""
HEADLESS = "trainable_tokens"
"""peft's adapter of it holds no head, so it is kept in our form alone."""


def spec_for(base: Path, tuned: Tuned) -> Spec:
    model = {"name": str(base), "fingerprint": tuned.backbone.fingerprint, "revision": ""}
    return Spec(tuned.method.label, tuned.method.to_dict(), model, TASK.to_json(), {}, {}, seed=5, stage="final")


def trained(base: Path, text: str) -> Tuned:
    tuned = attach(load_backbone(str(base), "classification", 3, labels=LABELS, seed=5), method_from(text), seed=5)
    Bench().train(tuned, n_steps=3, learning_rate=1e-2)
    return tuned


def logits(model: torch.nn.Module, tokenizer) -> np.ndarray:
    batch = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).logits.double().numpy()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every case trained a little, saved and moved: its folder, its base, its logits and its tokenizer."""
    root = tmp_path_factory.mktemp("saved")
    bases = {family: save_tiny(family, root / f"base-{family}") for family in FAMILIES}
    found = {}
    for number, (family, text) in enumerate(CASES):
        tuned = trained(bases[family], text)
        folder = root / f"{number}"
        answers = logits(tuned, tuned.backbone.tokenizer)
        save_tuned(tuned, TASK, spec_for(bases[family], tuned), folder)
        folder = folder.rename(root / f"moved {number}")
        found[family, text] = (folder, bases[family], answers, tuned.backbone.tokenizer)
    return found


SCRIPT = """
import json, sys, numpy as np, torch
from pathlib import Path
from deltaproof.saving.folder import load_tuned
from deltaproof.testing.bench import TEXTS
answers = {}
for folder in sys.argv[2:]:
    tuned, task, spec = load_tuned(Path(folder))
    batch = tuned.backbone.tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        answers[folder] = tuned(**batch).logits.double().numpy()
np.savez(sys.argv[1], **answers)
"""


@pytest.fixture(scope="module")
def answers_elsewhere(saved, tmp_path_factory):
    """What a fresh process answers after loading each folder."""
    out = tmp_path_factory.mktemp("elsewhere") / "answers.npz"
    folders = [str(folder) for folder, *_ in saved.values()]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", SCRIPT, str(out), *folders], check=True, env=environment, timeout=300)
    return np.load(out)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case))
def test_a_fresh_process_answers_to_the_bit_like_the_one_that_saved(saved, answers_elsewhere, case):
    folder, _, answers, _ = saved[case]
    np.testing.assert_array_equal(answers_elsewhere[str(folder)], answers)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case))
def test_peft_loads_the_adapter_with_equal_logits_where_it_has_a_form_for_the_method(saved, case):
    folder, base, answers, tokenizer = saved[case]
    is_ours = case[1] in (*OURS, *VARIANTS)
    has_form = case[1].startswith(IN_PEFT) if is_ours else not case[1].startswith(HEADLESS)
    assert (folder / "adapter_config.json").exists() == has_form
    if has_form:
        plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
        plain.config.pad_token_id = tokenizer.pad_token_id
        loaded = peft.PeftModel.from_pretrained(plain, folder)
        np.testing.assert_allclose(logits(loaded, tokenizer), answers, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_that_was_moved_too_can_be_named(saved, family, tmp_path):
    folder, base, answers, tokenizer = saved[family, "lora(rank=4)"]
    elsewhere = shutil.copytree(base, tmp_path / "another name")
    np.testing.assert_array_equal(logits(load_tuned(folder, base=str(elsewhere))[0], tokenizer), answers)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fully_tuned_model_is_a_transformers_folder(saved, family):
    folder, _, answers, _ = saved[family, "full"]
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    np.testing.assert_allclose(logits(model, tokenizer), answers, atol=1e-6)
    assert tuple(model.config.id2label[index] for index in range(3)) == LABELS


def test_nothing_that_is_saved_can_run_code(saved):
    suffixes = {file.suffix for folder, *_ in saved.values() for file in folder.rglob("*") if file.is_file()}
    assert suffixes <= {".json", ".safetensors", ".md", ".txt", ".jinja"}


def test_ia3_is_pefts_ia3_and_lora_is_pefts_lora(saved):
    kinds = {
        text: json.loads((saved["bert", text][0] / "adapter_config.json").read_text())["peft_type"]
        for text in ("ia3", "lora(rank=4)", "dora(rank=4)", "peft_vera(r=4)")
    }
    assert kinds == {"ia3": "IA3", "lora(rank=4)": "LORA", "dora(rank=4)": "LORA", "peft_vera(r=4)": "VERA"}


def test_the_stored_bytes_are_those_of_the_file(saved):
    from deltaproof.evaluation.efficiency import stored_bytes

    for text in ("lora(rank=4)", "ia3", "bitfit", "head"):
        folder, *_ = saved["bert", text]
        file = folder / "deltaproof.safetensors"
        header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        assert file.stat().st_size == stored_bytes(load_tuned(folder)[0]) + header


def test_the_stored_bytes_of_a_full_model_are_those_of_its_file(saved):
    from deltaproof.evaluation.efficiency import stored_bytes

    folder, *_ = saved["bert", "full"]
    file = folder / "model.safetensors"
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert abs(file.stat().st_size - header - stored_bytes(load_tuned(folder)[0])) <= 1024


def test_a_folder_without_facts_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"must be a folder that `train` or `compare` saved, found no deltaproof"):
        load_tuned(tmp_path)


def test_another_base_than_the_one_it_was_tuned_on_is_refused(tmp_path):
    base = save_tiny("bert", tmp_path / "base")
    tuned = trained(base, "lora(rank=2)")
    save_tuned(tuned, TASK, spec_for(base, tuned), tmp_path / "tuned")
    save_tiny("bert", base, seed=1)
    with pytest.raises(RecordError, match=r"must be the one that .* was tuned on, .*; bring that model back"):
        load_tuned(tmp_path / "tuned")


def test_a_damaged_folder_is_refused(tmp_path):
    base = save_tiny("bert", tmp_path / "base")
    tuned = trained(base, "lora(rank=2)")
    save_tuned(tuned, TASK, spec_for(base, tuned), tmp_path / "tuned")
    (tmp_path / "tuned" / "deltaproof.safetensors").write_bytes(b"cut")
    with pytest.raises(RecordError, match=r"deltaproof\.safetensors` must be a whole safetensors file, got: .*; save"):
        load_tuned(tmp_path / "tuned")
    (tmp_path / "tuned" / "deltaproof.json").write_text("{}")
    with pytest.raises(RecordError, match=r"deltaproof\.json` must hold a tuned model's facts, got KeyError\('task'\)"):
        load_tuned(tmp_path / "tuned")


@pytest.mark.parametrize(("kind", "labels"), [("regression", None), ("multilabel", ("a", "b"))])
@pytest.mark.parametrize("text", ["full", "lora(rank=2)"])
def test_other_kinds_of_task_come_back_too(tmp_path, kind, labels, text):
    task = TextTask(kind, labels, ("rmse" if kind == "regression" else "micro_f1",), 32, 2.5, 0.5)
    base = save_tiny("bert", tmp_path / "base")
    backbone = load_backbone(str(base), kind, task.n_outputs, labels=labels, seed=5)
    tuned = attach(backbone, method_from(text), seed=5).eval()
    model = {"name": str(base), "fingerprint": backbone.fingerprint, "revision": ""}
    spec = Spec(text, tuned.method.to_dict(), model, task.to_json(), {}, {}, seed=5, stage="final")
    before = logits(tuned, backbone.tokenizer)
    save_tuned(tuned, task, spec, tmp_path / "tuned")
    again, read, _ = load_tuned(tmp_path / "tuned")
    assert read == task
    np.testing.assert_array_equal(logits(again, backbone.tokenizer), before)
