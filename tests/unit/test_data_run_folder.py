"""A data set written to a run folder is read back as it was."""

import numpy as np
import pytest

from deltaproof.data.load import load_data
from deltaproof.data.run_folder import read_dataset, write_splits
from deltaproof.errors import DataError, RecordError


@pytest.fixture(autouse=True)
def own_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path / "home"))


def rows(n=60):
    return [{"text": f"first {i}", "other": f"naïve\n{i}", "label": i % 3, "who": f"w{i // 2}"} for i in range(n)]


SOURCES = {
    "pairs with groups": (rows(), {"text": "text,other", "label": "label", "group": "who"}),
    "classification": (rows(), {"text": "text", "label": "label"}),
    "regression": ([{"text": f"t{i}", "score": i / 7} for i in range(50)], {}),
    "multi-label": ([{"text": f"t{i}", "a": i % 2, "b": int(i % 3 == 0)} for i in range(50)], {"label": "a,b"}),
}


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_written_is_read_back_the_same(tmp_path, source):
    data, options = SOURCES[source]
    dataset = load_data(data, **options)
    write_splits(dataset, tmp_path / "run")
    again = read_dataset(tmp_path / "run")
    for field in ("name", "kind", "labels", "text_columns", "label_column", "fingerprint", "notes"):
        assert getattr(again, field) == getattr(dataset, field)
    pairs = [
        (dataset.train, again.train),
        (dataset.validation, again.validation),
        (dataset.test.open("a"), again.test.open("b")),
    ]
    for one, other in pairs:
        assert (one.name, one.ids, one.texts, one.groups, one.fingerprint) == (
            other.name,
            other.ids,
            other.texts,
            other.groups,
            other.fingerprint,
        )
        np.testing.assert_array_equal(one.targets, other.targets)
        assert other.targets.flags.c_contiguous


def test_writing_the_same_data_again_changes_nothing_and_repairs_what_is_gone(tmp_path):
    write_splits(load_data(rows(), text="text"), tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.*")}
    assert set(before) == {"train.parquet", "validation.parquet", "test.parquet", "dataset.json"}
    write_splits(load_data(rows(), text="text"), tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.*")} == before
    (tmp_path / "test.parquet").unlink()
    assert len(write_splits(load_data(rows(), text="text"), tmp_path).test.open("reader")) == 12


def test_a_folder_with_other_data_is_refused(tmp_path):
    write_splits(load_data(rows(), text="text"), tmp_path)
    with pytest.raises(DataError, match=r"must hold the data of this comparison .* give another folder with `--out`"):
        write_splits(load_data(rows(), text="text", seed=1), tmp_path)


def test_a_worker_reads_only_the_splits_it_asks_for(tmp_path):
    write_splits(load_data(rows(), text="text"), tmp_path)
    (tmp_path / "train.parquet").unlink()
    dataset = read_dataset(tmp_path, ["validation"])
    assert (len(dataset.train), len(dataset.validation)) == (0, 6)
    with pytest.raises(DataError, match=r"got `test`; the test split opens with `dataset\.test\.open"):
        read_dataset(tmp_path, ["test"])


def test_a_folder_without_data_is_an_error_of_ours(tmp_path):
    with pytest.raises(RecordError, match="must exist"):
        read_dataset(tmp_path)
