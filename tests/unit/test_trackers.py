"""Trackers write curves that the tool itself reads back, into the given folder, and send nothing anywhere."""

import importlib.util
import math
import os
import sqlite3
import subprocess
import sys
import textwrap
from types import ModuleType

import pytest

from deltaproof.errors import ConfigError, MissingExtraError
from deltaproof.trackers import TRACKERS, open_tracker

NAMES = ["trackio", "mlflow", "wandb", "tensorboard"]
DESTINATIONS = ("TRACKIO_", "MLFLOW_", "WANDB_")


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"the extra [{package}] is not installed")


def log_two_runs_in_turns(name, folder):
    """Two runs that take turns, in a process of its own as trackers keep global state; returns what it printed."""
    code = f"""
        from deltaproof.trackers import open_tracker
        tracker = open_tracker({name!r}, {str(folder)!r})
        tracker.start("reviews", {{"methods": ["full", "lora"], "seed": 0}})
        tracker.log("full/seed0", 0, {{"train_loss": 1.0}})
        tracker.log("lora(rank=8)/seed0", 0, {{"train_loss": 0.75}})
        tracker.log("full/seed0", 1, {{"train_loss": 0.5, "accuracy": 0.875}})
        tracker.finish()
        print("data")
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(DESTINATIONS)}
    clean["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


EXPECTED = {
    ("full/seed0", "train_loss"): [(0, 1.0), (1, 0.5)],
    ("full/seed0", "accuracy"): [(1, 0.875)],
    ("lora(rank=8)/seed0", "train_loss"): [(0, 0.75)],
}


def test_the_four_trackers_of_the_issue_are_known():
    assert sorted(TRACKERS) == sorted(NAMES)


def test_an_unknown_tracker_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"no tracker is called `wandbb`; did you mean `wandb`\?"):
        open_tracker("wandbb", tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_names_the_extra_and_the_command(name, tmp_path, monkeypatch):
    for module in (name, f"{name}.entities", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)  # what Python keeps for a module that must not be found
    with pytest.raises(MissingExtraError) as error:
        open_tracker(name, tmp_path)
    assert f"needs the package `{name}`" in str(error.value)
    assert f"pip install 'deltaproof[{name}]'" in str(error.value)


@needs("tensorboard")
def test_tensorboard_reads_back_what_was_logged(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert log_two_runs_in_turns("tensorboard", tmp_path) == "data\n"
    curves = {}
    for (run, key), _ in EXPECTED.items():
        events = EventAccumulator(str(tmp_path / "reviews" / run.replace("/", "_"))).Reload()
        curves[run, key] = [(event.step, event.value) for event in events.Scalars(key)]
        assert b'"methods"' in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    assert curves == EXPECTED


@needs("trackio")
def test_trackio_keeps_what_was_logged_in_the_folder(tmp_path):
    assert log_two_runs_in_turns("trackio", tmp_path) == "data\n"
    with sqlite3.connect(tmp_path / "reviews.db") as database:
        rows = database.execute("select run_name, step, json_extract(metrics, '$.train_loss') from metrics").fetchall()
    assert sorted(rows) == [("full/seed0", 0, 1.0), ("full/seed0", 1, 0.5), ("lora(rank=8)/seed0", 0, 0.75)]


@needs("mlflow")
def test_mlflow_reads_back_what_was_logged(tmp_path):
    from mlflow import MlflowClient

    assert log_two_runs_in_turns("mlflow", tmp_path) == "data\n"
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("reviews").experiment_id])
    curves = {
        (run.info.run_name, key): [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
        for run in runs
        for key in run.data.metrics
    }
    assert curves == EXPECTED
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.params["methods"] for run in runs} == {"['full', 'lora']"}
    assert not (tmp_path / "mlruns").exists()


@needs("wandb")
def test_wandb_writes_one_offline_run_each(tmp_path):
    assert log_two_runs_in_turns("wandb", tmp_path) == "data\n"
    written = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(written) == 2
    content = b"".join(file.read_bytes() for file in written)
    for word in (b"full/seed0", b"lora(rank=8)/seed0", b"train_loss", b"0.875"):
        assert word in content


class FakeWandb(ModuleType):
    """Stands in for wandb where it is not installed; keeps what it was told."""

    def __init__(self):
        super().__init__("wandb")
        self.opened, self.logged, self.finished = [], [], 0

    def init(self, **options):
        print("a banner")
        self.opened.append(options)
        fake, name = self, options["name"]

        class Run:
            def log(self, values, step):
                fake.logged.append((name, step, values))

            def finish(self):
                fake.finished += 1

        return Run()


@pytest.fixture
def fake_wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_MODE", "WANDB_SILENT", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "to be restored")  # so that what the tracker sets is undone after the test
        monkeypatch.delenv(name)
    return fake


def test_wandb_stays_offline_unless_the_user_says_otherwise(fake_wandb, tmp_path, monkeypatch, capsys):
    tracker = open_tracker("wandb", tmp_path)
    tracker.start("reviews", {"seed": 0})
    tracker.log("full", 0, {"train_loss": math.nan})
    monkeypatch.setenv("WANDB_MODE", "online")
    tracker.log("lora", 0, {"train_loss": 1.0})
    tracker.log("full", 1, {"train_loss": 0.5})
    tracker.finish()
    assert [(run["name"], run["mode"], run["dir"]) for run in fake_wandb.opened] == [
        ("full", "offline", str(tmp_path)),
        ("lora", "online", str(tmp_path)),
    ]
    assert [(name, step) for name, step, _ in fake_wandb.logged] == [("full", 0), ("lora", 0), ("full", 1)]
    assert fake_wandb.finished == 2
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert capsys.readouterr().out == ""


def test_a_finished_tracker_can_be_finished_again(fake_wandb, tmp_path):
    tracker = open_tracker("wandb", tmp_path)
    tracker.start("reviews", {})
    tracker.log("full", 0, {"train_loss": 1.0})
    tracker.finish()
    tracker.finish()
    assert fake_wandb.finished == 1


def test_a_run_name_stays_inside_its_folder():
    from deltaproof.trackers import _file_name

    assert _file_name("../../lora(rank=8)/seed 0") == "_.._lora(rank=8)_seed_0"
    with pytest.raises(ConfigError, match=r"got '\.\.'"):
        _file_name("..")
