"""Several labels per row to rows of 0 and 1: from one column per label, or from lists."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deltaproof.data.label_lists import as_list
from deltaproof.data.numbers import as_number, is_missing
from deltaproof.data.table import Table
from deltaproof.errors import DataError


def read_indicators(tables: Mapping[str, Table], columns: tuple[str, ...]) -> tuple[list[str], dict[str, np.ndarray]]:
    """One column of 0 and 1 per label: names of the labels and arrays (n, labels) by split."""
    arrays = {}
    for split, table in tables.items():
        arrays[split] = np.empty((len(table), len(columns)))
        for position, column in enumerate(columns):
            values = table.columns[column]
            read = [_truth(value) for value in values]
            bad = [i for i, value in enumerate(read) if value is None]
            got = f"`{values[bad[0]]}`" if bad else ""
            table.refuse(
                bad, f"the label column `{column}` must hold 0 or 1", got, "correct it, or name one label column"
            )
            arrays[split][:, position] = read
    return list(columns), arrays


def read_lists(tables: Mapping[str, Table], column: str) -> tuple[list[str], dict[str, np.ndarray], list[str]]:
    """Lists of labels, or one 0 or 1 per label where all lists have one length: names, arrays (n, labels), notes."""
    lists = {split: _lists(table, column) for split, table in tables.items()}
    flat = [labels for rows in lists.values() for labels in rows]
    stated = next((table.class_names[column] for table in tables.values() if column in table.class_names), [])
    width = len(flat[0])
    distinct = {label for labels in flat for label in labels}
    if width > 1 and distinct <= {0, 1} and all(len(labels) == width for labels in flat):
        names = stated if len(stated) == width else [f"{column}_{position}" for position in range(width)]
        note = f"the lists in `{column}` were read as one 0 or 1 per label"
        return names, {split: np.array(rows, dtype=float) for split, rows in lists.items()}, [note]
    if not distinct:
        raise DataError(f"the label `{column}` must name labels, got empty lists only; is it the right column?")
    numeric = all(isinstance(label, int) for label in distinct)
    order = sorted(distinct) if numeric else sorted(distinct, key=str)
    names = [stated[label] if numeric and 0 <= label < len(stated) else str(label) for label in order]
    index = {label: position for position, label in enumerate(order)}
    arrays = {split: np.zeros((len(rows), len(names))) for split, rows in lists.items()}
    for split, rows in lists.items():
        for i, labels in enumerate(rows):
            arrays[split][i, [index[label] for label in labels]] = 1.0
    return names, arrays, []


def _lists(table: Table, column: str) -> list[list[Any]]:
    values = table.columns[column]
    read = [as_list(value) for value in values]
    bad = [i for i, labels in enumerate(read) if labels is None or any(is_missing(label) for label in labels)]
    got = f"`{values[bad[0]]}`" if bad else ""
    table.refuse(
        bad, f"the label `{column}` must be a list of labels", got, "write a list, or labels with | between them"
    )
    return [labels for labels in read if labels is not None]


def _truth(value: Any) -> float | None:
    number = as_number(value)
    if number is None:
        return {"true": 1.0, "false": 0.0}.get(str(value).strip().lower())
    return number if number in (0.0, 1.0) else None
