"""Fifty kills at random moments: each experiment goes on and ends with the records of an uninterrupted one."""

import random
import time

import pytest

import deltaproof
from crashes import kill, launch, workers
from experiment_fixtures import bert, reviews_csv  # noqa: F401
from small import FAST, essence

N_MOMENTS = 50


@pytest.fixture(scope="module")
def plan(bert, reviews_csv):  # noqa: F811
    return {
        "model": str(bert), "data": str(reviews_csv), "methods": "lora(rank=2),head", "trials": 2, "seeds": 2, **FAST,
    }  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(plan, tmp_path_factory):
    """What an experiment leaves that nobody disturbs, and how long it takes in a process of its own."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    started = time.monotonic()
    process = launch({**plan, "out": str(folder)})
    assert process.communicate() == ("", "")
    return essence(folder), time.monotonic() - started


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(N_MOMENTS))
def test_a_kill_at_a_random_moment_changes_no_record(moment, plan, uninterrupted, tmp_path):
    """The moments are spread over the whole experiment, one in each fiftieth; every fifth kills the worker instead."""
    expected, seconds = uninterrupted
    run, at = tmp_path / "run", (moment + random.Random(moment).random()) / N_MOMENTS
    process = launch({**plan, "out": str(run)})
    time.sleep(at * seconds)
    if moment % 5 == 4:
        for worker in workers(process.pid):
            worker.kill()
        process.communicate()
    else:
        kill(process)
    deltaproof.compare(**plan, out=run)
    assert essence(run) == expected
