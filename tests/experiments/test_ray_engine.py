"""The Ray engine on a real cluster of two nodes on this machine, each with a temporary folder of its own."""

import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

import deltaproof
from deltaproof.backbones import load_backbone
from deltaproof.carried import as_variables
from deltaproof.data.ledger import openings
from deltaproof.data.run_folder import read_dataset
from deltaproof.errors import ConfigError, DeltaproofError, MissingExtraError
from deltaproof.experiments.engines import cluster as cluster_module
from deltaproof.experiments.engines import membership, parcel
from deltaproof.experiments.engines.cluster import RayEngine
from deltaproof.experiments.engines.engine import Stopped
from deltaproof.experiments.engines.placement import has_room
from deltaproof.experiments.engines.worker import Surroundings
from deltaproof.experiments.jobs import Job
from deltaproof.experiments.reporter import Reporter
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store
from small import FAST, essence

PLAN = {**FAST, "methods": "full,lora(rank=2)", "trials": 2, "seeds": 2, "baselines": False, "keep": "all"}


class Watching(Reporter):
    """Remembers what it was told, and does something once when a run of a stage makes progress."""

    def __init__(self, **actions):
        self.texts, self.actions = [], actions

    def say(self, text):
        self.texts.append(text)

    def progress(self, spec, step, n_steps, values):
        action = self.actions.pop(spec.stage, None)
        if action is not None:
            action()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes with one processor each; the second can be killed."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    def node(name):
        return {"num_cpus": 1, "env_vars": {"TMPDIR": str(tmp_path_factory.mktemp(name))}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # no lower than this process, which other tests may keep busy
        made = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **node("head")})
        made.second = made.add_node(**node("second"))
    yield made
    import ray

    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def alone(bert, reviews_csv, tmp_path_factory):
    """The same experiment by the local engine."""
    folder = tmp_path_factory.mktemp("local") / "run"
    deltaproof.compare(model=bert, data=reviews_csv, out=folder, **PLAN)
    return folder


def kill_one_worker():
    """Kill -9 a Ray worker that has a run under way."""
    next(process for process in psutil.process_iter(["cmdline"]) if is_at_work(process)).kill()


def is_at_work(process):
    """Whether a process is a Ray worker with a task of ours."""
    return (process.info["cmdline"] or [""])[0].startswith(("ray::full", "ray::lora"))


def test_an_experiment_outlives_a_killed_worker_and_a_lost_node_and_ends_with_the_records_of_the_local_engine(
    cluster, alone, bert, reviews_csv, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path / "home"))
    reporter = Watching(tuning=kill_one_worker, final=lambda: cluster.remove_node(cluster.second, False))
    plan = {**PLAN, "engine": "ray", "address": cluster.address}
    folder = tmp_path / "run"
    table = deltaproof.compare(model=bert, data=reviews_csv, out=folder, reporter=reporter, **plan)
    assert reporter.actions == {}, "both were killed"
    assert any("its node or worker was lost" in text for text in reporter.texts)
    assert capsys.readouterr().out == "", "ray's own word of it goes to stderr: stdout is for `--json`"
    assert {row.status for row in table.rows} == {"done"}
    assert essence(folder) == essence(alone)
    finals = {record.spec.key for record in Store(alone).records() if record.spec.stage == "final"}
    for key in finals:
        assert tensors(folder / "tuned" / key) == tensors(alone / "tuned" / key)
    assert not list((folder / "incoming").glob("*")), "nothing is left half way"
    entered = openings(read_dataset(folder / "data", ()).test.fingerprint)
    assert {entry.reader for entry in entered} == finals, "the driver's ledger knows who looked at the test split"


def tensors(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_an_engine_that_is_stopped_ends_the_runs_on_the_nodes(cluster, alone, tmp_path):
    shutil.copytree(alone / "data", tmp_path / "data")
    engine = RayEngine(cluster.address, print)
    engine.start()
    spec = next(record.spec for record in Store(alone).records() if record.spec.stage == "tuning")
    long = replace(spec, training={**spec.training, "epochs": 100000.0})
    ended, began = [], threading.Event()

    def go():
        try:
            engine.run(Job(long, tmp_path, "cpu"), lambda *values: began.set())
        except Stopped as error:
            ended.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    assert began.wait(300)
    engine.stop()
    thread.join(120)
    assert len(ended) == 1
    deadline = time.monotonic() + 60
    while any(is_at_work(process) for process in psutil.process_iter(["cmdline"])) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not any(is_at_work(process) for process in psutil.process_iter(["cmdline"]))
    engine.close()
    assert not list(tmp_path.glob("records/*"))


def test_a_run_that_no_node_can_take_says_so_and_begins_once_one_joins_that_can(cluster, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "WAITING_SECONDS", 1.0)
    shutil.copytree(alone / "data", tmp_path / "data")
    spec = next(record.spec for record in Store(alone).records() if record.spec.stage == "tuning")
    texts, joined = [], []

    def hear(text):
        texts.append(text)
        joined.append(cluster.add_node(num_cpus=2, env_vars={"TMPDIR": str(tmp_path), "RAY_worker_niceness": "0"}))

    engine = RayEngine(cluster.address, hear)
    engine.start()
    engine._n_threads = 2  # the nodes that there are have one processor each
    try:
        record = engine.run(Job(spec, tmp_path, "cpu"))
    finally:
        engine.close()
        for node in joined:
            cluster.remove_node(node)
    assert record.status == "done"
    assert len(texts) == 1
    assert "no node of the cluster has what it asks for (2 CPU, 0 B of memory); it waits for one to join" in texts[0]


def test_a_head_node_that_falls_silent_is_named_after_a_while_and_nothing_is_asked_of_it(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="127.0.0.1:9"))
    monkeypatch.setattr(membership, "CHECK_SECONDS", 0.0)
    joined = membership.Membership("auto")
    joined.check()
    assert not joined.is_lost, "one that is restarted is silent for a moment, too"
    monkeypatch.setattr(membership, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(DeltaproofError, match=r"head node must answer .* then the same command goes on"):
        joined.check()
    assert joined.is_lost


def test_an_address_of_rays_client_is_refused_with_the_one_that_will_do(bert, reviews_csv, tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(DeltaproofError, match=r"got one of Ray's client, `ray://here:10001`; call on a node"):
        deltaproof.compare(model=bert, data=reviews_csv, out=tmp_path, **PLAN, engine="ray", address="ray://here:10001")


def test_what_hands_errands_on_at_a_node_loads_no_torch():
    code = "import sys, deltaproof.experiments.engines.node; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_ray_that_is_not_installed_is_named_with_its_extra(bert, reviews_csv, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"which is not installed; run `pip install 'deltaproof\[cluster\]'`"):
        deltaproof.compare(model=bert, data=reviews_csv, out=tmp_path, **PLAN, engine="ray")


def test_a_cluster_that_does_not_answer_is_named_with_a_remedy(bert, reviews_csv, tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(
        DeltaproofError, match=r"a Ray cluster must answer at `127.0.0.1:9`, got .*; start one with `ray start"
    ):
        deltaproof.compare(model=bert, data=reviews_csv, out=tmp_path, **PLAN, engine="ray", address="127.0.0.1:9")


def test_a_method_from_a_script_cannot_go_to_nodes_and_says_so(monkeypatch):
    monkeypatch.setattr(cluster_module, "surroundings", lambda: Surroundings((), "study.py", {}))
    with pytest.raises(ConfigError, match=r"a module that nodes can import, got one in the script `study.py`"):
        RayEngine(None, print)


BIG, SMALL = {"CPU": 16.0, "memory": 64e9}, {"CPU": 4.0, "memory": 16e9}
GPUS = {"CPU": 16.0, "GPU": 4.0, "memory": 64e9}


@pytest.mark.parametrize(
    ("nodes", "device", "wanted", "expected", "asked"),
    [
        ([BIG, SMALL], "cpu", None, (20, 1), {"num_cpus": 1, "num_gpus": 0}),
        ([BIG, SMALL], "cpu", 4, (4, 2), {"num_cpus": 2, "num_gpus": 0}),
        ([BIG, SMALL], "cpu", 100, (20, 1), {"num_cpus": 1, "num_gpus": 0}),
        ([GPUS, GPUS], "cuda", None, (8, 1), {"num_cpus": 1, "num_gpus": 1}),
        ([GPUS, GPUS], "cuda", 4, (4, 1), {"num_cpus": 1, "num_gpus": 1}),
        ([GPUS, GPUS], "cuda", 20, (20, 1), {"num_cpus": 1, "num_gpus": 1 / 3}),
    ],
)
def test_a_run_asks_for_its_threads_or_its_share_of_an_accelerator(
    nodes, device, wanted, expected, asked, tmp_path, monkeypatch
):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(cluster_module, "nodes", lambda: nodes)
    engine = RayEngine(None, print)
    slots = engine.slots(device, wanted)
    assert (slots.n_workers, slots.n_threads) == expected
    options = engine._options(Job(Spec("a", {}, {}, {}, {}, {}, 0, "final"), tmp_path, device), is_alone=False)
    assert {name: options[name] for name in asked} == pytest.approx(asked)


def asked_by(engine, folder, is_alone=False, device="cpu"):
    """What a run asks of its node."""
    return engine._options(Job(Spec("a", {}, {}, {}, {}, {}, 0, "final"), folder, device), is_alone)


def test_memory_counts_by_node_and_is_asked_for_with_what_ray_and_the_fork_server_take(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "nodes", lambda: [BIG, SMALL])
    engine = RayEngine(None, print)
    assert engine.workers_in_memory(int(10e9), 20) == 4 + 1, "0.8 of 64 and of 16 GB, by 10.4 GB"
    assert asked_by(engine, tmp_path)["memory"] == int(10.4e9)
    assert engine.workers_in_memory(int(100e9), 20) == 1
    options = asked_by(engine, tmp_path, is_alone=True)
    assert options["memory"] == int(0.8 * 64e9), "no more than the largest node has"
    assert options["num_cpus"] == 16


def test_a_limit_on_memory_lets_no_node_be_given_more_runs_than_it_may_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "nodes", lambda: [BIG, BIG])
    engine = RayEngine(None, print, memory=int(12e9))
    assert engine.memory_bytes() == pytest.approx(12e9 / 1.15)
    assert engine.workers_in_memory(int(5e9), 20) == 2 * 2
    asked = asked_by(engine, tmp_path)["memory"]
    assert 2 * asked <= 64e9 < 3 * asked, "ray places two on a node, never three"


def test_memory_of_nodes_that_take_no_runs_counts_for_nothing(tmp_path, monkeypatch):
    head = {"memory": 256e9}  # as `ray start --head --num-cpus 0` has it
    monkeypatch.setattr(cluster_module, "nodes", lambda: [head, SMALL])
    engine = RayEngine(None, print)
    assert engine.memory_bytes() == pytest.approx(0.8 * 16e9 - 0.4e9)
    assert engine.workers_in_memory(int(100e9), 20) == 1
    assert has_room(SMALL, {"memory": asked_by(engine, tmp_path)["memory"]})


def test_a_run_that_is_to_be_alone_asks_for_what_one_node_has(tmp_path, monkeypatch):
    many_cores, much_memory = {"CPU": 64.0, "memory": 16e9}, {"CPU": 8.0, "GPU": 1.0, "memory": 64e9}
    monkeypatch.setattr(cluster_module, "nodes", lambda: [many_cores, much_memory])
    for device in ("cpu", "cuda"):
        engine = RayEngine(None, print)
        engine.slots(device, None)
        engine.workers_in_memory(int(100e9), 20)
        options = asked_by(engine, tmp_path, is_alone=True, device=device)
        asked = {"CPU": options["num_cpus"], "GPU": options["num_gpus"], "memory": options["memory"]}
        assert has_room(much_memory, asked)
        assert asked["CPU"] == 8


def test_a_cluster_without_accelerators_refuses_cuda(monkeypatch):
    monkeypatch.setattr(cluster_module, "nodes", lambda: [BIG])
    with pytest.raises(ConfigError, match=r"must have accelerators for `cuda`, it has none; use `--device cpu`"):
        RayEngine(None, print).slots("cuda", None)


def test_files_that_travel_arrive_whole_all_or_none_and_the_record_last(tmp_path, monkeypatch):
    monkeypatch.setattr(parcel, "CHUNK_BYTES", 7)
    there, here = tmp_path / "there", tmp_path / "here"
    job = Job(Spec("a", {}, {}, {}, {}, {}, 0, "final"), there, "cpu")
    key = job.spec.key
    content = {
        f"tuned/{key}/deltaproof.json": b"{}",
        f"tuned/{key}/model.safetensors": bytes(range(100)),
        f"records/{key}.json": b"x",
        f"checkpoints/{key}/checkpoint.json": b"",
        f"checkpoints/{key}/step-2.safetensors": b"1234567",
    }
    for name, value in content.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(value)
    incoming, order = parcel.Incoming(here), []
    for piece in parcel.pieces(there, parcel.files_of(job)):
        incoming.take(piece)
        order += [piece[0]] if piece[0] not in order else []
    assert not (here / "records").exists(), "nothing is in place before all has come"
    assert order[-1] == f"records/{key}.json"
    assert order.index(f"tuned/{key}/deltaproof.json") > order.index(f"tuned/{key}/model.safetensors")
    assert order.index(f"checkpoints/{key}/checkpoint.json") > order.index(f"checkpoints/{key}/step-2.safetensors")
    incoming.settle()
    assert {name: (here / name).read_bytes() for name in content} == content
    assert not list((here / "incoming").glob("*"))


def test_a_carried_model_is_found_by_the_name_that_it_had(bert, monkeypatch):
    monkeypatch.setenv(*next(iter(as_variables({"/nowhere/bert": bert}).items())))
    found = load_backbone("/nowhere/bert", "classification", 2)
    assert (found.name, found.fingerprint) == (
        "/nowhere/bert",
        load_backbone(str(bert), "classification", 2).fingerprint,
    )
