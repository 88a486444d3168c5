"""The local engine: how many runs side by side, with how many threads, and what becomes of those that are killed."""

import threading
import time

import pytest

import deltaproof
from deltaproof.errors import ConfigError
from deltaproof.experiments import experiment as experiment_module
from deltaproof.experiments.engines import slots
from deltaproof.experiments.engines.choice import ENGINES
from deltaproof.experiments.engines.engine import Stopped
from deltaproof.experiments.engines.local import LocalEngine
from deltaproof.experiments.jobs import Job
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store
from small import FAST

QUICK = {**FAST, "trials": 1, "seeds": 1, "baselines": False}


@pytest.mark.parametrize(
    ("n_cores", "wanted", "threads", "expected"),
    [
        (2, None, "", (2, 1)),
        (16, None, "", (4, 4)),
        (1, None, "", (1, 1)),
        (16, 2, "", (2, 8)),
        (16, None, "2", (4, 2)),
        (2, None, "2", (1, 2)),
        (2, 3, "", (3, 1)),
    ],
)
def test_cores_are_shared_and_omp_num_threads_is_obeyed(n_cores, wanted, threads, expected, monkeypatch):
    monkeypatch.setattr(slots, "available_cores", lambda: n_cores)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    found = slots.plan_slots("cpu", wanted)
    assert (found.n_workers, found.n_threads) == expected
    assert slots.plan_slots("cuda").n_workers == 1


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_run_uses_the_threads_that_its_spec_names(n_threads, bert, reviews_csv, tmp_path, own_methods, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
    marker = tmp_path / "threads"
    plan = {"model": bert, "data": reviews_csv, "methods": f"threads(marker='{marker}')", **QUICK}
    deltaproof.compare(out=tmp_path / "run", **plan)
    assert set(marker.read_text().split()) == {str(n_threads)}
    assert [record.spec.training["threads"] for record in Store(tmp_path / "run").records()] == [n_threads]


def job(name, folder):
    return Job(Spec(name, {}, {}, {}, {}, {}, 0, "final"), folder, "cpu")


class Counting(LocalEngine):
    """An engine whose errands only sleep, and are killed while others run beside them."""

    def __init__(self):
        super().__init__()
        self.together, self.most, self.company = 0, 0, {}
        self.counting = threading.Lock()

    def _supervised(self, errand, request, on_progress):
        with self.counting:
            self.together += 1
            self.most = max(self.most, self.together)
        time.sleep(0.05)
        with self.counting:
            is_crowded = self.together > 1
            self.company.setdefault(request.spec.contestant, []).append(self.together)
            self.together -= 1
        return ("killed", None) if request.spec.contestant == "large" and is_crowded else ("result", "done")


def in_threads(engine, jobs):
    results = {}
    threads = [
        threading.Thread(target=lambda job=job: results.update({job.spec.contestant: engine.run(job)})) for job in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_no_more_runs_side_by_side_than_there_are_slots(tmp_path):
    engine = Counting()
    engine.open_slots(3)
    in_threads(engine, [job(f"small {at}", tmp_path) for at in range(9)])
    assert engine.most == 3


def test_a_run_that_is_killed_in_company_is_run_again_alone(tmp_path):
    engine = Counting()
    engine.open_slots(3)
    results = in_threads(engine, [job(name, tmp_path) for name in ("large", "a", "b", "c", "d", "e")])
    assert set(results.values()) == {"done"}
    assert engine.company["large"][-1] == 1


def test_an_engine_that_was_stopped_starts_nothing_more(tmp_path):
    engine = LocalEngine()
    engine.stop()
    with pytest.raises(Stopped):
        engine.run(job("a", tmp_path))


def test_an_engine_is_chosen_by_name_and_decides_no_result(bert, reviews_csv, tmp_path, monkeypatch):
    made = []

    def make(address, say, memory):
        made.append((address, memory))
        return LocalEngine()

    monkeypatch.setattr(ENGINES, "_entries", {**ENGINES._entries, "elsewhere": make})
    plan = {"model": bert, "data": reviews_csv, "methods": "head", **QUICK}
    here = deltaproof.compare(out=tmp_path, **plan)
    there = deltaproof.compare(out=tmp_path, **plan, engine="elsewhere", address="host:1", memory="40GB")
    assert made == [("host:1", 40_000_000_000)]
    assert there.row("head").keys == here.row("head").keys
    assert len(list(Store(tmp_path).records())) == 1


def test_an_unknown_engine_and_an_address_without_a_cluster_are_refused(bert, reviews_csv, tmp_path):
    plan = {"model": bert, "data": reviews_csv, "methods": "head", **QUICK}
    with pytest.raises(ConfigError, match="the `engine` must be one that there is, got `lokal`; did you mean `local`"):
        deltaproof.compare(out=tmp_path, **plan, engine="lokal")
    with pytest.raises(ConfigError, match="`address` goes with an engine on a cluster, got `host:1` for `local`"):
        deltaproof.compare(out=tmp_path, **plan, address="host:1")


def test_an_experiment_in_minutes_goes_on_with_the_trials_that_it_began_with(bert, reviews_csv, tmp_path, monkeypatch):
    plan = {"model": bert, "data": reviews_csv, "methods": "head", **QUICK, "trials": 3, "budget": "60 minutes"}
    first = deltaproof.compare(out=tmp_path, **plan)
    assert first.experiment["plan"]["trials"] == 3
    monkeypatch.setattr(experiment_module, "trials_in_budget", lambda *given: 1)
    again = deltaproof.compare(out=tmp_path, **plan)
    assert again.experiment["plan"]["trials"] == 3
    assert again.to_json()["methods"] == first.to_json()["methods"]
    other = deltaproof.compare(out=tmp_path, dry_run=True, **{**plan, "budget": "50 minutes"})
    assert other.experiment["plan"]["trials"] == 1
