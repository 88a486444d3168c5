"""The kind of task that the values of a label column speak of."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from deltaproof.data.label_lists import is_list
from deltaproof.data.numbers import as_number, is_code, is_missing

KINDS = ("classification", "regression", "multilabel")
FEW_VALUES = 20
"""Whole numbers written as floats (`3.0`, as pandas does for a column with gaps) are classes up to so many values."""


def infer_kind(values: Iterable[Any], n_columns: int = 1) -> str:
    """The kind of task that label values speak of.

    >>> infer_kind(["pos", "neg"]), infer_kind([0.2, 3.8, 5.0]), infer_kind([["a", "b"], []])
    ('classification', 'regression', 'multilabel')
    """
    if n_columns > 1:
        return "multilabel"
    present = [value for value in values if not is_missing(value)]
    if present and all(is_list(value) for value in present):
        return "multilabel"
    if any(isinstance(value, list | tuple | np.ndarray | bool) or is_code(value) for value in present):
        return "classification"
    distinct = {value: as_number(value) for value in set(present)}
    numbers = {number for number in distinct.values() if number is not None and np.isfinite(number)}
    n_words = sum(number is None for number in distinct.values())
    if n_words > 0.1 * len(distinct) or len(numbers) <= 2:
        return "classification"
    if not all(number.is_integer() for number in numbers):
        return "regression"  # a stray word among fractions is then refused as no number, with its row
    if n_words:
        return "classification"
    as_floats = any(isinstance(value, float) or (isinstance(value, str) and "." in value) for value in distinct)
    return "regression" if as_floats and len(numbers) > FEW_VALUES else "classification"
