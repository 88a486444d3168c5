"""An experiment that is killed goes on with the same call and ends as if nothing had happened."""

import json
import os
import shutil
import threading

import pytest

import deltaproof
from crashes import kill, launch, n_files, wait_until, workers
from deltaproof.experiments.table import table_from
from deltaproof.records.store import Store
from small import FAST, essence


@pytest.fixture(scope="module")
def plan(bert, reviews_csv):
    return {
        "model": str(bert), "data": str(reviews_csv), "methods": "lora(rank=2),head", "trials": 2, "seeds": 2, **FAST,
    }  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return deltaproof.compare(**plan, out=folder), essence(folder), folder


CRASH_POINTS = {
    "the splits are being written": lambda run: (run / "data" / "train.parquet").exists(),
    "the first estimate stands": lambda run: n_files(run, "probes/*.json"),
    "the first trial stands": lambda run: n_files(run, "records/*.json") > 2,
    "a final run has answered": lambda run: n_files(run, "predictions/*.parquet") > 2,
    "the last run is under way": lambda run: n_files(run, "records/*.json") > 8,
}


AT_ONCE = ("the splits are being written", "a final run has answered")
"""Before anything stands, and when files of all kinds do; other points and random moments are for `check-slow`."""


@pytest.mark.parametrize(
    "point", [point if point in AT_ONCE else pytest.param(point, marks=pytest.mark.slow) for point in CRASH_POINTS]
)
def test_killed_and_started_again_it_ends_with_the_same_records(point, plan, uninterrupted, tmp_path):
    run = tmp_path / "run"
    process = launch({**plan, "out": str(run)})
    wait_until(lambda: CRASH_POINTS[point](run), process)
    kill(process)
    table = deltaproof.compare(**plan, out=run)
    assert essence(run) == uninterrupted[1]
    assert [row.scores for row in table.rows] == [row.scores for row in uninterrupted[0].rows]
    assert n_files(run, "tuned/*/deltaproof.json") == 2
    assert (run / "best" / "deltaproof.json").exists()
    assert json.loads((run / "experiment.json").read_text())["finished"]


def test_a_worker_that_is_killed_is_replaced_and_nothing_else_changes(plan, uninterrupted, tmp_path, capfd):
    run, killed = tmp_path / "run", []

    def kill_one():
        wait_until(lambda: n_files(run, "records/*.json") > 2)
        worker = wait_until(lambda: workers(os.getpid()))[0]
        worker.kill()
        killed.append(worker)

    killer = threading.Thread(target=kill_one)
    killer.start()
    deltaproof.compare(**plan, out=run)
    killer.join()
    assert len(killed) == 1
    assert capfd.readouterr() == ("", "")
    assert essence(run) == uninterrupted[1]


def test_two_processes_on_one_folder_end_with_one_set_of_records(plan, uninterrupted, tmp_path):
    run = tmp_path / "run"
    other = launch({**plan, "out": str(run)})
    wait_until(lambda: (run / "data").exists(), other)  # it has loaded its libraries: this process has them already
    table = deltaproof.compare(**plan, out=run)
    assert (*other.communicate(timeout=240), other.returncode) == ("", "", 0)
    assert essence(run) == uninterrupted[1]
    for each in (table, table_from(Store(run))):
        assert [row.scores for row in each.rows] == [row.scores for row in uninterrupted[0].rows]
    assert (run / "best" / "deltaproof.json").exists()


def test_a_finished_experiment_that_is_started_again_and_killed_stays_finished(plan, uninterrupted, tmp_path):
    run = shutil.copytree(uninterrupted[2], tmp_path / "run", symlinks=True)
    before = (run / "experiment.json").read_bytes()
    process = launch({**plan, "out": str(run)})
    wait_until(lambda: workers(process.pid), process)
    kill(process)
    assert (run / "experiment.json").read_bytes() == before
