"""Folders and objects of the `datasets` library, without a network."""

import pytest

from deltaproof.data.hub import is_hub_id
from deltaproof.data.load import load_data
from deltaproof.errors import DataError

datasets = pytest.importorskip("datasets", reason="needs the extra `hub`")


@pytest.fixture(autouse=True)
def own_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path / "home"))


def part(n, prefix, label=lambda i: i % 2):
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    return datasets.Dataset.from_dict(
        {"sentence": [f"{prefix} {i}" for i in range(n)], "label": [label(i) for i in range(n)]}, features=features
    )


def test_a_folder_of_save_to_disk_gives_splits_and_class_names(tmp_path):
    parts = datasets.DatasetDict({"train": part(40, "train"), "validation": part(10, "dev"), "test": part(20, "test")})
    parts.save_to_disk(tmp_path / "sst2")
    dataset = load_data(tmp_path / "sst2")
    assert dataset.labels == ["negative", "positive"]
    assert (len(dataset.train), len(dataset.validation), dataset.test.n_rows) == (40, 10, 20)
    assert dataset.train.ids[0] == "train:1"


def test_hidden_test_labels_as_in_glue_make_validation_the_test_split():
    parts = datasets.DatasetDict(
        {"train": part(80, "train"), "validation": part(10, "dev"), "test": part(20, "test", lambda i: -1)}
    )
    dataset = load_data(parts)
    assert (len(dataset.train), len(dataset.validation), dataset.test.n_rows) == (70, 10, 10)
    assert dataset.labels == ["negative", "positive"]
    assert any("its validation split is the test split here" in note for note in dataset.notes)


def test_rows_marked_minus_one_as_in_snli_are_left_out_and_noted():
    dataset = load_data(part(83, "row", lambda i: -1 if i < 3 else i % 2))
    assert len(dataset.train) + len(dataset.validation) + dataset.test.n_rows == 80
    assert any("3 rows of train without a label" in note for note in dataset.notes)


def test_the_plainest_of_several_validation_splits_is_taken_and_noted():
    names = ("train", "validation_matched", "validation_mismatched", "test_matched")
    dataset = load_data(datasets.DatasetDict({name: part(30, name) for name in names}))
    assert any("`validation_matched` was taken and validation_mismatched left out" in note for note in dataset.notes)


def test_lists_of_class_labels_keep_their_names():
    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=["joy", "fear", "calm"]))}
    )
    rows = datasets.Dataset.from_dict(
        {"text": [f"t{i}" for i in range(30)], "labels": [[i % 3] if i % 4 else [0, 2] for i in range(30)]},
        features=features,
    )
    dataset = load_data(rows)
    assert (dataset.kind, dataset.labels) == ("multilabel", ["joy", "fear", "calm"])


def test_a_hub_data_set_is_asked_for_by_name_and_configuration(monkeypatch):
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return datasets.DatasetDict({"train": part(40, "train")})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_data("glue:sst2").name == "glue:sst2"
    load_data("someone/something")
    assert asked == [(("glue", "sst2"), {}), (("someone/something", None), {})]


def test_what_the_hub_answers_reaches_the_user_with_a_remedy(monkeypatch):
    def load_dataset(*_):
        raise ValueError("Config name is missing.\nPlease pick one")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        DataError,
        match=r"`glue` must be a file, a folder or a data set of the hub, got Config name is missing\.; check",
    ):
        load_data("glue")


@pytest.mark.parametrize("name", ["imdb", "glue:sst2", "org/name", "org/name:config"])
def test_hub_ids_are_recognised(name):
    assert is_hub_id(name)


@pytest.mark.parametrize("name", ["./reviews", "/data/reviews", "a/b/c", "~/reviews", "my reviews"])
def test_paths_are_no_hub_ids(name):
    assert not is_hub_id(name)
