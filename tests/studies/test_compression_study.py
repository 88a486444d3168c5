"""The compression study on a real small run: numbers that other ways to them give too, one look at the test rows."""

import json
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deltaproof.cli.main import app
from deltaproof.compression.folder import compress_folder, sweep_folder
from deltaproof.compression.restore import load_compressed
from deltaproof.compression.trial import Trial, open_trial
from deltaproof.errors import ConfigError, RecordError
from deltaproof.evaluation.predict import predict
from deltaproof.metrics import METRICS, per_unit
from deltaproof.records.store import Store, read_predictions
from deltaproof.studies.compression import compression
from deltaproof.studies.compression_findings import gain_retained, retained
from deltaproof.studies.compression_points import Settings, _read
from deltaproof.studies.compression_text import compression_text, sentences
from deltaproof.studies.dropped import dropped, taken_apart
from deltaproof.studies.kept_models import Bed, kept_models
from deltaproof.studies.same_head import below_the_head

SETTINGS = Settings(densities=(0.2, 0.5), alphas=("auto", 2.0))


@pytest.fixture(scope="module")
def made(kept_run, tmp_path_factory):
    """A copy of the run, what the study found there, and who looked at the test rows."""
    folder = tmp_path_factory.mktemp("compression") / "run"
    shutil.copytree(kept_run, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTAPROOF_HOME", str(folder.parent / "a ledger that nobody has written to"))
        found = compression(folder, SETTINGS)
        readers = [opening.reader for opening in Bed(Store(folder), torch.device("cpu")).dataset.test.openings()]
    return folder, found, readers


def test_updates_are_studied_and_other_methods_are_named_with_the_reason(made):
    folder, found, _ = made
    assert [entry["label"] for entry in found["contestants"]] == ["full", "lora(rank=2)"]
    assert list(found["left_out"]) == ["bitfit", "prefix(length=2)"]
    assert "has none" in found["left_out"]["bitfit"]
    assert json.loads((folder / "studies" / "compression.json").read_text(), parse_constant=pytest.fail) == found
    assert all(entry["n_seeds"] == 2 for entry in found["contestants"])


def test_validation_scores_are_those_of_a_sweep(made):
    folder, found, _ = made
    for model in found["models"][1:3]:
        swept = sweep_folder(folder / "tuned" / model["key"], SETTINGS.densities, SETTINGS.alphas)
        assert model["validation"]["before"] == swept.before
        assert model["validation"]["without"] == swept.without
        by_setting = {(point.density, str(point.alpha)): point for point in swept.points}
        for at in model["densities"]:
            for ours, theirs in (("auto", "auto"), ("2", "2.0"), ("pruned", "pruned")):
                point = by_setting[at["density"], theirs]
                assert at["points"][f"per_tensor:{ours}"]["validation"] == point.score


def test_answers_on_the_test_rows_are_those_of_the_file_that_compress_writes(made, tmp_path):
    folder, found, _ = made
    bed = Bed(Store(folder), torch.device("cpu"))
    rows = bed.dataset.test.open("a test")
    for model in found["models"][::3]:
        at = model["densities"][0]
        scope, alpha = _read(at["chosen"])
        path = tmp_path / f"{model['key']}.dpz"
        report = compress_folder(folder / "tuned" / model["key"], path, at["density"], alpha, scope)
        assert at["sizes"]["file_bytes"] == path.stat().st_size == report.sizes.file_bytes
        tuned, task, spec = load_compressed(path)
        tokenizer = tuned.backbone.tokenizer
        training = spec["training"]
        outputs = predict(
            tuned, task, task.encode(tokenizer, rows), tokenizer.pad_token_id, 2 * training["batch_size"],
            training["precision"],
        )  # fmt: skip
        stored = read_predictions(
            folder / "compression" / "init" / model["key"] / f"density-0.2-{at['chosen'].replace(':', '-')}.parquet", ""
        )
        np.testing.assert_array_equal(stored.outputs, outputs)


def test_what_is_chosen_is_best_on_validation_and_of_equals_the_first(made):
    _, found, _ = made
    for model in found["models"]:
        for at in model["densities"]:
            scores = [at["points"][name]["validation"] for name in SETTINGS.choices]
            there = [-1 if score is None else score for score in scores]
            assert at["chosen"] == SETTINGS.choices[int(np.argmax(there))]


def test_each_density_looks_once_at_the_test_rows_and_each_look_is_entered(made):
    _, found, readers = made
    for model in found["models"]:
        own = [reader for reader in readers if reader.startswith(model["key"])]
        assert len(own) == 2 + 1 + (model["label"] == "full")
        assert len(set(own)) == len(own)


def test_scores_and_differences_follow_from_the_answers(made):
    folder, found, _ = made
    entry = found["contestants"][0]
    models = [model for model in found["models"] if model["label"] == "full"]
    before = np.stack([per_unit(METRICS["accuracy"], Store(folder).predictions(model["key"])) for model in models])
    after = []
    for model in models:
        name = f"density-0.5-{model['densities'][1]['chosen'].replace(':', '-')}.parquet"
        answers = read_predictions(folder / "compression" / "init" / model["key"] / name, "")
        after.append(per_unit(METRICS["accuracy"], answers))
    assert entry["densities"]["0.5"]["difference"] == pytest.approx((np.stack(after) - before).mean())
    assert entry["densities"]["0.5"]["retained"]["mean"] == pytest.approx(np.stack(after).mean() / before.mean())
    assert entry["scores"]["before"] == pytest.approx(before.mean(axis=1))


def test_a_study_that_was_killed_goes_on_and_ends_with_the_same(kept_run, made, tmp_path, monkeypatch):
    _, whole, _ = made
    shutil.copytree(kept_run, tmp_path / "run")
    real, calls = Trial.answers, []

    def killed(self, rows):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return real(self, rows)

    monkeypatch.setattr(Trial, "answers", killed)
    with pytest.raises(KeyboardInterrupt):
        compression(tmp_path / "run", SETTINGS, ["full"])
    assert not (tmp_path / "run" / "studies" / "compression.json").exists()
    n_before = len(calls)
    again = compression(tmp_path / "run", SETTINGS, ["full"])
    first = [model for model in whole["models"] if model["label"] == "full"]
    assert again["models"] == first
    n_all = 2 * (5 + 2 * (len(SETTINGS.names) + 1))  # the ends on both splits, then points and looks
    assert len(calls) - n_before == n_all - (9 - 1)
    monkeypatch.setattr(Trial, "answers", None)
    assert compression(tmp_path / "run", SETTINGS, ["full"]) == again


def test_the_whole_update_drops_nothing_and_a_silent_one_everything(made):
    folder, _, _ = made
    for kept in kept_models(Store(folder), ["full", "lora(rank=2)"])[::2]:
        source, trial = open_trial(kept.folder)
        base = below_the_head(kept.load_base())
        whole = taken_apart(trial.tuned, base)
        same = dropped(whole, trial.tuned, base)
        assert same["relative_error"] == 0
        assert same["cosine"] == pytest.approx(1)
        assert same["beside"] == pytest.approx(0, abs=1e-5)
        assert [at["left"] for at in same["directions"]] == pytest.approx([1] * len(same["directions"]), abs=1e-3)
        assert sum(role["energy"] for role in same["roles"]) == pytest.approx(1)
        trial.put(
            (part.name, base[part.name] if part.name in base else source.tensor(part)) for part in source.parts
        ) if kept.label == "full" else trial.put(_silenced(source))
        gone = dropped(whole, trial.tuned, base)
        assert gone["relative_error"] == pytest.approx(1)
        assert [at["left"] for at in gone["directions"]] == pytest.approx([0] * len(gone["directions"]))


def _silenced(source):
    return [(part.name, torch.zeros_like(source.tensor(part)) if part.factor == "B" else source.tensor(part))
            for part in source.parts]  # fmt: skip


def test_what_is_left_of_a_direction_is_what_was_planted(made):
    """Half of the first direction and twice the second: the others are gone, and nothing is new."""
    folder, _, _ = made
    kept = kept_models(Store(folder), ["full"])[0]
    _, trial = open_trial(kept.folder)
    base = below_the_head(kept.load_base())
    whole = taken_apart(trial.tuned, base)
    parameters = dict(trial.tuned.backbone.model.named_parameters())
    with torch.no_grad():
        for one in whole:
            u, s, v = one.directions
            change = 0.5 * s[0] * torch.outer(u[:, 0], v[0]) + 2 * s[1] * torch.outer(u[:, 1], v[1])
            name = next(name for name in parameters if name.removeprefix("bert.") == one.name)
            change = change.T if one.role == "embedding" else change
            parameters[name].copy_(base[name] + change)
    found = dropped(whole, trial.tuned, base)
    assert [at["left"] for at in found["directions"][:3]] == pytest.approx([0.5, 2, 0], abs=1e-3)
    assert found["beside"] == pytest.approx(0, abs=1e-4)


def test_retained_is_a_ratio_whose_interval_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(3)
    n_hit = 0
    for _ in range(300):
        before = (rng.random((1, 400)) < 0.8).astype(float)
        after = np.where(rng.random((1, 400)) < 0.9, before, rng.random((1, 400)) < 0.5).astype(float)
        found = retained(after, before)
        truth = (0.9 * 0.8 + 0.1 * 0.5) / 0.8
        n_hit += found["low"] <= truth <= found["high"]
    assert 0.91 <= n_hit / 300 <= 0.985


def test_no_share_of_a_gain_is_told_where_no_gain_is_shown():
    rng = np.random.default_rng(4)
    before, start = (rng.random((1, 200)) < 0.5).astype(float), (rng.random((1, 200)) < 0.5).astype(float)
    assert gain_retained(before, before, start, 1) is None
    better = (rng.random((1, 200)) < 0.95).astype(float)
    assert gain_retained(better, better, start, 1)["mean"] == 1
    assert gain_retained(start, better, start, 1)["mean"] == pytest.approx(0)
    assert retained(before, np.zeros((1, 200))) is None


def test_the_text_names_every_density_and_denominator_and_a_sentence_each_contestant(made):
    _, found, _ = made
    text = compression_text(found)
    for word in ("full, accuracy", "lora(rank=2), accuracy", "bitfit: left out", "stored", "fp16", "fp32", "retained"):
        assert word in text
    assert len(sentences(found)) == 2


def test_a_refused_scope_leaves_the_other_and_a_run_without_updates_says_what_it_needs(kept_run, tmp_path):
    shutil.copytree(kept_run, tmp_path / "run")
    with pytest.raises(RecordError, match="needs updates that can be compressed"):
        compression(tmp_path / "run", SETTINGS, ["bitfit"])
    with pytest.raises(ConfigError, match="density"):
        compression(tmp_path / "run", Settings(densities=(2.0,)))


def test_the_command_takes_one_task_at_a_time(made, tmp_path):
    folder, found, _ = made
    options = ["compress", str(folder), "--study", "--density", "0.2,0.5", "--alpha", "auto,2", "--device", "cpu"]
    told = CliRunner().invoke(app, [*options, "--json", "-q"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == found
    both = CliRunner().invoke(app, [*options, "-o", str(tmp_path / "x.dpz")])
    assert both.exit_code == 2
    assert "no two" in both.output


def test_scales_may_be_chosen_on_fewer_rows_and_all_test_rows_are_asked_all_the_same(kept_run, tmp_path):
    shutil.copytree(kept_run, tmp_path / "run")
    few = Settings(densities=(0.5,), alphas=("auto",), scopes=("per_tensor",), rows=6)
    found = compression(tmp_path / "run", few, ["lora(rank=2)"])
    bed = Bed(Store(tmp_path / "run"), torch.device("cpu"))
    for model in found["models"]:
        score = model["densities"][0]["points"]["per_tensor:auto"]["validation"]
        assert (6 * score) % 1 == pytest.approx(0)
    assert found["contestants"][0]["densities"]["0.5"]["n_units"] == bed.dataset.test.n_rows
    with pytest.raises(ConfigError, match="rows >= 2"):
        compression(tmp_path / "run", Settings(rows=1))
