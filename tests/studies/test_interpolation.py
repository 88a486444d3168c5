"""Between base and tuned model: both ends are known, the head is said, what was asked is not asked again."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from deltaproof import compare
from deltaproof.backbones import load_backbone
from deltaproof.cli.main import app
from deltaproof.data.ledger import openings
from deltaproof.data.run_folder import read_dataset
from deltaproof.evaluation.predict import predict
from deltaproof.metrics import METRICS
from deltaproof.records.store import Store, read_json
from deltaproof.saving.folder import load_tuned
from deltaproof.studies import interpolation
from deltaproof.studies.interpolation import Line, Settings, interpolate
from deltaproof.studies.kept_models import Bed, kept_models
from deltaproof.studies.path import path
from small import write_csv, write_reviews


def call(*arguments):
    return CliRunner().invoke(app, ["interpolate", *(str(argument) for argument in arguments), "--device", "cpu"])


@pytest.fixture
def run(kept_run, tmp_path):
    return shutil.copytree(kept_run, tmp_path / "run", symlinks=True)


@pytest.fixture
def shifted(tmp_path):
    """Reviews that name things the training never saw."""
    rows = [[f"that {word} jumps over {at}", good] for at, (word, good) in enumerate([("bad", "0"), ("good", "1")] * 8)]
    return write_csv(tmp_path / "shifted.csv", ["sentence", "verdict"], rows)


def options(shifted):
    return ("--shift", shifted, "--text", "sentence", "--label", "verdict", "--label-names", "0=neg,1=pos")


@pytest.mark.parametrize("method", ["full", "lora(rank=2)"])
def test_the_curve_is_the_one_of_the_study_along_the_change(run, method):
    curve = interpolate(run, Settings((0.0, 0.25, 0.5, 0.75, 1.0)), method)
    bed = Bed(Store(run), torch.device("cpu"))
    along = path(bed, [method], (0.0, 0.25, 0.5, 0.75, 1.0))["methods"][0]
    at = along["keys"].index(curve.kept.key)
    clean = curve.entry["sets"][0]
    assert clean["score"] == pytest.approx(along["score_by_seed"][at], abs=1e-12)
    record = bed.store.find(curve.kept.key)
    assert clean["score"][-1] == pytest.approx(record.validation["accuracy"], abs=1e-6)
    assert curve.entry["head"] == "kept"


def test_differences_are_paired_against_the_tuned_model(run, shifted):
    said = json.loads(call(run, "--method", "full", *options(shifted), "--alphas", "0,0.5", "--json").stdout)
    assert said["alphas"] == [0, 0.5, 1]
    assert [(one["name"], one["role"], one["n"]) for one in said["sets"]] == [
        ("validation", "validation", said["sets"][0]["n"]), ("shifted", "shift", 16),
    ]  # fmt: skip
    for one in said["sets"]:
        assert one["difference"][-1] is None
        for at in (0, 1):
            gap = one["difference"][at]
            assert gap["difference"] == pytest.approx(one["score"][at] - one["score"][-1])
            assert gap["low"] <= gap["difference"] <= gap["high"]
    study = read_json(run / "studies" / "interpolation.json")
    assert study["models"][0]["sets"] == said["sets"]
    assert (study["metric"], study["unit"]) == ("accuracy", "fraction")


def test_what_was_answered_is_not_asked_again(run, shifted, monkeypatch):
    first = json.loads(call(run, *options(shifted), "--alphas", "0,0.4", "--json").stdout)
    asked = []
    own = interpolation.Bed.answers
    monkeypatch.setattr(interpolation.Bed, "answers", lambda self, *a: asked.append(1) or own(self, *a))
    assert json.loads(call(run, *options(shifted), "--alphas", "0,0.4", "--json").stdout) == first
    assert asked == []
    call(run, *options(shifted), "--alphas", "0,0.4,0.7")
    assert len(asked) == 2  # one new alpha on two sets


def test_the_choices_follow_their_rules(run):
    entry = {
        "alphas": [0.0, 0.5, 0.8, 1.0],
        "sets": [
            {"role": "validation", "name": "validation", "score": [0.5, 0.9, 0.9, 0.85], "loss": [1.0, 0.3, 0.4, 0.2]},
            {"role": "shift", "name": "x", "score": [0.9, 0.6, 0.7, 0.5], "loss": [1.0, 1.0, 1.0, 1.0]},
        ],
    }
    found = interpolation._choices(entry, higher_is_better=True)
    assert found == {"best_clean": 0.5, "without_regression": {"x": 0.8}}  # 0 is best there and loses on validation
    errors = {**entry, "sets": [{**one, "score": [-value for value in one["score"]]} for one in entry["sets"]]}
    assert interpolation._choices(errors, higher_is_better=False) == found


def test_the_sealed_rows_are_looked_at_once_and_only_where_asked_for(run, shifted):
    fingerprint = read_dataset(run / "data").test.fingerprint
    before = openings(fingerprint)
    call(run, "--alphas", "0.5", *options(shifted))
    assert openings(fingerprint) == before
    for _ in range(2):
        said = json.loads(call(run, "--alphas", "0.5", *options(shifted), "--test", "--json").stdout)
    new = openings(fingerprint)[len(before) :]
    assert [opening.reader for opening in new] == [f"interpolation/{said['key']}"]
    assert [one["role"] for one in said["sets"]] == ["validation", "test", "shift"]
    record = Store(run).find(said["key"])
    assert said["sets"][1]["score"][-1] == pytest.approx(record.test["accuracy"], abs=1e-6)


def test_a_written_model_lies_on_the_line_and_is_a_run(run, tmp_path):
    result = call(run, "--method", "lora(rank=2)", "--alphas", "0", "--alpha", "0.3", "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    (written,) = said["written"]
    assert (written["alpha"], written["folder"]) == (0.3, "out")
    record = Store(run).find(written["key"])
    assert (record.spec.stage, record.spec.parents) == ("merging", (said["key"],))
    assert record.validation["accuracy"] == said["sets"][0]["score"][said["alphas"].index(0.3)]
    tuned, task, spec = load_tuned(run / "tuned" / said["key"])
    untuned = load_backbone(spec["model"]["name"], task.kind, 2, seed=spec["seed"]).model
    end, start = dict(tuned.merge().named_parameters()), dict(untuned.named_parameters())
    made = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    for name, value in made.named_parameters():
        on_top = name.startswith("classifier")
        expected = end[name] if on_top else start[name] + 0.3 * (end[name] - start[name])
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)
    again, task, _ = load_tuned(tmp_path / "out")
    split, tokenizer = read_dataset(run / "data").validation, again.backbone.tokenizer
    outputs = predict(again, task, task.encode(tokenizer, split), tokenizer.pad_token_id)
    assert METRICS["accuracy"].score(split.targets, outputs) == record.validation["accuracy"]


def test_a_head_that_the_base_has_of_its_own_moves_too(tmp_path, bert):
    """The base is a classifier for the same labels: tuned once more, both ends have a head."""
    data = write_reviews(tmp_path / "reviews.csv", 60)
    first = AutoModelForSequenceClassification.from_pretrained(
        bert, num_labels=2, id2label={0: "neg", 1: "pos"}, label2id={"neg": 0, "pos": 1}
    )
    first.save_pretrained(tmp_path / "classifier")
    for file in bert.iterdir():
        if file.name.startswith(("tokenizer", "vocab", "special")):
            shutil.copy(file, tmp_path / "classifier")
    compare(model=str(tmp_path / "classifier"), data=str(data), methods=["full"], out=tmp_path / "run", seeds=1,
            trials=1, keep="best", baselines=False, max_length=16, training={"epochs": 1, "batch_size": 8},
            learning_rates=[3e-3], precision="fp32", device="cpu")  # fmt: skip
    curve = interpolate(tmp_path / "run", Settings((0.0, 1.0)))
    assert curve.entry["head"] == "interpolated"
    (kept,) = kept_models(Store(tmp_path / "run"))
    at = {name: value.detach().clone() for name, value in Line(kept).at(0.0).model.named_parameters()}
    for name, value in first.named_parameters():
        torch.testing.assert_close(at[name], value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--alphas", "0,2"), "`0 <= alpha <= 1` must hold, got 2"),
        (("--alphas", "a"), "`--alphas` takes numbers separated by commas"),
        (("--alpha", "0.5"), "`--alpha` says which model `--out` writes"),
        (("--method", "prefix(length=2)"), "only a change of weights can be taken in part"),
    ],
)
def test_what_cannot_be_says_why(arguments, message, kept_run):
    result = call(kept_run, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_model_outside_of_its_run_folder_has_no_rows(kept_run, tmp_path):
    shutil.copytree((kept_run / "best").resolve(), tmp_path / "alone")
    result = call(tmp_path / "alone")
    assert (result.exit_code, "does not lie in its run folder" in result.stderr) == (1, True)


def test_the_text_shows_the_whole_curve(run, shifted):
    text = call(run, *options(shifted), "--alphas", "0,0.5,1").stdout
    for words in ("W0 + alpha (W1 - W0)", "shifted (16)", "best on validation", "looked at on these very rows"):
        assert words in text
    assert [line.split()[0] for line in text.splitlines() if line[:5].strip().replace(".", "").isdigit()] == [
        "0", "0.5", "1",
    ]  # fmt: skip
    assert np.isfinite(read_json(run / "studies" / "interpolation.json")["models"][0]["sets"][1]["loss"]).all()
