"""Label columns to what a model learns: the kind of task, the names of the labels, and an array per split."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from deltaproof.data.class_targets import read_classes
from deltaproof.data.kinds import KINDS, infer_kind
from deltaproof.data.multilabel_targets import read_indicators, read_lists
from deltaproof.data.numbers import as_number, is_missing
from deltaproof.data.table import Table
from deltaproof.errors import DataError, nearest


@dataclass(frozen=True)
class Targets:
    """What the label columns say."""

    kind: str
    labels: list[str] | None
    """Names of classes or labels in the order of their indices; None for regression."""
    values: dict[str, np.ndarray]
    """Split to (n, 1) class index or value, or (n, labels) of 0 and 1."""
    notes: list[str] = field(default_factory=list)


def read_targets(tables: Mapping[str, Table], label: tuple[str, ...], kind: str | None) -> Targets:
    """Read the label columns of every split by one rule, inferring the kind of task where none is given.

    Several label columns, or lists, make multi-label; numbers with fractions, or many whole numbers written as
    floats, make regression; all else is classification.

    Errors:
        DataError: a label is missing, a target is not finite, a value does not fit the kind.
    """
    if kind is not None and kind not in KINDS:
        raise DataError(f"`kind` must be one of {', '.join(KINDS)}, got `{kind}`; {nearest(kind, KINDS)}")
    values = [value for table in tables.values() for value in table.columns[label[0]]]
    chosen = kind or infer_kind(values, len(label))
    if len(label) > 1 and chosen != "multilabel":
        raise DataError(f"`kind` must be multilabel with several label columns, got {chosen}; name one label column")
    targets = _read(tables, label, chosen)
    if kind is None:
        what = f"{len(targets.labels)} labels" if targets.labels is not None else "numbers"
        where = ", ".join(f"`{name}`" for name in label)
        targets.notes.insert(0, f"the task was taken for {chosen} ({what} in {where}); `--kind` overrides")
    return targets


def _read(tables: Mapping[str, Table], label: tuple[str, ...], kind: str) -> Targets:
    if kind == "classification":
        names, arrays, notes = read_classes(tables, label[0])
        return Targets(kind, names, arrays, notes)
    if kind == "regression":
        return Targets(kind, None, _numbers(tables, label[0]))
    if len(label) > 1:
        return Targets(kind, *read_indicators(tables, label))
    return Targets(kind, *read_lists(tables, label[0]))


def _numbers(tables: Mapping[str, Table], column: str) -> dict[str, np.ndarray]:
    arrays = {}
    for split, table in tables.items():
        values = table.columns[column]
        numbers = [as_number(value) for value in values]
        bad = [i for i, number in enumerate(numbers) if number is None or not np.isfinite(number)]
        got = "" if not bad else "nothing" if is_missing(values[bad[0]]) else f"`{values[bad[0]]}`"
        table.refuse(bad, f"the target `{column}` must be a finite number", got, "correct or delete the row")
        arrays[split] = np.array(numbers, dtype=float).reshape(-1, 1)
    return arrays
