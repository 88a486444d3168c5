"""`deltaproof merge`: a folder that answers as what was measured, and a run in every expert's folder."""

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from deltaproof.cli.main import app
from deltaproof.compression.folder import Options, compress_folder
from deltaproof.data.ledger import openings
from deltaproof.data.run_folder import read_dataset
from deltaproof.evaluation.predict import predict
from deltaproof.experiments.answer import answer
from deltaproof.metrics import METRICS
from deltaproof.records.store import Store, read_json
from deltaproof.saving.folder import load_tuned
from deltaproof.studies import merging


def call(*arguments):
    return CliRunner().invoke(app, ["merge", *(str(argument) for argument in arguments), "--device", "cpu"])


@pytest.fixture
def runs(mood, kind, lora, tmp_path):
    """Copies that a test may write into."""
    return [shutil.copytree(one, tmp_path / one.name, symlinks=True) for one in (mood, kind, lora)]


def test_a_merge_is_a_run_in_the_folder_of_every_expert(runs, tmp_path):
    result = call(*runs, "--how", "task_arithmetic", "--weights", "0.5,0.4,1", "-o", tmp_path / "merged", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["written"]["holds"]
    for run, entry in zip(runs, said["runs"], strict=True):
        study = read_json(run / "studies" / "merging.json")
        assert study["merges"] == [{key: value for key, value in entry.items() if key not in ("run", "metric")}]
        record = Store(run).find(entry["key"])
        assert record.spec.stage == "merging"
        assert record.spec.parents == tuple((one / "best").resolve().name for one in runs)
        assert (record.test, entry["test"]) == ({}, None)
        assert record.validation["accuracy"] == entry["validation"]["merged"]
        assert [one["is_of_this_task"] for one in entry["experts"]] == [one == run for one in runs]
        assert openings(read_dataset(run / "data").test.fingerprint) == []


def test_every_head_of_the_folder_scores_what_its_record_says(runs, tmp_path):
    result = call(*runs, "--how", "ties", "--density", "0.4", "--head", "kind", "-o", tmp_path / "made", "--json")
    assert result.exit_code == 0, result.output
    shutil.move(tmp_path / "made", tmp_path / "merged")  # as a whole it can be moved
    said = json.loads(result.stdout)
    assert said["written"]["heads"] == {"kind": ".", "mood": "heads/mood", "lora": "heads/lora"}
    for run, entry in zip(runs, said["runs"], strict=True):
        folder = tmp_path / "merged" / said["written"]["heads"][run.name]
        tuned, task, spec = load_tuned(folder)
        split = read_dataset(run / "data").validation
        tokenizer = tuned.backbone.tokenizer
        outputs = predict(tuned, task, task.encode(tokenizer, split), tokenizer.pad_token_id, 32)
        assert METRICS["accuracy"].score(split.targets, outputs) == entry["validation"]["merged"]
        assert spec["stage"] == "merging"
        data = run / "texts.csv"
        data.write_text("text\na good fox\n")
        assert answer(folder, str(data), device="cpu")["answers"][0]["label"] in task.labels
    gate = CliRunner().invoke(app, ["gate", str(tmp_path / "merged"), str(tmp_path / "merged" / "heads" / "lora")])
    assert gate.exit_code == 0, gate.output


def test_the_sealed_rows_are_opened_once_and_the_difference_is_paired(runs):
    fingerprint = read_dataset(runs[0] / "data").test.fingerprint
    arguments = (*runs[:2], "--weights", "1,0", "--test", "--json")
    said = json.loads(call(*arguments).stdout)
    entry = said["runs"][0]
    assert [opening.reader for opening in openings(fingerprint)] == [entry["key"]]
    store = Store(runs[0])
    predictions = store.predictions(entry["key"])
    assert entry["test"]["merged"] == METRICS["accuracy"].score(predictions.targets, predictions.outputs)
    assert store.find(entry["key"]).test["accuracy"] == entry["test"]["merged"]
    expert, base = entry["compared"]
    assert (expert["name"], expert["kind"], base["kind"]) == ("mood", "expert", "base")
    assert expert["difference"]["test"]["difference"] == 0  # all of the weight is on it
    assert base["difference"]["test"]["difference"] == pytest.approx(entry["test"]["merged"] - base["test"])
    assert json.loads(call(*arguments).stdout) == said
    assert len(openings(fingerprint)) == 1


def test_a_merge_that_was_scored_is_not_scored_again(runs, monkeypatch, tmp_path):
    arguments = (*runs[:2], "--how", "ties", "--json")
    said = json.loads(call(*arguments).stdout)
    monkeypatch.setattr(merging, "write_merge", lambda *a, **b: 1 / 0)
    monkeypatch.setattr(merging.Ground, "answers", lambda *a, **b: 1 / 0)
    again = call(*arguments)
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout) == said
    assert "scored before, record" in again.stderr
    assert call(*arguments, "-o", tmp_path / "late", "--quiet").exit_code == 0
    (entry,) = read_json(runs[0] / "studies" / "merging.json")["merges"]
    assert (entry["folder"], said["runs"][0]["folder"]) == ("late", None)


def test_experts_of_one_task_from_two_runs_are_scored_on_both_under_one_head(runs, make_run, tmp_path):
    again = shutil.copytree(make_run("again", ("neg", "pos"), seed=3), tmp_path / "again", symlinks=True)
    said = json.loads(call(runs[0], again, "--json").stdout)
    assert said["heads"] == {"mood": ["mood", "again"]}
    assert [(run["head"], run["compared"][0]["name"]) for run in said["runs"]] == [
        ("mean of mood, again", "mood"), ("mean of mood, again", "again"),
    ]  # fmt: skip


def test_weights_are_searched_on_validation_and_a_search_that_was_stopped_goes_on(runs, monkeypatch):
    arguments = (*runs[:2], "--how", "task_arithmetic", "--weights", "auto", "--budget", "9", "--json")
    asked = []
    own = merging.Body.apply

    def stop_after(n):
        def apply(self, recipe):
            if len(asked) == n:
                raise KeyboardInterrupt
            asked.append(recipe.weights)
            own(self, recipe)

        return apply

    monkeypatch.setattr(merging.Body, "apply", stop_after(4))
    stopped = call(*arguments)
    assert (stopped.exit_code, "the same command goes on" in stopped.stderr) == (130, True)
    first = list(asked)
    monkeypatch.setattr(merging.Body, "apply", stop_after(-1))
    said = json.loads(call(*arguments).stdout)
    tried = [tuple(one["weights"]) for one in said["tried"]]
    assert tried[:4] == first
    assert asked[4:9] == tried[4:]
    assert said["chosen_on"] == "validation"
    best = max(said["tried"], key=lambda one: (one["value"], -one["loss"]))
    assert said["recipe"]["weights"] == best["weights"]
    scores = [run["validation"]["merged"] for run in said["runs"]]
    assert best["value"] == pytest.approx(np.mean(scores))  # all of the few rows were searched on


def test_a_search_turns_away_from_an_expert_that_spoils(runs, make_run, tmp_path):
    """One expert is noise beyond use, and knows nothing: what the others score must not suffer for it."""
    noise = make_run("noise", ("dull", "sharp"), noise=3.0, seed=11)
    said = json.loads(
        call(runs[0], noise, "--how", "task_arithmetic", "--weights", "auto", "--budget", "40", "--json").stdout
    )
    fixed = json.loads(call(runs[0], noise, "--how", "task_arithmetic", "--json").stdout)
    total = [sum(run["validation"]["merged"] for run in one["runs"]) for one in (said, fixed)]
    assert total[0] >= total[1]


def test_compressed_experts_are_scored_where_a_run_is_named(runs, tmp_path):
    files = []
    for run in runs[:2]:
        files.append(tmp_path / "packed" / "deep" / "deeper" / f"{run.name}.dpz")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        compress_folder(run, files[-1], 0.5, options=Options(with_scores=False))
    alone = call(*files)
    assert "no score: no expert lies in a run folder" in alone.stdout
    said = json.loads(call(*files, "--run", runs[0], "--run", runs[1], "--test", "--json").stdout)
    assert [one["name"] for one in said["runs"][0]["compared"]] == ["mood", "base"]
    record = Store(runs[0]).find(said["runs"][0]["key"])
    assert record.spec.parents[0] == (runs[0] / "best").resolve().name
    wrong = call(*files, "--run", runs[2])
    assert (wrong.exit_code, "has other data" in wrong.stderr) == (2, True)


def test_a_head_with_parts_inside_of_the_body_lies_beside_it_as_a_whole_model(make_run, base, tmp_path):
    """A base without a pooler, as masked language models are saved: every task trains a pooler of its own."""
    bare = shutil.copytree(base, tmp_path / "bare")
    tensors = load_file(bare / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if "pooler" not in name}
    assert len(kept) < len(tensors)
    save_file(kept, bare / "model.safetensors", {"format": "pt"})
    one = make_run("one", ("neg", "pos"), "lora(rank=2)", noise=0.3, seed=51, base=bare)
    other = make_run("other", ("no", "yes"), seed=52, base=bare)
    result = call(one, other, "--how", "task_arithmetic", "-o", tmp_path / "merged", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (tmp_path / "merged" / "heads" / "other" / "model.safetensors").is_file()
    for run, entry in zip((one, other), said["runs"], strict=True):
        tuned, task, _ = load_tuned(tmp_path / "merged" / said["written"]["heads"][run.name])
        split, tokenizer = read_dataset(run / "data").validation, tuned.backbone.tokenizer
        outputs = predict(tuned, task, task.encode(tokenizer, split), tokenizer.pad_token_id, 32)
        assert METRICS["accuracy"].score(split.targets, outputs) == entry["validation"]["merged"]


def test_a_merge_cut_to_a_rank_is_written_as_adapters_of_the_base(runs, tmp_path):
    result = call(runs[0], runs[2], "--how", "svd", "--rank", "3", "-o", tmp_path / "low", "--json")
    assert result.exit_code == 0, result.output
    config = read_json(tmp_path / "low" / "adapter_config.json")
    assert config["r"] == 3
    assert (tmp_path / "low" / "heads" / "lora" / "adapter_config.json").is_file()
    names = [gate["name"] for gate in json.loads(result.stdout)["written"]["gates"]]
    assert "reload equals memory" in names
    assert "lora: reload equals memory" in names


@pytest.mark.parametrize("method", ["full", "lora(rank=2)"])
def test_experts_are_composed_for_a_task_that_none_knows(method, runs, make_run, tmp_path):
    target = shutil.copytree(make_run("target", ("up", "down"), method, seed=21), tmp_path / "target", symlinks=True)
    arguments = (*runs[:2], "--for", target, "--examples", "24", "--budget", "8", "--json")
    result = call(*arguments, "--test", "-o", tmp_path / "composed")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    (entry,) = said["runs"]
    assert entry["head"] == "fitted on 24 examples"
    assert (entry["chosen_on"], entry["n_rows"]) == ("examples", 24)
    assert [(one["name"], one["kind"]) for one in entry["compared"]] == [
        ("mood", "body"), ("kind", "body"), ("base", "base"),
    ]  # fmt: skip
    assert said["tried"][0]["weights"] == [0, 0]
    assert all(abs(weight) <= 1.5 for one in said["tried"] for weight in one["weights"])
    assert len(openings(read_dataset(target / "data").test.fingerprint)) == 1
    tuned, task, _ = load_tuned(tmp_path / "composed")
    assert task.labels == ("down", "up")
    split = read_dataset(target / "data").validation
    tokenizer = tuned.backbone.tokenizer
    outputs = predict(tuned, task, task.encode(tokenizer, split), tokenizer.pad_token_id, 32)
    assert METRICS["accuracy"].score(split.targets, outputs) == entry["validation"]["merged"]


def test_an_expert_of_the_same_labels_lends_its_head(runs, make_run, tmp_path):
    target = shutil.copytree(make_run("same", ("neg", "pos"), seed=31), tmp_path / "same", symlinks=True)
    said = json.loads(call(*runs[:2], "--for", target, "--weights", "1,0.2", "--examples", "8", "--json").stdout)
    assert said["runs"][0]["head"] == "of mood"
    wrong = call(*runs[:2], "--for", target, "--examples", "3")
    assert (wrong.exit_code, "two for each label" in wrong.stderr) == (2, True)


def test_values_are_merged_scored_and_composed_for(runs, make_run, tmp_path):
    """Of errors the smaller is the better: in the search, in the differences, and for a head that is fitted."""
    numbers, target = (
        shutil.copytree(make_run(name, None, seed=seed), tmp_path / name, symlinks=True)
        for name, seed in (("numbers", 41), ("target", 43))
    )
    said = json.loads(call(runs[0], numbers, "--how", "task_arithmetic", "--weights", "auto", "--budget", "3",
                           "--test", "--json").stdout)  # fmt: skip
    run = said["runs"][1]
    assert run["metric"] == "rmse"
    for one in run["compared"]:
        worse = run["validation"]["merged"] > one["validation"]
        assert (one["difference"]["validation"]["difference"] < 0) == worse
    assert all(np.isfinite(one["value"]) for one in said["tried"])
    composed = call(*runs[:2], "--for", target, "--weights", "auto", "--examples", "20", "--budget", "5", "--json")
    assert composed.exit_code == 0, composed.output
    (entry,) = json.loads(composed.stdout)["runs"]
    assert entry["head"] == "fitted on 20 examples"
    spread = read_dataset(target / "data").validation.targets.std()
    assert entry["validation"]["merged"] < 1.5 * spread


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--how", "tise"), "did you mean `ties`"),
        (("--weights", "1,x"), "`--weights` takes numbers separated by commas"),
        (("--weights", "1,2,3"), "one weight for each of 2 experts, got 3"),
        (("--density", "0.1"), "a density is for ties, dare, dare_ties"),
        (("--head", "none", "-o", "new"), "`--head` must name an expert, got `none`; known: mood, kind"),
        (("-o", "."), "nothing is overwritten unasked"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_opened(arguments, message, runs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(merging, "Body", lambda *a, **b: 1 / 0)
    result = call(*runs[:2], *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_text_says_what_was_found_and_on_what(runs):
    text = call(*runs[:2], "--how", "ties", "--weights", "auto", "--budget", "3", "--test").stdout
    for words in (
        "ties of 2 experts of", "cosine of its update with", "weights chosen on validation rows, 3 evaluations",
        "test rows; head of mood", "the merge's difference (test rows, 95 %)", "a little too good", "record ",
    ):  # fmt: skip
        assert words in text
