"""`deltaproof diagnose` on tuned models as they are saved, on adapters and on folders that do not fit."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from deltaproof.backbones import load_backbone, save_tiny
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.records.spec import Spec
from deltaproof.saving.folder import save_tuned
from deltaproof.tasks.text import TextTask
from deltaproof.testing.bench import Bench
from deltaproof.theory.diagnose import diagnose
from deltaproof.theory.updates import read_update
from small import call


@pytest.fixture(scope="module")
def trained(bert, tmp_path_factory):
    """Run folders by method, each with its `best`, as `train` leaves them."""
    task = TextTask("classification", ("neg", "pos"), ("accuracy",), 16)
    folders = {}
    for label in ("lora(rank=2)", "full", "bitfit", "prompt_tuning(num_virtual_tokens=2)"):
        backbone = load_backbone(str(bert), "classification", 2, labels=task.labels)
        tuned = attach(backbone, method_from(label))
        Bench().train(tuned, n_steps=3, learning_rate=1e-2)
        model = {"name": "moved away since", "fingerprint": backbone.fingerprint, "revision": ""}
        spec = Spec(tuned.method.label, tuned.method.to_dict(), model, task.to_json(), {}, {}, seed=0, stage="final")
        folders[label] = tmp_path_factory.mktemp("runs")
        save_tuned(tuned, task, spec, folders[label] / "best")
    return folders


def report(*arguments):
    result = call("diagnose", *arguments, "--json", "--device", "cpu")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return json.loads(result.stdout)


def test_a_full_update_is_reported_matrix_by_matrix_and_role_by_role(bert, trained):
    found = report(bert, trained["full"])
    assert [row["role"] for row in found["matrices"] if row["layer"] == 1] == [
        "attention_out", "key", "query", "value", "ffn_in", "ffn_out",
    ]  # fmt: skip
    before, after = load_file(bert / "model.safetensors"), load_file(trained["full"] / "best" / "model.safetensors")
    for row in found["matrices"]:
        change = after[f"bert.{row['name']}"].double() - before[row["name"]].double()
        assert row["norm_f"] == pytest.approx(float(change.norm()), rel=1e-5)
        assert row["norm_2"] == pytest.approx(float(torch.linalg.matrix_norm(change, 2)), rel=1e-5)
        base = before[row["name"]].double()
        assert row["base_norm_2"] == pytest.approx(float(torch.linalg.matrix_norm(base, 2)), rel=1e-5)
        assert row["ratio_2"] == pytest.approx(row["norm_2"] / row["base_norm_2"])
        assert 1 <= row["r90"] <= min(row["shape"])
        assert row["stored_as"] == "float32"
        assert sum(row["increments"]["histogram"]["counts"]) == change.numel()
    total = sum(row["norm_f"] ** 2 for row in found["matrices"]) ** 0.5
    assert found["summary"]["norm_f"] == pytest.approx(total)
    assert found["summary"]["n_matrices"] == len(found["matrices"])
    assert sum(each["n_matrices"] for each in found["summary"]["by_role"].values()) == len(found["matrices"])
    assert len(found["vectors"]) > 20
    assert found["notes"] == ["2 tensor(s) only in the tuned model, new there: `classifier.bias`, `classifier.weight`"]


def test_a_low_rank_update_is_seen_as_one_and_as_the_adapter_it_is_saved_as(bert, trained, tmp_path):
    saved = report(bert, trained["lora(rank=2)"])
    assert max(row["r90"] for row in saved["matrices"]) <= 2
    assert any("of low rank: no matrix has more than 2 singular values" in finding for finding in saved["findings"])
    assert saved["summary"]["energy"]["2"] == pytest.approx(1)
    shutil.copytree(trained["lora(rank=2)"] / "best", tmp_path / "adapter")
    (tmp_path / "adapter" / "deltaproof.json").unlink()
    adapter = report(bert, tmp_path / "adapter")
    assert [row["name"] for row in adapter["matrices"]] == [row["name"] for row in saved["matrices"]]
    for one, other in zip(adapter["matrices"], saved["matrices"], strict=True):
        assert one["singular_values"] == pytest.approx(other["singular_values"], rel=1e-4)
        assert one["intruders"]["cosines"] == pytest.approx(other["intruders"]["cosines"], rel=1e-3, abs=1e-3)


def test_two_updates_are_compared_direction_by_direction(bert, trained):
    found = report(bert, trained["full"], "--against", trained["lora(rank=2)"], "--no-intruders")
    compared = [row for row in found["matrices"] if row["against"] is not None]
    assert len(compared) == 12
    for row in compared:
        assert -1 <= row["against"]["cosine"] <= 1
        captured = list(row["against"]["captured"].values())
        assert captured == sorted(captured)
        assert row["against"]["by_chance"][0][0] == 1 / row["shape"][0]
    assert all(row["intruders"] is None for row in found["matrices"])
    assert "4 of 16 changed matrices are unchanged or absent in the other update" in found["notes"]
    assert any(finding.startswith("against the other update: median cosine") for finding in found["findings"])
    itself = report(bert, trained["full"], "--against", trained["full"], "--no-intruders")
    for row in itself["matrices"]:
        assert row["against"]["cosine"] == pytest.approx(1)
        grid = row["against"]["overlap_out"]
        assert all(grid[at][at] == pytest.approx(1) for at in range(len(grid)))


def test_the_table_has_a_line_per_matrix_and_says_what_it_means(bert, trained):
    result = call("diagnose", bert, trained["full"] / "best", "--against", trained["lora(rank=2)"])
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert sum(line[:2] == ["1", "query"] for line in lines) == 1
    for words in (
        "r90 (noise)",
        "intruders",
        "cosine",
        "- rank 8 in every matrix would hold",
        "note: 2 tensor(s) only",
    ):
        assert words in result.stdout


def test_an_update_of_biases_alone_is_told_from_none_at_all(bert, trained):
    found = report(bert, trained["bitfit"])
    assert found["matrices"] == []
    assert found["findings"] == [f"no weight matrix changed, {len(found['vectors'])} bias and norm vectors did"]
    assert all(vector["norm"] > 0 for vector in found["vectors"])
    same = report(bert, bert)
    assert same["findings"] == ["no weight matrix changed, nor did anything else"]
    assert (same["matrices"], same["vectors"]) == ([], [])
    assert same["n_unchanged"] == len(load_file(bert / "model.safetensors"))
    assert "no weight matrix changed" in call("diagnose", bert, bert).stdout


def test_a_report_goes_to_a_file(bert, trained, tmp_path):
    result = call("diagnose", bert, trained["bitfit"], "--json", "--out", tmp_path / "report.json", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert json.loads((tmp_path / "report.json").read_text())["matrices"] == []


def test_errors_are_one_paragraph_and_a_code(bert, trained, tmp_path):
    other = save_tiny("bert", tmp_path / "other", seed=1)
    cases = {
        (bert, tmp_path / "nowhere"): (1, "folder must exist"),
        (tmp_path / "nowhere", bert): (1, "folder must exist"),
        (save_tiny("gpt2", tmp_path / "gpt2"), bert): (1, "must be of one architecture"),
        (other, trained["lora(rank=2)"]): (1, "the model must be the one that"),
        (bert, trained["prompt_tuning(num_virtual_tokens=2)"]): (2, "a spectrum needs a change of weights"),
    }
    for (base, tuned), (code, words) in cases.items():
        result = call("diagnose", base, tuned)
        assert (result.exit_code, result.stdout) == (code, ""), result.output
        assert words in result.stderr
        assert "Traceback" not in result.stderr
    assert call("diagnose", bert).exit_code == 2


def test_a_full_model_tuned_from_other_weights_is_noted(trained, tmp_path):
    other = save_tiny("bert", tmp_path / "other", seed=1)
    assert "was tuned from other weights" in report(other, trained["full"])["notes"][-1]


def changed(bert, folder, change):
    shutil.copytree(bert, folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            tensors[name] = change(tensor, len(name))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def noise(tensor, seed):
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))


def test_noise_is_called_noise(bert, tmp_path):
    noisy = changed(bert, tmp_path / "noisy", lambda tensor, seed: tensor + 0.1 * noise(tensor, seed))
    found = report(bert, noisy)
    assert any("rank cannot be told from noise" in finding for finding in found["findings"])
    assert found["summary"]["n_like_noise"] >= 0.8 * len(found["matrices"])
    assert found["summary"]["median_r90_over_noise"] == pytest.approx(1, abs=0.1)


def test_an_update_drowned_in_bf16_is_warned_of(bert, tmp_path):
    small = changed(bert, tmp_path / "small", lambda tensor, seed: tensor + 0.003 * tensor.std() * noise(tensor, seed))
    stored = changed(small, tmp_path / "stored", lambda tensor, seed: tensor.bfloat16())
    words = report(bert, stored)["findings"]
    assert any(
        "stored in bfloat16, rounding is" in finding and "drowns its ranks" in finding for finding in words
    ), words  # fmt: skip
    kept = report(bert, small)["findings"]
    assert any("folded into bfloat16 weights, rounding would be" in finding for finding in kept)


def test_weights_that_are_not_finite_are_named(bert, tmp_path):
    broken = changed(bert, tmp_path / "broken", lambda tensor, seed: tensor * float("nan"))
    result = call("diagnose", bert, broken)
    assert result.exit_code == 1
    assert "holds NaN or infinity" in result.stderr


def test_progress_names_every_tensor(bert, trained):
    seen = []
    deltas = read_update(str(bert), str(trained["full"]))
    diagnose(deltas, with_intruders=False, progress=lambda done, n, name: seen.append((done, n, name)))
    assert seen[-1] == (len(deltas), len(deltas), "")
    assert [name for _, _, name in seen[:-1]] == list(deltas)
