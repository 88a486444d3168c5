"""PEFT's result files are ranked, and runs that cannot be told apart are named as ties."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint, proportions_ztest

from deltaproof.errors import RecordError
from deltaproof.interop.peft_results import read_peft_results, wilson_interval

N = 500
CORRECT = {"a/best": 300, "b/near": 285, "c/mid": 268, "full/tuning": 256, "d/low": 225, "e/none": 0}


def result(name, correct, n=N, **changes):
    """A result file's content, with the keys of PEFT's suite; `changes` replace dotted keys ("…" leaves a key out)."""
    is_full = name.startswith("full")
    content = {
        "run_info": {
            "experiment_name": name,
            "train_config": {"model_id": "some/model"},
            "peft_config": None if is_full else {"peft_type": "LORA", "r": 8},
        },
        "train_info": {
            "accelerator_memory_max": 3 * 2**30,
            "train_time": 12.5,
            "file_size": 4096,
            "num_trainable_params": 1_234_567,
            "num_total_params": 3_000_000_000,
            "status": "success",
            "metrics": [{"step": 250, "valid accuracy": 0.9}, {"step": 500, "test accuracy": correct / n}],
        },
        "meta_info": {},
    }
    for key, value in changes.items():
        *path, last = key.split(".")
        place = content
        for part in path:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return content


def write(folder, contents):
    for number, content in enumerate(contents):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{number}.json").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "SOURCE.txt").write_text("not a result", encoding="utf-8")
    return write(tmp_path, [result(name, correct) for name, correct in reversed(CORRECT.items())])


def test_runs_are_ranked_by_their_last_test_accuracy(folder):
    ranking = read_peft_results(folder, n_test=N).ranking
    assert [ranked.run.name for ranked in ranking] == list(CORRECT)
    assert [ranked.run.accuracy for ranked in ranking] == [correct / N for correct in CORRECT.values()]
    assert [ranked.run.method for ranked in ranking[2:4]] == ["lora", "full fine-tuning"]
    best = ranking[0].run
    assert (best.n_trainable, best.stored_bytes, best.train_seconds) == (1_234_567, 4096, 12.5)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_ties_are_those_of_statsmodels(folder, alpha):
    results = read_peft_results(folder, n_test=N, alpha=alpha)
    names, counts = list(CORRECT), list(CORRECT.values())

    def p_value(other, correct):
        return 1.0 if other == correct else proportions_ztest([other, correct], [N, N])[1]

    with_best = [p_value(counts[0], correct) for correct in counts]
    with_full = [p_value(CORRECT["full/tuning"], correct) for correct in counts]
    holm = [1.0, *multipletests(with_best[1:], method="holm")[1]]
    np.testing.assert_allclose([ranked.p_best for ranked in results.ranking], with_best, rtol=1e-9)
    np.testing.assert_allclose([ranked.p_reference for ranked in results.ranking], with_full, rtol=1e-9)
    np.testing.assert_allclose([ranked.p_best_holm for ranked in results.ranking], holm, rtol=1e-9)
    for group, p_values in [
        (results.tied_with_best, with_best),
        (results.tied_with_best_holm, holm),
        (results.tied_with_reference, with_full),
    ]:
        assert group == [name for name, p in zip(names, p_values, strict=True) if p > alpha]
    assert len(results.tied_with_best) < len(results.tied_with_best_holm) < len(names)


@pytest.mark.parametrize(("correct", "n"), itertools.product([0, 1, 30, 59, 60], [60]))
def test_intervals_are_wilsons(correct, n):
    expected = proportion_confint(correct, n, alpha=0.05, method="wilson")
    np.testing.assert_allclose(wilson_interval(correct / n, n), expected, atol=1e-12)


def test_the_reference_can_be_chosen_and_a_wrong_name_gets_the_near_ones(folder):
    results = read_peft_results(folder, n_test=N, reference="b/near")
    assert results.reference == "b/near"
    assert results.tied_with_reference == ["a/best", "b/near", "c/mid", "full/tuning"]
    with pytest.raises(RecordError, match=r"got `b/neer`; did you mean `b/near`\?"):
        read_peft_results(folder, n_test=N, reference="b/neer")


def test_without_full_fine_tuning_there_is_no_reference(tmp_path):
    results = read_peft_results(write(tmp_path, [result("a/b", 5, 10), result("c/d", 4, 10)]), n_test=10)
    assert (results.reference, results.tied_with_reference, results.ranking[0].p_reference) == (None, [], None)
    assert "Reference" not in results.to_text()


def test_a_single_run_is_tied_with_itself(tmp_path):
    results = read_peft_results(write(tmp_path, [result("full/x", 5, 10)]), n_test=10)
    assert results.tied_with_best == results.tied_with_best_holm == results.tied_with_reference == ["full/x"]
    assert "b: 1 of 1 runs" in results.to_text()


def test_json_has_the_promised_keys_and_survives_a_round_trip(folder):
    results = read_peft_results(folder, n_test=N)
    data = json.loads(json.dumps(results.to_json(), allow_nan=False))
    assert data["tied_with_best"] == results.tied_with_best
    assert data["tied_with_best_holm"] == results.tied_with_best_holm
    assert (data["best"], data["reference"], data["n_test"]) == ("a/best", "full/tuning", N)
    assert [run["rank"] for run in data["runs"]] == [1, 2, 3, 4, 5, 6]
    assert data["runs"][0]["low"] < data["runs"][0]["accuracy"] < data["runs"][0]["high"]


def test_the_table_fits_100_columns_and_shows_the_ties(tmp_path):
    long = "x" * 80
    contents = [result(f"lora/model-{long}{n}", 300 - n) for n in range(3)] + [result("full/model-b", 280)]
    text = read_peft_results(write(tmp_path, contents), n_test=N).to_text()
    assert max(map(len, text.splitlines())) <= 100
    rows = text.splitlines()
    assert rows[0].split() == ["#", "method", "run", "accuracy", "%", "trainable", "GiB", "train", "s", "ties"]
    assert rows[1].split()[-1] == "bhr"
    assert "60.0 [55.6, 64.2]" in rows[1]
    assert "1.23 M" in rows[1]
    assert "Left out of every run's name: model-" in text


def test_a_name_with_control_characters_cannot_steer_the_terminal(tmp_path):
    text = read_peft_results(write(tmp_path, [result("lora/\x1b[31mred\nline", 5, 10)]), n_test=10).to_text()
    assert "\x1b" not in text
    assert "?[31mred?line" in text


def test_runs_that_did_not_finish_are_left_out_and_named(tmp_path):
    failed = result("b/x", 5, 10, **{"train_info.status": "failed", "train_info.metrics": []})
    results = read_peft_results(write(tmp_path, [result("a/x", 5, 10), failed]), n_test=10)
    assert [ranked.run.name for ranked in results.ranking] == ["a/x"]
    assert results.notes == ("Left out: 1.json, whose status is `failed`.",)


def test_several_base_models_in_one_ranking_are_noted(tmp_path):
    other = result("b/x", 5, 10, **{"run_info.train_config": {"model_id": "other/model"}})
    results = read_peft_results(write(tmp_path, [result("a/x", 5, 10), other]), n_test=10)
    assert results.notes == ("Several base models are ranked together: other/model, some/model.",)


def test_the_older_name_of_the_memory_key_is_read_too(tmp_path):
    older = {"train_info.accelerator_memory_max": ..., "train_info.cuda_memory_max": 77}
    results = read_peft_results(write(tmp_path, [result("a/x", 5, 10, **older)]), n_test=10)
    assert results.ranking[0].run.peak_memory_bytes == 77


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", r"0\.json` must be JSON"),
        ("[1, 2]", r"`train_info\.status` must be there, got nothing in `.*0\.json`"),
        (result("a/x", 5, 10, **{"train_info.metrics": []}), r"`train_info\.metrics\.-1\.test accuracy` must be there"),
        (result("a/x", 5, 10, **{"train_info.metrics": "none"}), r"metrics\.-1\.test accuracy` must be there"),
        (result("a/x", 50, 10), r"test accuracy` must be a number in 0\.\.1, got 5\.0"),
        (result("a/x", 5, 10, **{"train_info.train_time": float("nan")}), r"train_time` must be a number .*got nan"),
        (result("a/x", 5, 10, **{"train_info.file_size": True}), r"file_size` must be a number .*got True"),
        (result("a/x", 5, 10, **{"train_info.num_trainable_params": ...}), r"num_trainable_params` must be there"),
        (result("a/x", 5, 10, **{"train_info.accelerator_memory_max": ...}), r"accelerator_memory_max` must be there"),
        (result("a/x", 5, 10, **{"run_info.peft_config": {}}), r"`run_info\.peft_config\.peft_type` must be there"),
        (result("a/x", 5, 10, **{"run_info.peft_config": ...}), r"`run_info\.peft_config` must be there"),
        (result("a/x", 5, 10, **{"run_info.experiment_name": 7}), r"experiment_name` must be a text, got 7"),
    ],
)
def test_a_broken_file_is_named_with_the_key(tmp_path, content, message):
    with pytest.raises(RecordError, match=message):
        read_peft_results(write(tmp_path, [content]), n_test=10)


def test_a_wrong_test_size_gives_itself_away(folder):
    with pytest.raises(RecordError, match=r"must be a whole number of answers .*; give the size of the test split"):
        read_peft_results(folder, n_test=1319)


def test_two_files_of_one_run_are_refused(tmp_path):
    with pytest.raises(RecordError, match="got 2 files of `a/x`"):
        read_peft_results(write(tmp_path, [result("a/x", 5, 10), result("a/x", 6, 10)]), n_test=10)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(RecordError, match="found no folder there"):
        read_peft_results(tmp_path / "absent")
    with pytest.raises(RecordError, match=r"must hold result files \(\*\.json\) of finished runs, got none"):
        read_peft_results(tmp_path)


@pytest.mark.shared_data
@pytest.mark.skipif("DELTAPROOF_SHARED_DATA" not in os.environ, reason="DELTAPROOF_SHARED_DATA is not set")
def test_pefts_own_table_is_mostly_one_tie_group():
    results = read_peft_results(Path(os.environ["DELTAPROOF_SHARED_DATA"]) / "results" / "peft-metamathqa")
    assert len(results.ranking) == 63
    assert results.best == "lily/llama-3.2-3B-rank140-mlp-a2-b2-s8.0"
    assert results.reference == "full-finetuning/llama-3.2-3B-lr_0.00001"
    assert [ranked.run.name for ranked in results.ranking].index(results.reference) + 1 == 18
    groups = (results.tied_with_best, results.tied_with_best_holm, results.tied_with_reference)
    assert [len(group) for group in groups] == [10, 20, 22]
    assert "lora/llama-3.2-3B-rank32" in results.tied_with_reference
    assert max(map(len, results.to_text().splitlines())) <= 100
