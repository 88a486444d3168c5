"""The demo's data are real, balanced, split by file, repeatable, quick to build and not solved by counting words."""

import gc
import inspect
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from deltaproof.data.demo import LABELS, demo_data
from deltaproof.errors import DataError


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("DELTAPROOF_HOME", str(tmp_path_factory.mktemp("home")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def dataset():
    return demo_data()


@pytest.fixture(scope="module")
def splits(dataset, home):
    return {"train": dataset.train, "validation": dataset.validation, "test": dataset.test.open("a test")}


def test_sizes_are_those_of_the_demo_and_half_of_each_split_is_exchanged(splits):
    assert {name: len(split) for name, split in splits.items()} == {"train": 800, "validation": 250, "test": 1500}
    assert all(split.targets.mean() == 0.5 for split in splits.values())


def test_no_file_function_or_sentence_stands_in_two_splits(splits):
    for part in (
        lambda split: {row_id.split(":")[0] for row_id in split.ids},
        lambda split: {code for _, code in split.texts},
        lambda split: {sentence for sentence, _ in split.texts},
    ):
        train, validation, test = map(part, splits.values())
        assert not train & validation | train & test | validation & test


def documented_functions_of_loaded_modules():
    """(file name, first line) to docstring, as Python itself reads it, for functions and methods in memory."""
    gc.unfreeze()  # brings into sight what `conftest.py` has put out of it
    things = gc.get_objects()
    gc.freeze()
    for thing in things:
        if inspect.isfunction(thing) and thing.__doc__:
            yield (Path(thing.__code__.co_filename), thing.__code__.co_firstlineno), inspect.getdoc(thing)


def test_matching_rows_carry_the_docstring_that_python_itself_reads_and_others_do_not(splits):
    library = Path(sysconfig.get_path("stdlib"))
    docstrings = dict(documented_functions_of_loaded_modules())
    found = {"matches": 0, "exchanged": 0}
    for split in splits.values():
        for row_id, (sentence, _), target in zip(split.ids, split.texts, split.targets[:, 0], strict=True):
            name, _, line = row_id.rpartition(":")
            docstring = docstrings.get((library / name, int(line)))
            if docstring is not None:
                label = LABELS[int(target)]
                assert " ".join(docstring.split()).startswith(sentence) == (label == "matches")
                found[label] += 1
    assert min(found.values()) >= 20


def test_the_same_python_gives_the_same_rows_within_seconds(dataset):
    start = time.process_time()
    again = demo_data()
    assert time.process_time() - start < 5
    assert (again.fingerprint, again.train.ids) == (dataset.fingerprint, dataset.train.ids)


def test_counting_words_does_not_solve_it(splits):
    texts = {name: [" || ".join(pair) for pair in split.texts] for name, split in splits.items()}
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10))
    model.fit(texts["train"], splits["train"].targets[:, 0])
    assert model.score(texts["test"], splits["test"].targets[:, 0]) < 0.6


def test_code_holds_no_docstring_of_its_own(splits):
    rows = [pair for split in splits.values() for pair in split.texts]
    assert np.mean([sentence in code for sentence, code in rows]) < 0.005


def test_a_python_without_sources_says_what_to_do(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(DataError, match="must give 800 train rows, got 0; use a Python that carries its sources"):
        demo_data(tmp_path)
