"""Rows without labels that public data sets carry on purpose: hidden test labels, and the hub's -1."""

from collections.abc import Mapping
from typing import Any

from deltaproof.data.numbers import as_number, is_missing
from deltaproof.data.table import Table
from deltaproof.errors import DataError


def set_aside_unlabelled(
    tables: Mapping[str, Table], label: tuple[str, ...], test_was_given: bool
) -> tuple[dict[str, Table], list[str]]:
    """Tables without an unlabelled test split, and without the rows that the hub marks -1 for "no label".

    A test split without any labels is left out; the validation split, where there is one, takes its place.

    Errors:
        DataError: the unlabelled test split is one that the user named.
    """
    kept, notes = dict(tables), []
    test = kept.get("test")
    if test is not None and _has_no_labels(test, label, kept["train"]):
        if test_was_given:
            raise DataError(
                f"{test.origin}: the test split must have labels in `{', '.join(label)}`, got none; "
                f"give labelled rows, or leave `--test` out to make a test split of the training rows"
            )
        del kept["test"]
        if "validation" in kept:
            kept["test"] = kept.pop("validation")
            notes.append("the test split of the source has no labels: its validation split is the test split here")
        else:
            notes.append("the test split of the source has no labels: it was left out")
    for role, table in kept.items():
        if len(label) == 1 and label[0] in table.class_names and label[0] in table.columns:
            labelled = [i for i, value in enumerate(table.columns[label[0]]) if value != -1 and value is not None]
            if len(labelled) < len(table):
                kept[role] = table.take(labelled)
                n_left_out = len(table) - len(labelled)
                notes.append(f"{n_left_out} rows of {role} without a label (marked -1 by the source) were left out")
    return kept, notes


def _has_no_labels(test: Table, label: tuple[str, ...], train: Table) -> bool:
    if not any(name in test.columns for name in label):
        return True
    if not all(name in test.columns and name in train.columns for name in label):
        return False
    if all(all(map(_is_gap, test.columns[name])) for name in label):
        return True
    hidden = all(all(as_number(value) == -1 for value in test.columns[name]) for name in label)
    return hidden and not any(as_number(value) == -1 for name in label for value in train.columns[name])


def _is_gap(value: Any) -> bool:
    return is_missing(value) or value != value
