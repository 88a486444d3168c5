"""Label columns become targets of the kind they speak of."""

import math

import numpy as np
import pytest
from sklearn.preprocessing import LabelEncoder, MultiLabelBinarizer

from deltaproof.data.kinds import infer_kind
from deltaproof.data.table import Table
from deltaproof.data.targets import read_targets
from deltaproof.errors import DataError


def read(values, kind=None, class_names=None, **more):
    columns = {"label": values, **more}
    table = Table("a.csv", columns, range(2, len(values) + 2), {"label": class_names} if class_names else {})
    return read_targets({"train": table}, tuple(columns), kind)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["pos", "neg", "pos"], "classification"),
        ([0, 1, 2, 1], "classification"),
        (["0", "1", "5"], "classification"),
        (["0.0", "1.0", "", "1.0"], "classification"),
        ([True, False], "classification"),
        (list(range(150)), "classification"),
        (["007", "008", "009", "1.5"], "classification"),
        ([0.2, 3.8, 5.0], "regression"),
        (["0.2", "3.8", "nan", "5"], "regression"),
        ([float(i) for i in range(50)], "regression"),
        ([[0, 1], [2], []], "multilabel"),
        (["['joy', 'fear']", "[]"], "multilabel"),
    ],
)
def test_the_kind_is_inferred(values, kind):
    assert infer_kind(values) == kind


@pytest.mark.parametrize("values", [["pos", "neg", "mid", "neg"], ["b", "a", "C"], ["yes", "1", "no"]])
def test_words_are_encoded_as_scikit_learn_encodes_them(values):
    targets = read(values)
    encoder = LabelEncoder().fit(values)
    assert targets.labels == encoder.classes_.tolist()
    np.testing.assert_array_equal(targets.values["train"][:, 0], encoder.transform(values))


@pytest.mark.parametrize(
    "values", [["10", "9", "2", "10"], [10, 9, 2, 10], [10.0, 9.0, 2.0, 10.0], ["10.0", "9.0", "2.0", "10.0"]]
)
def test_whole_numbers_stand_in_numeric_order_however_they_are_written(values):
    targets = read(values)
    assert targets.labels == ["2", "9", "10"]
    assert targets.values["train"][:, 0].tolist() == [2, 1, 0, 2]


def test_class_names_of_the_source_are_used_in_the_order_of_their_numbers():
    targets = read([1, 0, 1], class_names=["zero", "alpha"])
    assert targets.labels == ["zero", "alpha"]
    assert targets.values["train"][:, 0].tolist() == [1, 0, 1]


def test_truth_values_are_two_classes():
    assert read([True, False, True]).labels == ["False", "True"]


def test_the_user_overrides_the_kind():
    assert read(["1", "2", "3"], kind="regression").values["train"][:, 0].tolist() == [1.0, 2.0, 3.0]
    assert read([0.5, 1.5, 2.5], kind="classification").labels == ["0.5", "1.5", "2.5"]


@pytest.mark.parametrize(
    ("values", "lists"),
    [
        (["joy|fear", "", "fear"], [["joy", "fear"], [], ["fear"]]),
        ([["joy", "fear"], [], ["anger"]], [["joy", "fear"], [], ["anger"]]),
        (["['joy']", "['anger', 'joy']", "[]"], [["joy"], ["anger", "joy"], []]),
    ],
)
def test_lists_of_labels_are_encoded_as_scikit_learn_encodes_them(values, lists):
    targets = read(values, kind="multilabel")
    encoder = MultiLabelBinarizer().fit(lists)
    assert targets.labels == encoder.classes_.tolist()
    np.testing.assert_array_equal(targets.values["train"], encoder.transform(lists))


def test_lists_of_zero_and_one_are_one_entry_per_label():
    targets = read([[0, 1, 0], [1, 1, 0]])
    assert targets.labels == ["label_0", "label_1", "label_2"]
    assert targets.values["train"].tolist() == [[0, 1, 0], [1, 1, 0]]


def test_several_label_columns_are_multi_label():
    targets = read(["0", "1"], rude=["1", "0.0"], spam=[True, "False"])
    assert targets.kind == "multilabel"
    assert targets.labels == ["label", "rude", "spam"]
    assert targets.values["train"].tolist() == [[0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (
            ["pos", "", "neg", " "],
            None,
            r"a\.csv, row 3: the label `label` must be given, got nothing \(and in 1 more rows\); fill it in or delete",
        ),
        ([1, None, 0], None, r"row 3: the label `label` must be given"),
        ([1.0, math.nan, 0.0], None, r"row 3: the label `label` must be given"),
        (["1", "nan", "0"], None, r"row 3: the label `label` must be given"),
        (["pos", math.nan, "neg"], None, r"row 3: the label `label` must be given"),
        (
            [0.5, 1.5, math.nan, 2.5],
            None,
            r"row 4: the target `label` must be a finite number, got `nan`; correct or delete",
        ),
        (["0.5", "inf", "1.5", "2.5"], None, r"row 3: .* finite number, got `inf`"),
        (["0.5", "", "1.5", "2.5"], None, r"row 3: .* finite number, got nothing"),
        ([*(f"{i}.5" for i in range(12)), "oops"], None, r"row 14: .* finite number, got `oops`"),
        (["pos", "neg"], "regression", r"row 2: .* finite number, got `pos`"),
        (["a", None], "multilabel", r"row 3: the label `label` must be a list of labels, got `None`; write a list"),
        (["a||b", "b"], "multilabel", r"row 2: .*must be a list of labels"),
        (["", ""], "multilabel", "must name labels, got empty lists only"),
        (
            [["a"], ["b"]],
            "classification",
            r"row 2: the label `label` must be one value a row, got a list.*--kind multilabel",
        ),
        (["a", "b"], "clasification", "`kind` must be one of .* did you mean `classification`"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_their_row(values, kind, message):
    with pytest.raises(DataError, match=message):
        read(values, kind)


def test_an_indicator_that_is_neither_0_nor_1_is_refused():
    with pytest.raises(DataError, match=r"row 3: the label column `rude` must hold 0 or 1, got `2`"):
        read(["0", "1"], rude=["1", "2"])


def test_several_label_columns_fit_multi_label_only():
    with pytest.raises(DataError, match="`kind` must be multilabel with several label columns"):
        read(["0", "1"], kind="regression", rude=["1", "0"])


def test_labels_that_differ_in_case_only_are_pointed_out():
    assert any("`Pos`, `pos`" in note for note in read(["Pos", "pos", "neg"]).notes)
