"""Runs of equal settings are taken over from other run folders, whole or not at all."""

import json
import shutil

import pytest

import deltaproof
from deltaproof.data.ledger import openings
from deltaproof.data.run_folder import read_dataset
from deltaproof.errors import ConfigError
from deltaproof.experiments.engines.local import LocalEngine
from deltaproof.experiments.reuse import Reuse
from deltaproof.records.store import Store, read_json, write_json
from small import FAST, essence

PLAN = {**FAST, "methods": "lora(rank=2)", "learning_rates": "1e-3,1e-2", "seeds": 1, "baselines": False}


@pytest.fixture(scope="module")
def earlier(bert, reviews_csv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "earlier"
    deltaproof.compare(model=bert, data=reviews_csv, out=folder, **PLAN)
    return folder


@pytest.fixture
def engine_calls(monkeypatch):
    """Keys of the runs that an engine is asked for."""
    asked, run = [], LocalEngine.run
    monkeypatch.setattr(
        LocalEngine, "run", lambda self, job, *rest: asked.append(job.spec.key) or run(self, job, *rest)
    )
    return asked


def final_of(folder):
    (record,) = [record for record in Store(folder).records() if record.spec.stage == "final"]
    return record


def sealed(folder):
    return read_dataset(folder / "data", ()).test


def test_equal_runs_are_taken_over_with_predictions_and_model_and_entered_in_the_ledger(
    earlier, bert, reviews_csv, tmp_path, engine_calls, monkeypatch
):
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "now"
    table = deltaproof.compare(model=bert, data=reviews_csv, out=folder, reuse=str(earlier), **PLAN)
    assert engine_calls == []
    assert essence(folder) == essence(earlier)
    assert table.row("lora(rank=2)").notes[-1] == "3 runs of equal settings taken over from earlier, not trained again"
    assert (folder / "best" / "deltaproof.json").exists()
    assert [entry.reader for entry in openings(sealed(folder).fingerprint)] == [final_of(earlier).spec.key]


def test_a_run_that_differs_in_one_setting_is_trained(earlier, bert, reviews_csv, tmp_path, engine_calls):
    plan = {**PLAN, "epochs": 2}
    deltaproof.compare(model=bert, data=reviews_csv, out=tmp_path / "now", reuse=str(earlier), **plan)
    assert len(engine_calls) == 3


@pytest.fixture
def there(earlier, tmp_path):
    """A copy of the earlier folder that a test may spoil, and a new run folder on the same data."""
    shutil.copytree(earlier, tmp_path / "there", symlinks=True)
    shutil.copytree(earlier / "data", tmp_path / "here" / "data")
    return tmp_path / "there", Reuse.of(Store(tmp_path / "here"), [str(tmp_path / "there")], "best")


def test_a_final_run_without_its_predictions_is_not_taken(there):
    folder, reuse = there
    spec = final_of(folder).spec
    Store(folder).predictions_path(spec.key).write_bytes(b"torn")
    assert reuse.fetch(spec) is None
    assert not Store(reuse.store.folder).record_path(spec.key).exists()


def test_a_final_run_on_another_test_split_is_not_taken(there):
    folder, reuse = there
    facts = read_json(folder / "data" / "dataset.json")
    write_json(folder / "data" / "dataset.json", {**facts, "test": {**facts["test"], "fingerprint": "0" * 16}})
    assert reuse.fetch(final_of(folder).spec) is None


def test_a_record_under_a_name_that_is_not_its_own_is_not_taken(there):
    folder, reuse = there
    record = final_of(folder)
    path = Store(folder).record_path(record.spec.key)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "spec": {**content["spec"], "seed": 7}}))
    assert reuse.fetch(record.spec) is None


@pytest.mark.parametrize("status", ["failed", "out_of_memory"])
def test_a_run_that_ended_badly_elsewhere_is_tried_here(there, status):
    folder, reuse = there
    record = final_of(folder)
    path = Store(folder).record_path(record.spec.key)
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": status}))
    assert reuse.fetch(record.spec) is None


def test_a_folder_that_is_no_run_folder_is_named(bert, reviews_csv, tmp_path):
    with pytest.raises(ConfigError, match=r"`reuse` must name run folders, `.*nothing` holds no `records`"):
        deltaproof.compare(model=bert, data=reviews_csv, out=tmp_path, reuse=str(tmp_path / "nothing"), **PLAN)
