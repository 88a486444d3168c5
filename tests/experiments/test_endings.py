"""Runs that end badly are results; nothing that a run does ends the experiment."""

import pytest

import deltaproof
from deltaproof.errors import BackboneError, ConfigError, DeltaproofError
from deltaproof.records.store import Store
from small import FAST

QUICK = {**FAST, "trials": 1, "seeds": 1, "baselines": False}


@pytest.fixture
def compared(bert, reviews_csv, tmp_path, own_methods):
    def run(methods, **fields):
        return deltaproof.compare(
            model=bert, data=reviews_csv, out=tmp_path / "run", methods=methods, **{**QUICK, **fields}
        )

    return run


def statuses(table):
    return {row.name: row.status for row in table.rows}


def test_a_contestant_that_diverges_is_a_result_and_the_fallback_takes_over(compared):
    table = compared("wild,head,lora(rank=2)", reference="wild", fallback_reference="head", trials=2)
    assert statuses(table) == {"wild": "diverged", "head": "done", "lora(rank=2)": "done"}
    assert table.reference == "head"
    assert table.row("lora(rank=2)").comparison is not None
    assert [trial["status"] for trial in table.experiment["contestants"][0]["trials"]] == ["diverged"] * 2
    assert "diverged" in str(table)


def test_without_a_fallback_the_answer_says_why_nothing_was_compared(compared):
    table = compared("wild,head", reference="wild")
    assert table.row("head").comparison is None
    assert "diverged, so nothing was compared" in table.recommendation.sentence
    assert table.recommendation.name == "head"


def test_a_contestant_that_does_not_fit_is_seen_in_the_estimate_and_is_a_result(compared):
    table = compared("greedy,head,lora(rank=2)", reference="greedy", fallback_reference="head", trials=3)
    assert statuses(table) == {"greedy": "out_of_memory", "head": "done", "lora(rank=2)": "done"}
    assert table.reference == "head"
    entry = table.experiment["contestants"][0]
    assert entry["estimate"]["fits"] is False
    assert len(entry["trials"]) == 1
    assert "did not fit" in str(table)


def test_a_run_that_the_system_kills_every_time_did_not_fit(compared):
    table = compared("killed,head")
    assert statuses(table) == {"killed": "out_of_memory", "head": "done"}


def test_a_run_that_is_killed_once_is_run_again(compared, tmp_path):
    marker = tmp_path / "killed-once"
    table = compared(f"killed(marker='{marker}'),head")
    assert marker.exists()
    assert set(statuses(table).values()) == {"done"}


def test_a_bug_in_a_method_fails_that_contestant_alone_and_is_tried_again_next_time(compared, tmp_path):
    table = compared("broken,head")
    assert statuses(table) == {"broken": "failed", "head": "done"}
    record = Store(tmp_path / "run").find(table.row("broken").keys[0])
    assert "ZeroDivisionError: a bug of the method" in record.error
    assert "own_methods.py" in record.error


def test_everything_failed_gives_no_recommendation_and_keeps_nothing(compared, tmp_path):
    table = compared("wild")
    assert table.recommendation.name is None
    assert not (tmp_path / "run" / "best").is_symlink()


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"methods": "lora(rank=1000)"}, ConfigError, "rank <= min"),
        ({"methods": "head,prompt_tuning(num_virtual_tokens=113)"}, ConfigError, r"<= 128`, .*, got 16 \+ 113; lower"),
        ({"methods": "prefix_tuning", "gradient_checkpointing": True}, ConfigError, "without the key-value cache"),
        ({"methods": "lora(roles=['attention_query'])"}, ConfigError, "attention_query"),
        ({"metric": "spearman"}, ConfigError, "a metric must suit the task, got `spearman` for classification"),
        ({"metric": "acuracy"}, ConfigError, "did you mean `accuracy`"),
        ({"require": "lora.accuracy > 0.5"}, ConfigError, "a requirement must name a contestant, got `lora`"),
        ({"require": "head.acuracy > 0.5"}, ConfigError, "a requirement must name a metric or a cost, got `acuracy`"),
        ({"require": "head.accuracy"}, ConfigError, "a requirement reads"),
        ({"device": "cuda:99"}, ConfigError, "the device must exist"),
        ({"precision": "fp16"}, ConfigError, "fp16 needs an accelerator"),
        ({"model": "no/such/model"}, BackboneError, "no/such/model"),
        ({"text": "body"}, DeltaproofError, "body"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(bert, reviews_csv, tmp_path, fields, kind, message):
    plan = {"model": bert, "data": reviews_csv, "methods": "head", **QUICK, **fields}
    with pytest.raises(kind, match=message):
        deltaproof.compare(out=tmp_path / "run", **plan)
    assert not (tmp_path / "run" / "records").exists()
    assert not (tmp_path / "run" / "experiment.json").exists()
