"""Memory that trainings may fill: as users write it, what it bounds, and what is foretold of it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import deltaproof
from deltaproof.errors import ConfigError
from deltaproof.experiments.engines.cluster import RayEngine
from deltaproof.experiments.engines.lanes import LanesEngine
from deltaproof.experiments.engines.local import LocalEngine
from deltaproof.experiments.jobs import Job, Probe
from deltaproof.experiments.memory_plan import (
    MARGIN,
    alone_bytes,
    most_in_one_pass,
    n_fitting,
    predicted_bytes,
    predicted_device_bytes,
)
from deltaproof.experiments.memory_size import parse_bytes
from deltaproof.experiments.plan import plan_from
from deltaproof.memory import KeptForGradient
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store
from small import FAST

GB = 10**9
PROBE = Probe(n_steps=100, peak_memory_bytes=3 * GB, loaded_bytes=GB, kept_bytes=GB, n_trainable=10**6)


@pytest.fixture
def job(tmp_path):
    training = {"learning_rate": 1e-3, "precision": "fp32", "gradient_checkpointing": False}
    return Job(Spec("lora", {}, {}, {}, {}, training, 0, "tuning"), tmp_path, "cpu", probe=PROBE)


@pytest.mark.parametrize(
    ("written", "n_bytes"),
    [("4GB", 4 * GB), ("4 gb", 4 * GB), ("4G", 4 * GB), ("512MiB", 2**29), ("4e9", 4 * GB), ("1.5 GiB", 3 * 2**29),
     (4 * GB, 4 * GB), (4e9, 4 * GB), ("2TB", 2000 * GB)],
)  # fmt: skip
def test_memory_is_read_as_users_write_it(written, n_bytes):
    assert parse_bytes(written) == n_bytes
    made = plan_from({"model": "m", "data": "d.csv", "methods": "lora", "memory": written})
    assert made.memory == n_bytes
    assert type(made)(**made.model_dump(mode="json")) == made


@pytest.mark.parametrize("written", ["much", "4 GBit", "-4GB", "4iB", "", "4.5.6GB", True, "1e999"])
def test_what_is_no_memory_is_refused_with_a_remedy(written):
    with pytest.raises(ConfigError, match=r"memory reads `4GB`, `512MiB` or `4e9` bytes, got .*write one of these"):
        plan_from({"model": "m", "data": "d.csv", "methods": "lora", "memory": written})


@pytest.mark.parametrize("written", ["4", "0GB", "999kB"])
def test_memory_without_its_unit_is_refused(written):
    with pytest.raises(ConfigError, match=r"memory must hold a training.*write a unit"):
        plan_from({"model": "m", "data": "d.csv", "methods": "lora", "memory": written})


def test_what_is_kept_for_the_gradient_is_counted_once_and_without_parameters():
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    model[0].requires_grad_(False)
    x = torch.randn(16, 8, requires_grad=True)
    with KeptForGradient(model) as kept:
        model(x).sum().backward()
    assert kept.n_bytes == 4 * (16 * 4), "the first map is frozen, and the ReLU's output is the last map's input"


def test_lanes_hold_what_is_loaded_once_and_each_has_its_own_values_beside_it(job):
    alone = alone_bytes(PROBE)
    assert alone >= PROBE.peak_memory_bytes
    assert alone > alone_bytes(replace(PROBE, n_steps=10)), "the heap gets holes"
    assert predicted_bytes([job]) == alone
    assert predicted_bytes([job] * 4) == alone + 3 * 5 * 4 * 10**6
    more = [predicted_bytes([job] * 4, n) for n in (1, 2, 3, 4)]
    assert more == sorted(set(more)), "each further lane in a pass keeps more"
    assert predicted_bytes([job] * 4, 4) < 4 * alone


def test_lanes_that_part_for_wide_batches_keep_as_much_as_their_fullest_pass(job):
    jobs = [job] * 4
    assert predicted_bytes(jobs, 4, share=0.25) == predicted_bytes(jobs, 1), "the widest batch is as full as any"
    assert predicted_bytes(jobs, 4, share=0.5) == predicted_bytes(jobs, 2)
    assert most_in_one_pass(jobs, predicted_bytes(jobs, 2), share=0.5) == 4


def test_on_an_accelerator_the_host_keeps_nothing_for_gradients(job):
    probe = Probe(3 * GB, 0, 0, peak_device_memory_bytes=5 * GB, loaded_bytes=GB, kept_bytes=GB, n_trainable=10**6)
    jobs = [Job(job.spec, job.folder, "cuda", probe=Probe(**{**vars(probe), "peak_memory_bytes": 3 * GB}))] * 3
    assert predicted_bytes(jobs, 3) == predicted_bytes(jobs, 1)
    assert predicted_device_bytes(jobs, 3) == 5 * GB + 2 * GB + 2 * 4 * 4 * 10**6
    assert most_in_one_pass(jobs, GB, 6.1 * GB) == 2


def test_as_many_lanes_as_fit_at_least_one(job):
    jobs = [job] * 4
    assert n_fitting(jobs, predicted_bytes(jobs, places=3)) == 3
    assert predicted_bytes(jobs, places=3) == predicted_bytes(jobs[:3]) + 4 * jobs[3].probe.n_trainable, "it waits"
    assert n_fitting(jobs, 1.0) == 1
    assert most_in_one_pass(jobs, predicted_bytes(jobs, 2)) == 2
    assert most_in_one_pass(jobs, predicted_bytes(jobs, 3)) == 2, "two passes of two, not of three and one"
    assert most_in_one_pass(jobs, 1e12) == 4


def test_the_limit_bounds_workers_and_the_lanes_of_a_group(job):
    limit = int(MARGIN * 2 * predicted_bytes([job] * 3)) + 1
    assert LocalEngine(memory=limit).memory_bytes() == pytest.approx(limit / MARGIN)
    assert LocalEngine(memory=limit).workers_in_memory(alone_bytes(PROBE), 8) == 2
    assert LocalEngine(memory=10**18).memory_bytes() < 10**15, "no more than is free"
    engine = LanesEngine(may_decline=False, say=print, memory=limit)
    engine.memory_bytes = lambda: limit / MARGIN  # as on a machine with that much free
    engine.open_slots(2)
    tickets = [SimpleNamespace(job=job, is_taken=False) for _ in range(8)]
    engine._waiting = list(tickets)
    group = engine._group_of(tickets[0])
    assert len(group) == 4, "half of them for each slot"
    limit_of_a_group = limit / MARGIN / 2
    n = engine._n_at_a_time(group)
    assert n == 2
    assert predicted_bytes([job] * 4, places=n) <= limit_of_a_group < predicted_bytes([job] * 4, places=n + 1)


@pytest.mark.parametrize(("other_bytes", "n_runs"), [(48e9, 2 + 2), (8e9, 2)])
def test_on_a_cluster_the_limit_holds_for_each_node(other_bytes, n_runs, monkeypatch):
    nodes = [{"CPU": 8.0, "memory": 64e9}, {"CPU": 8.0, "memory": other_bytes}]
    monkeypatch.setattr("deltaproof.experiments.engines.cluster.nodes", lambda: nodes)
    engine = RayEngine(None, print, memory=int(MARGIN * 10 * GB))
    assert engine.memory_bytes() == pytest.approx(10 * GB)
    assert engine.workers_in_memory(5 * GB - 1, 20) == n_runs


def test_a_contestant_that_does_not_fit_alone_is_named_before_anything_is_trained(bert, reviews_csv, tmp_path):
    fields = {**FAST, "model": bert, "data": reviews_csv, "methods": "lora(rank=2)", "trials": 1, "seeds": 1}
    with pytest.raises(ConfigError, match=r"`memory` must hold one training.*got 2\.0 MB.*lora\(rank=2.*; give .* MB"):
        deltaproof.compare(**fields, memory="2MB", out=tmp_path / "run")
    assert not list(Store(tmp_path / "run").records())
