"""The test split is sealed: rows come out through `open` alone, and every opening is counted."""

import copy
import dataclasses
import json
import multiprocessing
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import deltaproof
from deltaproof.data import sealed as sealed_module
from deltaproof.data.ledger import check_ledger, ledger_path, openings, record_opening
from deltaproof.data.load import load_data
from deltaproof.data.run_folder import read_dataset, write_splits
from deltaproof.data.sealed import SealedSplit
from deltaproof.data.split import Split
from deltaproof.errors import DataError

SECRET = "known to the sealed rows only"


@pytest.fixture(autouse=True)
def own_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path / "home"))


def test_split():
    return Split("test", ["a:1", "a:2"], [(SECRET,), (SECRET + "!",)], np.array([[0.0], [1.0]]))


test_split.__test__ = False


def a_dataset():
    return load_data([{"text": f"text {i}", "label": i % 2} for i in range(100)])


def stored(tmp_path):
    return SealedSplit.seal(test_split()).store(tmp_path / "test.parquet")


def everything_reachable(thing, depth=6, seen=None):
    """What attributes, items and the garbage collector's view of attributes lead to, without calling anything."""
    seen = set() if seen is None else seen
    if depth == 0 or id(thing) in seen or isinstance(thing, type | Path):
        return
    seen.add(id(thing))
    yield thing
    inside = [getattr(thing, name) for name in dir(thing) if not name.startswith("__")]
    inside += list((getattr(thing, "__dict__", None) or {}).values())
    if isinstance(thing, dict):
        inside += [*thing, *thing.values()]
    if isinstance(thing, list | tuple | set):
        inside += list(thing)
    for item in inside:
        if not callable(item):
            yield from everything_reachable(item, depth - 1, seen)


@pytest.mark.parametrize("place", ["memory", "file"])
def test_no_attribute_iteration_print_copy_or_pickle_shows_a_row(tmp_path, place):
    sealed = SealedSplit.seal(test_split()) if place == "memory" else stored(tmp_path)
    assert all(SECRET not in str(thing) for thing in everything_reachable(sealed))
    assert SECRET not in repr(sealed) + str(sealed) + f"{sealed}"
    assert not hasattr(sealed, "__dict__")
    for attempt in (
        lambda: list(sealed),
        lambda: sealed[0],
        lambda: sealed.texts,
        lambda: sealed.targets,
        lambda: [*sealed],
        lambda: len(sealed),
    ):
        with pytest.raises((DataError, TypeError, AttributeError)):
            attempt()
    with pytest.raises(AttributeError):
        sealed.rows = []
    assert copy.copy(sealed) is sealed
    assert copy.deepcopy(sealed) is sealed
    if place == "file":
        assert SECRET.encode() not in pickle.dumps(sealed)
        assert pickle.loads(pickle.dumps(sealed)).open("reader").texts[0] == (SECRET,)
    else:
        with pytest.raises(DataError, match="must be stored before it goes to another process"):
            pickle.dumps(sealed)
    assert [entry.reader for entry in sealed.openings()] == (["reader"] if place == "file" else [])


def test_a_data_set_as_plain_values_shows_no_test_row():
    dataset = a_dataset()
    shown = str(dataclasses.asdict(dataset)) + repr(dataset)
    hidden = dataset.test.open("a test")
    assert not any(re.search(rf"'{re.escape(text)}'", shown) for (text,) in hidden.texts)
    assert not any(re.search(rf"'{re.escape(row_id)}'", shown) for row_id in hidden.ids)


def test_open_gives_the_rows_and_enters_the_reader_first(tmp_path, monkeypatch):
    sealed = stored(tmp_path)
    order = []
    monkeypatch.setattr(sealed_module, "record_opening", lambda *entry: order.append(entry))
    real = sealed_module.read_split
    monkeypatch.setattr(sealed_module, "read_split", lambda *where: order.append("read") or real(*where))
    rows = sealed.open("run 7")
    assert order == [(sealed.fingerprint, "run 7"), "read"]
    assert (rows.texts, rows.ids, rows.targets.tolist()) == (test_split().texts, ["a:1", "a:2"], [[0.0], [1.0]])


def test_nothing_in_the_package_reads_the_test_file_but_the_sealed_split():
    package = Path(deltaproof.__path__[0])
    for path in package.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        inside = path.relative_to(package).as_posix()
        if inside != "data/run_folder.py":
            assert not re.search(r"test\.parquet|\"test\".*\.parquet", source), inside
        if inside not in ("data/sealed.py", "data/run_folder.py", "data/split_file.py"):
            assert "read_split" not in source, inside
        if inside != "data/sealed.py":
            assert "_IN_MEMORY" not in source, inside


def test_reading_the_other_splits_never_touches_the_test_file(tmp_path):
    dataset = write_splits(a_dataset(), tmp_path / "data")
    (tmp_path / "data" / "test.parquet").unlink()
    again = read_dataset(tmp_path / "data")
    assert again.train.texts == dataset.train.texts
    assert (again.test.n_rows, again.test.fingerprint) == (20, dataset.test.fingerprint)
    assert openings(dataset.test.fingerprint) == []
    with pytest.raises(DataError, match="must hold the test split"):
        again.test.open("reader")


def test_changed_test_rows_are_refused(tmp_path):
    sealed = stored(tmp_path)
    other = Split("test", ["a:1", "a:2"], [("x",), ("y",)], np.array([[0.0], [1.0]]))
    SealedSplit.seal(other).store(tmp_path / "test.parquet")
    with pytest.raises(DataError, match="must hold the test rows as they were sealed"):
        sealed.open("reader")


def test_a_reader_is_counted_once_for_each_test_set():
    sealed, other = SealedSplit.seal(test_split()), a_dataset().test
    for reader in ("one", "two", "one", "one"):
        sealed.open(reader)
    other.open("one")
    assert [entry.reader for entry in openings(sealed.fingerprint)] == ["one", "two"]
    assert [entry.reader for entry in openings(other.fingerprint)] == ["one"]
    assert len(ledger_path().read_text().splitlines()) == 3
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", entry.time) for entry in openings(sealed.fingerprint)
    )


def test_the_same_rows_under_another_file_name_are_the_same_test_set(tmp_path):
    lines = "text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(60))
    datasets = []
    for name in ("first.csv", "renamed.csv"):
        (tmp_path / name).write_text(lines)
        datasets.append(load_data(tmp_path / name))
    datasets[0].test.open("monday")
    assert [entry.reader for entry in datasets[1].test.openings()] == ["monday"]


def test_a_reader_needs_a_name():
    with pytest.raises(DataError, match="must have a name"):
        SealedSplit.seal(test_split()).open("")


def test_a_torn_line_of_the_ledger_costs_that_line_only():
    record_opening("f" * 16, "one")
    with ledger_path().open("a") as file:
        file.write('{"fingerprint": "ffff')
    record_opening("f" * 16, "two")
    assert [entry.reader for entry in openings("f" * 16)] == ["one", "two"]


def _enter(number):
    record_opening("e" * 16, f"reader {number % 10}")


def test_processes_that_open_at_once_do_not_mix_their_lines():
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(_enter, range(40))
    lines = ledger_path().read_text().splitlines()
    assert sorted(json.loads(line)["reader"] for line in lines) == [f"reader {i}" for i in range(10)]


def test_a_ledger_that_cannot_be_written_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path / "file"))
    for attempt in (
        check_ledger,
        lambda: write_splits(a_dataset(), tmp_path / "data"),
        lambda: SealedSplit.seal(test_split()).open("reader"),
    ):
        with pytest.raises(DataError, match="set DELTAPROOF_HOME to a folder that you may write to"):
            attempt()


def test_without_the_variable_the_ledger_stands_in_the_state_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.delenv("DELTAPROOF_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert ledger_path() == tmp_path / "state" / "deltaproof" / "openings.jsonl"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ledger_path() == tmp_path / ".local" / "state" / "deltaproof" / "openings.jsonl"
