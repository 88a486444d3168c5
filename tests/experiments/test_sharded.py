"""One training over several processes: the results of one, a model that loads, and an end when a process dies."""

import os
import signal
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

import deltaproof
from deltaproof.data.run_folder import read_dataset
from deltaproof.errors import ConfigError, RecordError
from deltaproof.evaluation.predict import predict
from deltaproof.experiments.engines.engine import Stopped
from deltaproof.experiments.engines.local import LocalEngine
from deltaproof.experiments.jobs import Job
from deltaproof.experiments.plan import plan_from
from deltaproof.records.store import Store
from deltaproof.saving.folder import load_tuned
from deltaproof.training.precision import check_devices
from small import FAST, write_reviews

# 65 rows in batches of 16: the last batch of an epoch has one row, so that the second process has none of it
QUICK = {
    **FAST, "methods": "full", "learning_rates": 1e-3, "seeds": 1, "baselines": False, "max_rows": 65, "epochs": 2,
    "training": {"evaluations_per_epoch": 2},
}  # fmt: skip


def final(folder):
    (record,) = [
        record for record in Store(folder).records() if record.spec.stage == "final" and record.status == "done"
    ]
    return record


@pytest.fixture(scope="module")
def runs(bert, tmp_path_factory):
    """The same experiment by one process and by two."""
    folder = tmp_path_factory.mktemp("runs")
    reviews = write_reviews(folder / "reviews.csv", n_rows=112)
    for n in (1, 2):
        deltaproof.compare(model=bert, data=reviews, out=folder / str(n), devices_per_run=n, **QUICK)
    return folder


@pytest.mark.slow
def test_two_processes_come_to_the_losses_and_scores_of_one(runs):
    one, two = final(runs / "1"), final(runs / "2")
    assert len(one.history) == 4
    for expected, found in zip(one.history, two.history, strict=True):
        assert found["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-5)
        assert found["validation"] == pytest.approx(expected["validation"], abs=1e-5)
    assert two.validation == pytest.approx(one.validation, abs=1e-5)
    assert two.test == pytest.approx(one.test, abs=1e-5)
    answers = [Store(runs / str(n)).predictions(record.spec.key).outputs for n, record in ((1, one), (2, two))]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)
    assert (two.cost.n_trainable, two.cost.stored_bytes) == (one.cost.n_trainable, one.cost.stored_bytes)
    assert two.cost.peak_memory_bytes > 0


@pytest.mark.slow
def test_only_a_training_over_several_devices_says_so_in_its_spec(runs):
    one, two = final(runs / "1").spec, final(runs / "2").spec
    assert "devices_per_run" not in one.training
    assert two.training == {**one.training, "devices_per_run": 2}


@pytest.mark.slow
def test_the_model_that_two_processes_trained_is_saved_whole_and_answers_alike(runs):
    tuned, task, _ = load_tuned(runs / "2" / "tuned" / final(runs / "2").spec.key)
    test = read_dataset(runs / "2" / "data").test.open("a test of what is saved")
    tokenizer = tuned.backbone.tokenizer
    found = predict(tuned, task, task.encode(tokenizer, test), tokenizer.pad_token_id)
    recorded = Store(runs / "2").predictions(final(runs / "2").spec.key)
    np.testing.assert_allclose(found, recorded.outputs, atol=1e-5)


def a_long_job(runs):
    spec = final(runs / "2").spec
    return Job(replace(spec, training={**spec.training, "epochs": 1000.0}), runs / "2", "cpu")


def ranks():
    """The processes that share a run, in the order in which they were started: the worker's children."""
    servers = psutil.Process().children()
    found = [rank for server in servers for worker in server.children() for rank in worker.children()]
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.slow
def test_a_run_whose_process_is_killed_fails_and_says_which(rank, runs):
    killed = []

    def kill_one(step, n_steps, values):
        if not killed:
            killed.extend(ranks())
            os.kill(killed[rank].pid, signal.SIGKILL)

    record = LocalEngine().run(a_long_job(runs), kill_one)
    assert len(killed) == 2
    assert record.status == "failed"
    assert f"process {rank + 1} of the 2 that shared this run was ended by signal 9 (SIGKILL)" in record.error
    assert not ranks()


@pytest.mark.slow
def test_an_engine_that_stops_leaves_no_process_behind(runs):
    engine, seen = LocalEngine(), []

    def stop(step, n_steps, values):
        if not seen:
            seen.extend(ranks())
            engine.stop()

    with pytest.raises(Stopped):
        engine.run(a_long_job(runs), stop)
    _, alive = psutil.wait_procs(seen, timeout=20)
    assert len(seen) == 2
    assert not alive


@pytest.mark.slow
def test_a_model_that_was_not_kept_is_not_trained_again_over_several_devices(runs):
    with pytest.raises(RecordError, match="compare in a new folder with `--keep all`"):
        LocalEngine().run(replace(a_long_job(runs), restore=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methods": "full,lora"}, r"`devices_per_run` is for `full` alone, got lora.* a frozen base"),
        ({"engine": "lanes"}, 'goes with `engine = "local"`, got `lanes`'),
        ({"tuning": "halving"}, 'goes with `tuning = "grid"`, got `halving`'),
        ({"keep": "snapshots"}, "goes without snapshots"),
        ({"workers": 2}, "one run takes place at a time, got `workers = 2`"),
    ],
)
def test_what_does_not_go_over_several_devices_is_refused_with_the_reason(fields, message):
    with pytest.raises(ConfigError, match=message):
        plan_from({"model": "m", "data": "d", "methods": "full", "devices_per_run": 2, **fields})


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("cuda", "fp32", "may be as many devices as there are, got 3 with 2 here; lower it"),
        ("cuda:1", "fp32", "takes the first devices of `cuda`, got `cuda:1`"),
        ("mps", "fp32", "takes the first devices of `cuda`, got `mps`"),
        ("cuda", "fp16", "needs fp32 or bf16, got fp16"),
    ],
)
def test_devices_that_are_not_there_are_refused(device, precision, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=message):
        check_devices(3, torch.device(device), precision)


def test_any_number_of_processes_goes_on_a_cpu():
    check_devices(3, torch.device("cpu"), "bf16")
