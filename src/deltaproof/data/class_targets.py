"""One class per row to class indices."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deltaproof.data.numbers import as_number, is_code, is_missing
from deltaproof.data.table import Table


def read_classes(tables: Mapping[str, Table], column: str) -> tuple[list[str], dict[str, np.ndarray], list[str]]:
    """Names of the classes, class indices (n, 1) by split, and notes.

    Whole numbers stand in numeric order and go by the names that the source states for them; words stand in the
    order of their letters.
    """
    distinct = {value for table in tables.values() for value in _hashable(table, column) if not is_missing(value)}
    stated = next((table.class_names[column] for table in tables.values() if column in table.class_names), [])
    numeric = _all_numeric(distinct)
    name_of = {value: _number_name(value, stated) if numeric else _word_name(value) for value in distinct}
    order = {name: as_number(value) if numeric else None for value, name in name_of.items() if name is not None}
    names = sorted(order, key=lambda name: (order[name] or 0.0, name))
    index = {name: position for position, name in enumerate(names)}
    arrays = {}
    for split, table in tables.items():
        keys = [None if value is None else name_of.get(value) for value in table.columns[column]]
        missing = [i for i, key in enumerate(keys) if key is None]
        table.refuse(missing, f"the label `{column}` must be given", "nothing", "fill it in or delete the row")
        arrays[split] = np.array([index[key] for key in keys if key is not None], dtype=float).reshape(-1, 1)
    return names, arrays, _case_note(names)


def _all_numeric(distinct: set[Any]) -> bool:
    """Whether the values are numbers, so that `nan` is a gap rather than a word."""
    numbers = [as_number(value) for value in distinct]
    some_finite = any(number is not None and np.isfinite(number) for number in numbers)
    return some_finite and None not in numbers and not any(is_code(value) for value in distinct)


def _number_name(value: Any, stated: list[str]) -> str | None:
    number = as_number(value)
    if number is None or not np.isfinite(number):
        return None
    if not number.is_integer():
        return repr(number)
    return stated[int(number)] if 0 <= number < len(stated) else str(int(number))


def _word_name(value: Any) -> str | None:
    return None if value != value else str(value).strip()  # NaN alone differs from itself


def _hashable(table: Table, column: str) -> list[Any]:
    values = table.columns[column]
    bad = [i for i, value in enumerate(values) if isinstance(value, list | dict | np.ndarray)]
    table.refuse(bad, f"the label `{column}` must be one value a row", "a list", "give `--kind multilabel`")
    return values


def _case_note(names: list[str]) -> list[str]:
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(name.casefold(), []).append(name)
    alike = [", ".join(f"`{name}`" for name in same) for same in folded.values() if len(same) > 1]
    return (
        [f"labels that differ in upper and lower case only are separate classes: {'; '.join(alike)}"] if alike else []
    )
