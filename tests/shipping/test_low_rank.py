"""Extracted and squeezed adapters are the nearest of their rank, by numpy's SVD, and load in peft."""

import json

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from by_hand_folders import NAMES, classifier
from deltaproof.cli.main import app
from deltaproof.errors import ConfigError
from deltaproof.experiments.answer import find_tuned
from deltaproof.saving.folder import load_tuned
from deltaproof.shipping.check import check
from deltaproof.shipping.extract import extract
from deltaproof.shipping.gate import all_hold, gates_text
from deltaproof.shipping.low_rank import best_factors, squeezed_factors
from deltaproof.shipping.squeeze import squeeze
from small import write_csv

TEXTS = ["a good film", "a bad film with a bad story", "no"]


def answers(model, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return np.stack([model.eval()(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in TEXTS])


def on_base(base, adapter):
    return peft.PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=3), adapter
    )


@pytest.fixture(scope="module")
def fully_tuned(made_by_hand, tmp_path_factory):
    """Every parameter of every family moved: matrices, embeddings, biases, norms, head."""
    found = {}
    for family, made in made_by_hand.items():
        model, folder = classifier(made.base), tmp_path_factory.mktemp("full") / family
        torch.manual_seed(5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(made.base).save_pretrained(folder)
        found[family] = (made.base, folder)
    return found


def numpy_cut(change, rank):
    u, s, vh = np.linalg.svd(np.asarray(change, dtype=np.float64), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank], np.sqrt((s[rank:] ** 2).sum() / (s**2).sum())


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_a_cut_is_the_nearest_matrix_of_its_rank_by_numpys_svd(shape):
    change = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    a, b, cut = best_factors("w", change, 5)
    nearest, lost = numpy_cut(change, 5)
    np.testing.assert_allclose((b @ a).numpy(), nearest, atol=1e-5)
    assert cut.lost_fraction == pytest.approx(lost, rel=1e-6)
    assert (cut.rank, a.shape, b.shape) == (5, (5, shape[1]), (shape[0], 5))


def test_a_squeezed_product_is_the_nearest_of_its_rank_by_numpys_svd():
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(12, 40, generator=random), torch.randn(24, 12, generator=random)
    small_a, small_b, cut = squeezed_factors("w", a, b, 4)
    nearest, lost = numpy_cut(b @ a, 4)
    np.testing.assert_allclose((small_b @ small_a).numpy(), nearest, atol=1e-4)
    assert cut.lost_fraction == pytest.approx(lost, rel=1e-5)


@pytest.mark.parametrize("trains_head", [True, False])
def test_a_head_that_the_base_has_already_is_kept_whole_and_not_cut(fully_tuned, tmp_path, trains_head):
    _, base = fully_tuned["bert"]
    model = AutoModelForSequenceClassification.from_pretrained(base)
    torch.manual_seed(6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if trains_head or not name.startswith("classifier"):
                parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "tuned")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "tuned")
    facts = extract(str(base), tmp_path / "tuned", 2, tmp_path / "adapter")
    assert "classifier.weight" not in [cut["name"] for cut in facts["matrices"]]
    extract(str(base), tmp_path / "tuned", 10_000, tmp_path / "exact")
    np.testing.assert_allclose(answers(on_base(base, tmp_path / "exact"), base), answers(model, base), atol=1e-4)
    assert all_hold(check(str(base), tmp_path / "exact"))


@pytest.mark.parametrize("family", ["bert", "gpt2", "modernbert"])
def test_at_full_rank_peft_answers_like_the_fully_tuned_model(fully_tuned, family, tmp_path):
    base, folder = fully_tuned[family]
    found = extract(str(base), folder, 512, tmp_path / "adapter")
    wanted = answers(AutoModelForSequenceClassification.from_pretrained(folder), base)
    np.testing.assert_allclose(answers(on_base(base, tmp_path / "adapter"), base), wanted, atol=2e-4)
    assert found["lost_fraction"] < 1e-5
    assert found["not_representable"] == []
    gates = check(str(base), tmp_path / "adapter", folder, relative=1e-3)
    assert {gate.name for gate in gates if gate.holds is False} <= {"head is equal"}, gates_text(gates)


def test_a_low_rank_extract_is_each_matrix_cut_and_the_head_whole(fully_tuned, tmp_path):
    base, folder = fully_tuned["bert"]
    found = extract(str(base), folder, 3, tmp_path / "adapter")
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    name = "encoder.layer.1.intermediate.dense"
    nearest, lost = numpy_cut(after[f"bert.{name}.weight"] - before[f"{name}.weight"], 3)
    own = f"base_model.model.bert.{name}"
    np.testing.assert_allclose(stored[f"{own}.lora_B.weight"] @ stored[f"{own}.lora_A.weight"], nearest, atol=1e-5)
    cut = next(cut for cut in found["matrices"] if cut["name"] == f"bert.{name}.weight")
    assert cut["lost_fraction"] == pytest.approx(lost, rel=1e-4)
    torch.testing.assert_close(stored["base_model.model.classifier.weight"], after["classifier.weight"], atol=0, rtol=0)
    assert found["largest_logit_difference"] > 1e-3
    assert all_hold(check(str(base), tmp_path / "adapter"))
    facts = json.loads((tmp_path / "adapter" / "evidence.json").read_text())
    assert tuple(facts["task"]["labels"]) == NAMES


def test_what_lora_changed_is_extracted_without_loss_at_its_rank(made_by_hand, tmp_path):
    made = made_by_hand["bert"]
    found = extract(str(made.base), made.merged, 4, tmp_path / "adapter")
    assert {cut["name"].rpartition(".")[0].rpartition(".")[2] for cut in found["matrices"]} == {"query", "value"}
    assert found["lost_fraction"] < 1e-4
    assert found["largest_logit_difference"] < 1e-4


def test_at_its_own_rank_a_squeezed_adapter_answers_as_before_whatever_its_scale(made_by_hand, tmp_path):
    made = made_by_hand["bert"]
    config = peft.LoraConfig(task_type="SEQ_CLS", r=6, lora_alpha=20, use_rslora=True, init_lora_weights=False,
                             target_modules=["query", "value", "word_embeddings"])  # fmt: skip
    torch.manual_seed(2)
    wrapped = peft.get_peft_model(classifier(made.base), config)
    wrapped.save_pretrained(tmp_path / "big", save_embedding_layers=False)
    wanted = answers(wrapped, made.base)
    found = squeeze(tmp_path / "big", 6, tmp_path / "same")
    np.testing.assert_allclose(answers(on_base(made.base, tmp_path / "same"), made.base), wanted, atol=1e-4)
    assert found["lost_fraction"] < 1e-6
    found = squeeze(tmp_path / "big", 2, tmp_path / "small")
    assert 0.1 < found["lost_fraction"] < 1
    assert found["stored_bytes"] < found["stored_bytes_before"]
    big = load_file(tmp_path / "big" / "adapter_model.safetensors")
    small = load_file(tmp_path / "small" / "adapter_model.safetensors")
    own = "base_model.model.bert.encoder.layer.0.attention.self.query"
    nearest, _ = numpy_cut(20 / 6**0.5 * big[f"{own}.lora_B.weight"] @ big[f"{own}.lora_A.weight"], 2)
    np.testing.assert_allclose(small[f"{own}.lora_B.weight"] @ small[f"{own}.lora_A.weight"], nearest, atol=1e-4)
    assert torch.equal(small["base_model.model.classifier.weight"], big["base_model.model.classifier.weight"])


def test_what_cannot_be_cut_says_why(made_by_hand, tmp_path):
    made = made_by_hand["bert"]
    with pytest.raises(ConfigError, match=r"is extracted from a whole model, .* is none"):
        extract(str(made.base), made.adapter, 4, tmp_path / "out")
    with pytest.raises(ConfigError, match="something must have changed"):
        extract(str(made.merged), made.merged, 4, tmp_path / "out")
    with pytest.raises(ConfigError, match="an adapter in PEFT's format can be squeezed"):
        squeeze(made.merged, 4, tmp_path / "out")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], use_dora=True)
    peft.get_peft_model(classifier(made.base), config).save_pretrained(tmp_path / "dora")
    with pytest.raises(ConfigError, match="DoRA's lengths belong to the product"):
        squeeze(tmp_path / "dora", 1, tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="nothing is overwritten unasked"):
        squeeze(made.adapter, 1, tmp_path / "out")


def test_the_commands_say_what_is_lost_and_for_a_run_the_score(made_by_hand, run_folder, tmp_path):
    def call(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    made = made_by_hand["bert"]
    result = call("extract", made.base, made.merged, "--rank", 2, "-o", tmp_path / "adapter")
    assert result.exit_code == 0, result.output
    assert "4 matrices cut to rank 2" in result.stdout
    assert "accuracy on" not in result.stdout
    rows = tmp_path / "rows.csv"
    write_csv(rows, ["text", "label"], [["a good film", "good"], ["a bad film", "BAD"], ["no", "fair"], ["x", "2"]])
    result = call("extract", made.base, made.merged, "--rank", 64, "-o", tmp_path / "b", "--data", rows, "--json")
    found = json.loads(result.stdout)["score"]
    model = AutoModelForSequenceClassification.from_pretrained(made.merged).eval()
    tokenizer = AutoTokenizer.from_pretrained(made.merged)
    with torch.no_grad():
        said = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax())
                for text in ("a good film", "a bad film", "no", "x")]  # fmt: skip
    assert found["values"] == [np.mean(np.array(said) == [2, 0, 1, 2])] * 2
    assert (found["metric"], found["n_rows"], found["rows"]) == ("accuracy", 4, "rows of rows.csv")
    write_csv(rows, ["text", "label"], [["a good film", "god"], ["a bad film", "bad"]])
    result = call("extract", made.base, made.merged, "--rank", 1, "-o", tmp_path / "c", "--data", rows)
    assert result.exit_code == 1
    assert "did you mean `good`" in " ".join(result.stderr.split())
    write_csv(rows, ["text", "label"], [["a good film", "2"], ["a bad film", "0"]])
    result = call("squeeze", made.adapter, "--rank", 1, "-o", tmp_path / "e", "--data", rows)
    assert "accuracy on 2 rows of rows.csv" in result.stdout, result.output
    whole = find_tuned(run_folder, "full")
    base = load_tuned(whole)[2]["model"]["name"]
    result = call("extract", base, whole, "--rank", 4, "-o", tmp_path / "d")
    assert "accuracy on" in result.stdout
    source = find_tuned(run_folder, "lora(rank=2)")
    result = call("squeeze", source, "--rank", 1, "-o", tmp_path / "small", "--json")
    found = json.loads(result.stdout)
    assert found["score"]["metric"] == "accuracy"
    assert len(found["score"]["values"]) == 2
