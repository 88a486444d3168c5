"""Halving in a real experiment: who is stopped, what is said of it, and that whoever goes on is not changed by it."""

import json
import shutil

import pytest

import deltaproof
from deltaproof.errors import ConfigError
from deltaproof.records.store import Store
from small import FAST, Sayings, essence, write_reviews

RATES = "1e-6,3e-3"
PLAN = {**FAST, "epochs": 4, "methods": "full", "learning_rates": RATES, "seeds": 1, "baselines": False}


@pytest.fixture(scope="module")
def many_reviews(tmp_path_factory):
    return write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv", n_rows=600)


@pytest.fixture(scope="module")
def grid(bert, many_reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    deltaproof.compare(model=bert, data=many_reviews, out=folder, **PLAN)
    return folder


@pytest.fixture(scope="module")
def halved(bert, many_reviews, tmp_path_factory):
    folder, reporter = tmp_path_factory.mktemp("halved"), Sayings()
    table = deltaproof.compare(model=bert, data=many_reviews, out=folder, reporter=reporter, tuning="halving", **PLAN)
    return folder, reporter, table


def records(folder, stage):
    found = [record for record in Store(folder).records() if record.spec.stage == stage]
    return {record.spec.training["learning_rate"]: record for record in found}


def test_the_hopeless_trial_is_stopped_at_the_first_evaluation_and_the_other_goes_on(halved):
    folder, _, table = halved
    (entry,) = json.loads((folder / "experiment.json").read_text())["contestants"]
    low, high = entry["trials"]
    assert (low["status"], high["status"]) == ("stopped", "done")
    stopped, n_steps = low["stopped"], low["stopped"]["n_steps"]
    assert stopped["step"] * 4 == n_steps
    assert stopped["better_rate"] == 3e-3
    assert stopped["lower_bound"] > 0
    assert stopped["saved_seconds"] == pytest.approx(3 * records(folder, "rung")[1e-6].cost.train_seconds)
    assert entry["learning_rate"] == 3e-3
    assert table.row("full").status == "done"
    assert set(records(folder, "tuning")) == {3e-3}, "no record of a whole run at the rate that was stopped"
    assert not list((folder / "checkpoints").glob("*/*")), "nothing rests that nobody will take up"


def test_whoever_rests_at_the_rung_and_goes_on_ends_with_the_record_of_the_grid(halved, grid):
    ours, theirs = records(halved[0], "tuning")[3e-3], records(grid, "tuning")[3e-3]
    assert ours.spec == theirs.spec
    assert essence(halved[0])["records"][ours.spec.key] == essence(grid)["records"][ours.spec.key]
    assert [entry["step"] for entry in records(halved[0], "rung")[3e-3].history] == [ours.history[0]["step"]]


def test_the_final_runs_are_those_of_the_grid_but_for_what_they_were_chosen_from(halved, grid):
    ours, theirs = records(halved[0], "final")[3e-3], records(grid, "final")[3e-3]
    assert ours.test == theirs.test
    assert set(ours.spec.parents) == {records(halved[0], "rung")[1e-6].spec.key, *theirs.spec.parents} - {
        records(grid, "tuning")[1e-6].spec.key
    }


def test_what_was_stopped_and_what_that_saved_is_said_and_noted(halved):
    _, reporter, table = halved
    (said,) = [text for text in reporter.texts if "trials stopped" in text]
    assert said.startswith("full: 1 of 2 trials stopped at step ")
    assert "(learning rate 1e-06), too far behind 0.003 to win, which is wrong with a chance of at most 5%" in said
    assert said.endswith("of training saved")
    assert said.removeprefix("full: ") in table.row("full").notes


def test_the_same_command_again_reads_everything_from_disk(halved, bert, many_reviews):
    folder, _, table = halved
    before = essence(folder)
    again = deltaproof.compare(model=bert, data=many_reviews, out=folder, tuning="halving", **PLAN)
    assert essence(folder) == before
    assert again.to_json()["methods"] == table.to_json()["methods"]


def test_trials_that_stand_whole_are_taken_as_they_are(grid, bert, many_reviews, tmp_path):
    shutil.copytree(grid, tmp_path / "run", symlinks=True)
    deltaproof.compare(model=bert, data=many_reviews, out=tmp_path / "run", tuning="halving", **PLAN)
    assert records(tmp_path / "run", "rung") == {}
    assert essence(tmp_path / "run") == essence(grid)


def test_a_short_training_is_scored_often_enough_to_rest_after_a_quarter(bert, many_reviews, tmp_path):
    plan = {**PLAN, "epochs": 1, "trials": 2, "tuning": "halving"}
    deltaproof.compare(model=bert, data=many_reviews, out=tmp_path, **plan)
    (rung, *_) = records(tmp_path, "rung").values()
    (whole,) = records(tmp_path, "final").values()
    steps = [entry["step"] for entry in whole.history]
    assert len(steps) == 4
    assert rung.history[-1]["step"] == steps[0]


def test_where_no_evaluation_comes_early_enough_it_is_said_that_no_trial_can_be_stopped(bert, many_reviews, tmp_path):
    reporter, plan = Sayings(), {**PLAN, "epochs": 1, "evaluations_per_epoch": 1, "tuning": "halving"}
    deltaproof.compare(model=bert, data=many_reviews, out=tmp_path, reporter=reporter, dry_run=True, **plan)
    (said,) = [text for text in reporter.texts if "evaluations_per_epoch" in text]
    assert "no trial can be stopped" in said


def test_an_unknown_way_of_tuning_is_refused(bert, many_reviews, tmp_path):
    with pytest.raises(ConfigError, match="tuning"):
        deltaproof.compare(model=bert, data=many_reviews, out=tmp_path, tuning="thirds", **PLAN)


def test_trials_rest_and_are_stopped_in_lanes_as_they_are_alone(bert, many_reviews, tmp_path):
    plan = {**PLAN, "methods": "lora(rank=4)", "learning_rates": "1e-6,1e-2", "tuning": "halving", "workers": 1}
    trials = {}
    for engine in ("local", "lanes"):
        deltaproof.compare(model=bert, data=many_reviews, out=tmp_path / engine, engine=engine, **plan)
        (entry,) = json.loads((tmp_path / engine / "experiment.json").read_text())["contestants"]
        trials[engine] = entry["trials"]
    alone, lanes = trials["local"], trials["lanes"]
    assert [trial["status"] for trial in alone] == [trial["status"] for trial in lanes] == ["stopped", "done"]
    assert lanes[0]["stopped"]["lead"] == pytest.approx(alone[0]["stopped"]["lead"], abs=0.05)
    rungs = records(tmp_path / "lanes", "rung")
    assert all("lanes" in record.environment for record in rungs.values())
    assert [len(record.history) for record in rungs.values()] == [1, 1]
