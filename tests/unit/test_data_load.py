"""From a source to a data set: splits, leaks, samples and the rules that the whole must keep."""

import csv
import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deltaproof.data.load import load_data, read_texts
from deltaproof.errors import DataError


@pytest.fixture(autouse=True)
def own_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path / "home"))


def write_csv(path, rows, header=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def reviews(n=100, n_classes=2, prefix="review"):
    return [(f"{prefix} number {i}", f"class{i % n_classes}") for i in range(n)]


def parts(dataset):
    return {"train": dataset.train, "validation": dataset.validation, "test": dataset.test.open("a test")}


def test_one_file_becomes_three_splits_with_a_sealed_test(tmp_path):
    dataset = load_data(write_csv(tmp_path / "reviews.csv", reviews()))
    assert (dataset.name, dataset.kind, dataset.labels) == ("reviews", "classification", ["class0", "class1"])
    assert (dataset.text_columns, dataset.label_column) == (("text",), "label")
    assert (len(dataset.train), len(dataset.validation), dataset.test.n_rows) == (70, 10, 20)
    assert any("70%" in note and "seed 0" in note for note in dataset.notes)
    for split in parts(dataset).values():
        for row_id, texts, target in zip(split.ids, split.texts, split.targets[:, 0], strict=True):
            number = int(row_id.removeprefix("reviews.csv:")) - 2
            assert texts == (f"review number {number}",)
            assert target == number % 2


def test_the_same_file_gives_the_same_data_and_another_seed_another_split(tmp_path):
    path = write_csv(tmp_path / "reviews.csv", reviews())
    one, same, other = load_data(path), load_data(path), load_data(path, seed=1)
    assert (one.fingerprint, one.train.ids) == (same.fingerprint, same.train.ids)
    assert one.test.fingerprint != other.test.fingerprint


def test_a_changed_letter_changes_the_fingerprint(tmp_path):
    rows = reviews()
    one = load_data(write_csv(tmp_path / "a.csv", rows))
    rows[3] = ("review number 3!", rows[3][1])
    assert load_data(write_csv(tmp_path / "a.csv", rows)).fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("given", "sizes"),
    [({"test"}, (88, 12, 50)), ({"validation"}, (80, 50, 20)), ({"test", "validation"}, (100, 50, 50))],
)
def test_splits_given_are_used_and_the_others_made_from_the_training_rows(tmp_path, given, sizes):
    options = {name: write_csv(tmp_path / f"{name}.csv", reviews(50, prefix=name)) for name in given}
    dataset = load_data(write_csv(tmp_path / "train.csv", reviews()), **options)
    assert (len(dataset.train), len(dataset.validation), dataset.test.n_rows) == sizes
    for name in given:
        assert all(row_id.startswith(f"{name}.csv:") for row_id in parts(dataset)[name].ids)


def test_files_of_one_name_give_different_row_ids(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    train = write_csv(tmp_path / "a" / "data.csv", reviews())
    test = write_csv(tmp_path / "b" / "data.csv", reviews(20, prefix="other"))
    dataset = load_data(train, test=test)
    ids = [row_id for split in parts(dataset).values() for row_id in split.ids]
    assert len(set(ids)) == len(ids) == 120


def test_pairs_are_found_and_kept_together(tmp_path):
    rows = [(f"premise {i}", f"hypothesis {i}", i % 3) for i in range(60)]
    dataset = load_data(write_csv(tmp_path / "nli.csv", rows, ("premise", "hypothesis", "label")))
    assert dataset.text_columns == ("premise", "hypothesis")
    assert all(first.split()[1] == second.split()[1] for first, second in dataset.train.texts)


def test_a_regression_is_split_by_quantiles(tmp_path):
    values = np.random.default_rng(0).exponential(size=400)
    dataset = load_data(
        write_csv(
            tmp_path / "sts.csv", [(f"t{i}", f"{value:.3f}") for i, value in enumerate(values)], ("text", "score")
        )
    )
    assert (dataset.kind, dataset.labels) == ("regression", None)
    for split in parts(dataset).values():
        assert np.median(split.targets) == pytest.approx(np.median(values), rel=0.2)


def test_several_label_columns_make_multi_label_targets(tmp_path):
    rows = [(f"t{i}", i % 2, int(i % 5 == 0)) for i in range(100)]
    dataset = load_data(write_csv(tmp_path / "m.csv", rows, ("text", "rude", "spam")), label="rude,spam")
    assert (dataset.kind, dataset.labels, dataset.label_column) == ("multilabel", ["rude", "spam"], "rude,spam")
    assert dataset.train.targets.shape == (70, 2)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 400), st.booleans()), min_size=60, max_size=120),
    st.integers(0, 3),
)
def test_groups_and_equal_texts_never_stand_in_two_splits(rows, seed):
    table = [{"text": f"text {text}", "label": int(label), "author": f"a{group}"} for group, text, label in rows]
    assume(all(len({group for group, _, label in rows if label is wanted}) >= 16 for wanted in (True, False)))
    dataset = load_data(table, group="author", seed=seed)
    homes = {}
    for name, split in (
        ("train", dataset.train),
        ("validation", dataset.validation),
        ("test", dataset.test.open("a test")),
    ):
        for group in split.groups:
            assert homes.setdefault(group, name) == name
    assert sum(map(len, (dataset.train, dataset.validation))) + dataset.test.n_rows == len(rows)


def test_equal_texts_stay_in_one_split_so_that_none_leaks(tmp_path):
    rows = [(f"text {i % 40}", i % 2) for i in range(120)]
    dataset = load_data(write_csv(tmp_path / "a.csv", rows))
    seen = [set(split.texts) for split in parts(dataset).values()]
    assert not any(one & other for one, other in itertools.combinations(seen, 2))
    assert not any(note.startswith("leak") for note in dataset.notes)
    assert any("repeat the text" in note for note in dataset.notes)


def test_a_leak_is_reported_with_rows_and_removed_on_request(tmp_path):
    train = write_csv(tmp_path / "train.csv", reviews(100))
    test = write_csv(tmp_path / "test.csv", [*reviews(20, prefix="new"), *reviews(6)])
    reported, dropped = load_data(train, test=test), load_data(train, test=test, drop_leaks=True)
    leaks = [note for note in reported.notes if note.startswith("leak")]
    assert sum(int(note.split()[1]) for note in leaks) == 6
    assert any("train.csv:2 = test.csv:22" in note and "--drop-leaks" in note for note in leaks)
    assert len(reported.train) + len(reported.validation) == 100
    assert len(dropped.train) + len(dropped.validation) == 94
    assert dropped.test.fingerprint == reported.test.fingerprint
    assert not set(dropped.train.texts) & set(dropped.test.open("a test").texts)


def test_a_group_in_two_given_splits_is_reported(tmp_path):
    header = ("text", "label", "author")
    train = write_csv(tmp_path / "train.csv", [(*row, f"a{i}") for i, row in enumerate(reviews(50))], header)
    test = write_csv(tmp_path / "test.csv", [(*row, "a3") for row in reviews(10, prefix="new")], header)
    notes = load_data(train, test=test, group="author").notes
    assert any("1 groups stand in both" in note and "`a3`" in note for note in notes)


def test_one_text_with_two_labels_is_pointed_out(tmp_path):
    rows = [*reviews(40), ("review number 0", "class1")]
    notes = load_data(write_csv(tmp_path / "a.csv", rows)).notes
    assert any("1 texts have different labels" in note and "a.csv:2 and a.csv:42" in note for note in notes)


def test_a_sample_is_smaller_nested_and_leaves_validation_and_test_alone(tmp_path):
    path = write_csv(tmp_path / "a.csv", reviews(200, n_classes=4))
    whole, large, small = (load_data(path, max_rows=n) for n in (None, 60, 20))
    assert (len(large.train), len(small.train)) == (60, 20)
    assert set(small.train.ids) < set(large.train.ids) < set(whole.train.ids)
    assert small.test.fingerprint == whole.test.fingerprint
    assert small.validation.fingerprint == whole.validation.fingerprint
    assert np.bincount(small.train.targets[:, 0].astype(int)).tolist() == [5, 5, 5, 5]
    with pytest.raises(DataError, match="`max_rows` must be at least 4, one row for each label, got 3"):
        load_data(path, max_rows=3)


def test_an_unlabelled_test_split_of_a_folder_gives_way_to_validation(tmp_path):
    write_csv(tmp_path / "train.csv", reviews(80))
    write_csv(tmp_path / "dev.csv", reviews(20, prefix="dev"))
    write_csv(tmp_path / "test.csv", [("x",), ("y",)], ("text",))
    dataset = load_data(tmp_path)
    assert (len(dataset.train), len(dataset.validation), dataset.test.n_rows) == (70, 10, 20)
    assert any("its validation split is the test split here" in note for note in dataset.notes)


def test_a_test_split_of_minus_one_is_unlabelled(tmp_path):
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(80)]
    hidden = [{"text": f"h{i}", "label": -1} for i in range(9)]
    dataset = load_data({"train": rows, "test": hidden})
    assert dataset.labels == ["0", "1"]
    assert dataset.test.n_rows == 16
    assert any("no labels: it was left out" in note for note in dataset.notes)


def test_a_test_file_that_the_user_names_must_have_labels(tmp_path):
    train = write_csv(tmp_path / "train.csv", reviews(80))
    test = write_csv(tmp_path / "holdout.csv", [("x", ""), ("y", "")])
    with pytest.raises(
        DataError, match=r"holdout\.csv: the test split must have labels in `label`, got none; give labelled rows"
    ):
        load_data(train, test=test)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [*reviews(10), ("  ", "class0")],
            r"a\.csv, row 12: the text `text` must not be empty, got nothing; fill it in or delete the row",
        ),
        (
            [(f"t{i}", "same") for i in range(10)],
            "the training split must hold at least 2 classes, got only `same`; is it the right label column",
        ),
        (
            [*reviews(10), ("rare one", "rare"), ("rare two", "rare")],
            r"each class must have at least 3 distinct texts, .* got 2 of `rare` in 2 rows; merge or remove",
        ),
        ([(f"t{i}", 1.5) for i in range(3)] + [("a", 2.5)], "at least 3 distinct texts"),
        ([*reviews(10), *[("same text", "rare")] * 5], "got 1 of `rare` in 5 rows"),
    ],
)
def test_rows_that_cannot_be_learnt_from_are_refused(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        load_data(write_csv(tmp_path / "a.csv", rows))


@pytest.mark.parametrize("role", ["test", "validation"])
def test_a_label_outside_the_training_split_is_refused_with_its_row(tmp_path, role):
    train = write_csv(tmp_path / "train.csv", reviews(80))
    other = write_csv(tmp_path / "other.csv", [*reviews(10, prefix="new"), ("odd", "clas1")])
    with pytest.raises(
        DataError,
        match=rf"other\.csv, row 12: each label must stand in the training .* only in the {role} split \(1 rows\)",
    ):
        load_data(train, **{role: other})


def test_removing_leaks_may_not_remove_a_whole_class_unnoticed(tmp_path):
    leaked = [(f"rare {i}", "rare") for i in range(8)]
    train = write_csv(tmp_path / "train.csv", [*reviews(80), *leaked])
    test = write_csv(tmp_path / "test.csv", [*reviews(10, prefix="new"), *leaked])
    with pytest.raises(DataError, match="got `rare` only in the test split"):
        load_data(train, test=test, drop_leaks=True)


def test_a_class_in_few_groups_is_refused_by_its_groups():
    rows = [{"text": f"t{i}", "label": int(i < 20), "author": f"a{i // 10}"} for i in range(100)]
    with pytest.raises(DataError, match=r"at least 3 groups, one for each split .* got 2 of `1` in 20 rows"):
        load_data(rows, group="author")


def test_a_missing_group_is_refused_with_its_row(tmp_path):
    rows = [(f"t{i}", i % 2, "" if i == 4 else "a") for i in range(20)]
    with pytest.raises(DataError, match=r"a\.csv, row 6: the group `author` must be given"):
        load_data(write_csv(tmp_path / "a.csv", rows, ("text", "label", "author")), group="author")


def test_a_column_that_another_split_lacks_is_named_with_its_file(tmp_path):
    train = write_csv(tmp_path / "train.csv", reviews(80))
    test = write_csv(tmp_path / "test.csv", reviews(10), ("review", "label"))
    with pytest.raises(
        DataError,
        match=r"test\.csv: the text column `text` must be there as in the training split, got `review`, `label`",
    ):
        load_data(train, test=test)


def test_a_number_in_the_text_column_is_refused():
    with pytest.raises(DataError, match=r"data, row 2: the text `text` must be text, got int 7"):
        load_data([{"text": "a", "label": 0}, {"text": 7, "label": 1}])


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(DataError, match="row 2: the text `text` must be whole characters"):
        load_data([{"text": "a", "label": 0}, {"text": "\ud800", "label": 1}])


def test_texts_to_predict_on_need_no_labels(tmp_path):
    ids, texts = read_texts(write_csv(tmp_path / "new.csv", [("a",), ("b",)], ("text",)))
    assert (ids, texts) == (["new.csv:2", "new.csv:3"], [("a",), ("b",)])
    pairs = write_csv(tmp_path / "pairs.csv", [("a", "b")], ("left", "right"))
    assert read_texts(pairs, text=("left", "right"))[1] == [("a", "b")]
    with pytest.raises(DataError, match=r"new\.csv: the text column `review` must be there"):
        read_texts(tmp_path / "new.csv", text=("review",))
