"""Rows with labels for a model that knows its labels already: to score it, whoever tuned it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from deltaproof.data.checks import read_pairs
from deltaproof.data.columns import find_columns
from deltaproof.data.reading import Reading
from deltaproof.data.sources import read_source
from deltaproof.data.split import Split
from deltaproof.data.targets import read_targets
from deltaproof.errors import DataError, nearest


def read_labelled(
    source: Any, labels: Sequence[str] | None, *, text: str | None = None, label: str | None = None,
    encoding: str | None = None,
) -> Split:  # fmt: skip
    """Texts and targets; of a source with splits its `validation`, else its first.

    Args:
        labels: the model's names of its classes, in the order of its outputs; None for a regression. A row names its
            class, in capitals or not, or numbers it from 0.
    Errors:
        DataError: a column is missing or unclear, or a row names a class that the model has not.
    """
    _, tables = read_source(source, Reading(encoding))
    table = tables.get("validation") or next(iter(tables.values()))
    found = find_columns(table, text, label, None)
    targets = read_targets({"rows": table}, found.label, "regression" if labels is None else "classification")
    split = Split("rows", table.ids(), read_pairs(table, found.text), targets.values["rows"], None)
    if labels is None:
        return split
    index = {name.lower(): at for at, name in enumerate(labels)}
    known = {str(at): at for at in range(len(labels))} | index
    names = targets.labels or []
    if unknown := [name for name in names if name.lower() not in known]:
        raise DataError(
            f"{table.origin}: each label in `{found.label[0]}` must be one of the model's, got `{unknown[0]}`; "
            f"{nearest(unknown[0], labels)}"
        )
    own = np.array([known[name.lower()] for name in names], float)
    return replace(split, targets=own[split.targets[:, 0].astype(int)][:, None])
