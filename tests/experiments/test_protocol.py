"""One experiment from start to end, and what must hold of its records."""

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats as scipy_stats

import deltaproof
from deltaproof.data.run_folder import read_dataset
from deltaproof.data.split_file import read_split
from deltaproof.errors import DataError, RecordError
from deltaproof.evaluation.predict import predict
from deltaproof.experiments import other_versions, specs
from deltaproof.experiments.engines.local import LocalEngine
from deltaproof.experiments.jobs import Job
from deltaproof.experiments.run import run, use_threads
from deltaproof.experiments.table import table_from
from deltaproof.experiments.tuning import best_rate
from deltaproof.records.store import Store, read_json
from deltaproof.saving.folder import load_tuned
from small import FAST, Sayings, essence

PLAN = {**FAST, "methods": "full,lora(rank=2),head", "trials": 3, "seeds": 2, "margin": 0.05}


@pytest.fixture(scope="module")
def finished(bert, reviews_csv, tmp_path_factory):
    """A finished experiment: its table and folder."""
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    return deltaproof.compare(model=bert, data=reviews_csv, out=folder, **PLAN), folder


@pytest.fixture(scope="module")
def document(finished):
    return json.loads((finished[1] / "experiment.json").read_text())


def records_of(folder, stage):
    return [record for record in Store(folder).records() if record.spec.stage == stage]


def test_every_contestant_gets_the_same_trials_around_its_own_centre(document):
    for entry in document["contestants"]:
        rates = [trial["learning_rate"] for trial in entry["trials"]]
        assert rates == pytest.approx([entry["centre"] / 10**0.5, entry["centre"], entry["centre"] * 10**0.5], rel=0.03)


def test_the_rate_with_the_best_validation_score_is_chosen_and_an_edge_is_flagged(document):
    for entry in document["contestants"]:
        scores = {trial["learning_rate"]: trial["score"] for trial in entry["trials"]}
        assert entry["learning_rate"] == best_rate(scores)
        assert entry["at_edge"] == (entry["learning_rate"] in (min(scores), max(scores)))


def test_final_runs_differ_in_the_seed_only_and_never_use_the_tuning_seed(finished):
    finals, tunings = records_of(finished[1], "final"), records_of(finished[1], "tuning")
    for name in finished[0].experiment["plan"]["methods"]:
        mine = [record.spec for record in finals if record.spec.contestant == name]
        assert sorted(spec.seed for spec in mine) == [0, 1]
        assert len({json.dumps({**vars(spec), "seed": None}, sort_keys=True, default=str) for spec in mine}) == 1
        assert set(mine[0].parents) == {record.spec.key for record in tunings if record.spec.contestant == name}
    assert not {record.spec.seed for record in finals} & {record.spec.seed for record in tunings}


def test_all_runs_share_data_task_and_training_but_for_the_rate(finished):
    every = [*records_of(finished[1], "final"), *records_of(finished[1], "tuning")]
    shared = {
        json.dumps([spec.data, spec.task, spec.model, {**spec.training, "learning_rate": 0}])
        for spec in (record.spec for record in every)
    }
    assert len(shared) == 1


def test_only_final_runs_and_baselines_have_test_scores(finished):
    assert all(record.test == {} for record in records_of(finished[1], "tuning"))
    for stage in ("final", "baseline"):
        assert all(set(record.test) == set(record.validation) != set() for record in records_of(finished[1], stage))


def test_scores_are_those_of_the_stored_predictions(finished):
    store = Store(finished[1])
    for record in records_of(finished[1], "final"):
        answers = store.predictions(record.spec.key)
        right = answers.outputs.argmax(1) == answers.targets[:, 0]
        assert record.test["accuracy"] == pytest.approx(right.mean())
        assert answers.outputs.sum(1) == pytest.approx(np.ones(len(right)))


def test_the_difference_is_that_of_the_means_and_its_interval_that_of_the_recipe(finished):
    table, folder = finished
    store = Store(folder)

    def correct(name):
        found = [store.predictions(key) for key in table.row(name).keys]
        return np.stack([(answer.outputs.argmax(1) == answer.targets[:, 0]).astype(float) for answer in found])

    difference = correct("head") - correct("full")
    n_seeds, n = difference.shape
    ms_s = n * difference.mean(1).var(ddof=1)
    ms_e = n_seeds * difference.mean(0).var(ddof=1)
    error = ((ms_s + ms_e) / (n * n_seeds)) ** 0.5
    freedom = (ms_s + ms_e) ** 2 / (ms_s**2 / (n_seeds - 1) + ms_e**2 / (n - 1))
    if ms_s > ms_e / 2:
        freedom = n_seeds - 1
    comparison = table.row("head").comparison
    assert comparison.difference == pytest.approx(difference.mean())
    half = scipy_stats.t.ppf(0.975, freedom) * error
    assert comparison.high - comparison.low == pytest.approx(2 * half, rel=1e-6)


def test_costs_are_measured(finished):
    for row in finished[0].rows:
        assert row.cost["n_trainable"] > 0
        assert row.cost["train_seconds"] > 0
        assert row.cost["peak_memory_bytes"] > 0
        assert row.cost["latency_seconds"] > 0
        assert row.cost["train_flops"] > 0
    n_trainable = {row.name: row.cost["n_trainable"] for row in finished[0].rows}
    assert n_trainable["head"] < n_trainable["lora(rank=2)"] < n_trainable["full"]
    assert finished[0].row("full").cost["trainable_fraction"] == 1.0


def test_estimate_and_measurement_stand_side_by_side(document):
    for entry in document["contestants"]:
        assert entry["estimate"]["fits"] is True
        assert entry["estimate"]["seconds"] > 0
        assert entry["measured"]["seconds"] > 0
        assert entry["measured"]["peak_memory_bytes"] > 0
    each = [entry["estimate"]["seconds"] for entry in document["contestants"]]
    assert sum(each) / document["workers"] - 1e-6 <= document["estimated_seconds"] <= sum(each) + 1e-6
    measured = [entry["measured"]["seconds"] for entry in document["contestants"]]
    assert document["measured_seconds"] == pytest.approx(sum(measured) / document["workers"])


def test_openings_are_counted_once_per_final_run_and_baseline(document):
    assert document["data"]["openings"] == 3 * 2 + 2


def test_the_recommended_contestants_best_run_on_validation_is_kept(finished):
    table, folder = finished
    kept = {path.name for path in (folder / "tuned").iterdir()}
    assert len(kept) == 3
    best = (folder / "best").resolve().name
    runs = {record.spec.key: record for record in records_of(folder, "final")}
    assert runs[best].spec.contestant == table.recommendation.name
    mine = [record for record in runs.values() if record.spec.contestant == table.recommendation.name]
    assert runs[best].validation["accuracy"] == max(record.validation["accuracy"] for record in mine)


def test_the_same_call_again_measures_nothing_and_says_the_same(finished, bert, reviews_csv):
    table, folder = finished
    times = {path: path.stat().st_mtime_ns for path in (folder / "records").iterdir()}
    again = deltaproof.compare(model=bert, data=reviews_csv, out=folder, **PLAN)
    assert {path: path.stat().st_mtime_ns for path in (folder / "records").iterdir()} == times
    assert again.to_json() == table.to_json() == table_from(Store(folder)).to_json()


def test_models_that_were_not_kept_come_back_when_they_are_asked_for(finished, bert, reviews_csv, tmp_path):
    """Trained again they answer to the bit as on record, and neither a record nor the sealed test split is touched."""
    folder = tmp_path / "run"
    shutil.copytree(finished[1], folder, symlinks=True)
    before = essence(folder)
    times = {path: path.stat().st_mtime_ns for path in (folder / "records").iterdir()}
    kept = {path.name for path in (folder / "tuned").iterdir()}
    said = Sayings()
    deltaproof.compare(model=bert, data=reviews_csv, out=folder, keep="all", reporter=said, **PLAN)
    finals = records_of(folder, "final")
    assert {path.name for path in (folder / "tuned").iterdir()} == {record.spec.key for record in finals}
    assert sum("training again for its model" in text for text in said.texts) == len(finals) - len(kept) == 3
    assert essence(folder) == before
    assert {path: path.stat().st_mtime_ns for path in (folder / "records").iterdir()} == times
    for record in finals:
        tuned, task, _ = load_tuned(folder / "tuned" / record.spec.key)
        test = read_split(folder / "data" / "test.parquet", "test")
        rows = task.encode(tuned.backbone.tokenizer, test)
        use_threads(record.spec)
        outputs = predict(tuned, task, rows, tuned.backbone.tokenizer.pad_token_id, 32, "fp32")
        np.testing.assert_array_equal(outputs, Store(folder).predictions(record.spec.key).outputs)


def test_snapshots_that_were_not_asked_for_come_with_another_training(finished, bert, reviews_csv, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[1], folder, symlinks=True)
    before = essence(folder)
    deltaproof.compare(model=bert, data=reviews_csv, out=folder, keep="snapshots", **PLAN)
    assert essence(folder) == before
    for record in records_of(folder, "final"):
        steps = read_json(folder / "snapshots" / record.spec.key / "snapshots.json")["steps"]
        files = [folder / "snapshots" / record.spec.key / f"step-{step}.safetensors" for step in steps]
        assert files
        assert all(file.exists() for file in files)
    said = Sayings()
    deltaproof.compare(model=bert, data=reviews_csv, out=folder, keep="snapshots", reporter=said, **PLAN)
    assert not any("training again" in text for text in said.texts)


def test_a_training_that_goes_another_way_brings_no_model_back(finished, bert, reviews_csv, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[1], folder, symlinks=True)
    record = next(r for r in records_of(folder, "final") if not (folder / "tuned" / r.spec.key).exists())
    path = Store(folder).record_path(record.spec.key)
    path.write_text(json.dumps({**json.loads(path.read_text()), "history": []}))
    said = Sayings()
    deltaproof.compare(model=bert, data=reviews_csv, out=folder, keep="all", reporter=said, **PLAN)
    assert not (folder / "tuned" / record.spec.key).exists()
    assert any("must go as on record" in text and "a new folder with `--keep all`" in text for text in said.texts)


def test_a_method_that_joins_later_finds_the_others_runs(finished, bert, reviews_csv, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(finished[1], folder, symlinks=True)
    before = {path.name for path in (folder / "records").iterdir()}
    table = deltaproof.compare(model=bert, data=reviews_csv, out=folder, **{**PLAN, "methods": "full,bitfit"})
    after = {path.name for path in (folder / "records").iterdir()}
    assert len(after - before) == 3 + 2
    assert [row.name for row in table.rows] == ["full", "bitfit"]


def test_a_folder_of_another_model_or_of_other_data_is_refused(finished, bert, reviews_csv, tmp_path):
    from deltaproof.backbones import save_tiny
    from small import write_reviews

    other = save_tiny("bert", tmp_path / "other", seed=1)
    with pytest.raises(RecordError, match=r"holds one on the model .*; give another folder"):
        deltaproof.compare(model=other, data=reviews_csv, out=finished[1], **PLAN)
    with pytest.raises(DataError, match="give another folder"):
        deltaproof.compare(model=bert, data=write_reviews(tmp_path / "r.csv", seed=3), out=finished[1], **PLAN)


def test_a_dry_run_measures_steps_and_leaves_no_records(bert, reviews_csv, tmp_path):
    table = deltaproof.compare(model=bert, data=reviews_csv, out=tmp_path / "dry", dry_run=True, **PLAN)
    assert {path.name for path in (tmp_path / "dry").iterdir()} == {"data", "probes", "locks"}
    assert table.experiment["estimated_seconds"] > 0
    assert [row.status for row in table.rows] == ["missing"] * 3


def test_runs_of_other_library_versions_are_left_out_and_spoken_of(finished, bert, reviews_csv, tmp_path, monkeypatch):
    folder = tmp_path / "versions"
    shutil.copytree(finished[1], folder, symlinks=True)
    plan = {**PLAN, "methods": "head"}
    real = specs.versions
    for module in (specs, other_versions):
        monkeypatch.setattr(module, "versions", lambda *names: {**real(*names), "torch": "99.0"})
    before = set(finished[0].row("head").keys)
    table = deltaproof.compare(model=bert, data=reviews_csv, out=folder, **plan)
    assert not before & set(table.row("head").keys)
    note = next(note for note in table.row("head").notes if "left out" in note)
    assert note.startswith("5 runs are in this folder and left out: made with torch ")
    assert note.endswith(" (99.0 now)")


# --- sealing


def test_the_test_split_is_opened_by_final_evaluation_and_baselines_alone():
    places = []
    package = Path(deltaproof.__path__[0])
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_open = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "open"
            if is_open and isinstance(node.func.value, ast.Attribute) and node.func.value.attr == "test":
                places.append(path.relative_to(package).as_posix())
    assert [place for place in places if not place.startswith("report/")] == [
        "experiments/baselines.py",
        "experiments/run.py",
        "studies/composition.py",  # of a compressed expert on another's task, and of a merge: where that was asked for
        "studies/kept_models.py",  # the final evaluation of a study, by `Bed.open_test`
        "studies/merging.py",
    ]


def test_tuning_and_probing_work_without_the_test_rows_on_disk(finished, tmp_path):
    shutil.copytree(finished[1] / "data", tmp_path / "data")
    (tmp_path / "data" / "test.parquet").unlink()
    trial = records_of(finished[1], "tuning")[0]
    job = Job(trial.spec, tmp_path, "cpu")
    assert LocalEngine().probe(job).step_seconds > 0
    assert LocalEngine().run(job).validation == trial.validation
    final = Job(records_of(finished[1], "final")[0].spec, tmp_path, "cpu")
    with pytest.raises(DataError, match="must hold the test split"):
        LocalEngine().run(final)


def test_changed_test_labels_change_final_test_scores_and_nothing_else(finished, bert, tmp_path):
    """The splits are given as files, so that nothing but the labels of the test rows differs."""
    from small import reviews, write_csv

    files = {}
    for name, n_rows, seed in (("train", 64, 1), ("validation", 16, 2), ("test", 32, 3)):
        files[name] = write_csv(tmp_path / f"{name}.csv", ["text", "label"], [[t, y] for t, y in reviews(n_rows, seed)])
    turned = write_csv(tmp_path / "turned.csv", ["text", "label"], [[t, 1 - y] for t, y in reviews(32, 3)])
    plan = {**FAST, "methods": "lora", "learning_rates": "1e-3,1e-2", "seeds": 1, "baselines": False}
    plan |= {"model": bert, "data": files["train"], "validation": files["validation"]}
    deltaproof.compare(out=tmp_path / "a", test=files["test"], **plan)
    deltaproof.compare(out=tmp_path / "b", test=turned, **plan)
    for stage in ("tuning", "final"):
        first, second = records_of(tmp_path / "a", stage), records_of(tmp_path / "b", stage)
        key = lambda record: record.spec.training["learning_rate"]  # noqa: E731
        for ours, theirs in zip(sorted(first, key=key), sorted(second, key=key), strict=True):
            assert ours.validation == theirs.validation
            assert ours.history == theirs.history
            if stage == "final":
                assert ours.test["accuracy"] == pytest.approx(1 - theirs.test["accuracy"])


def test_the_rows_that_a_run_reads_are_those_that_were_split(finished):
    dataset = read_dataset(finished[1] / "data")
    assert len(dataset.test.open("a test of the tests")) == dataset.test.n_rows
    assert pq.ParquetFile(finished[1] / "data" / "train.parquet").metadata.num_rows == len(dataset.train)


def test_a_run_alone_in_this_process_gives_what_the_worker_gave(finished, tmp_path):
    """The engine adds nothing: `run` is the experiment's every run."""
    shutil.copytree(finished[1] / "data", tmp_path / "data")
    spec = records_of(finished[1], "final")[0].spec
    run(Job(spec, tmp_path, "cpu"))
    mine, theirs = essence(tmp_path), essence(finished[1])
    assert mine["records"][spec.key] == theirs["records"][spec.key]
    assert mine["predictions"][spec.key] == theirs["predictions"][spec.key]
