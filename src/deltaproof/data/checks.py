"""Rules that texts and labels must keep before anything heavy is done; each error names file, row and remedy."""

from collections.abc import Mapping, Sequence

import numpy as np

from deltaproof.data.numbers import is_missing
from deltaproof.data.split import Split
from deltaproof.data.table import Table
from deltaproof.errors import DataError

_EMPTY = "fill it in or delete the row; a comparison leaves such rows out with `drop_empty`"


def read_pairs(table: Table, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The texts of every row, one or two, without blanks around them.

    Errors:
        DataError: a text is empty, is no text, or holds half a character.
    """
    cleaned = []
    for column in columns:
        values = table.columns[column]
        empty = [i for i, value in enumerate(values) if is_missing(value) or value != value]
        table.refuse(empty, f"the text `{column}` must not be empty", "nothing", _EMPTY)
        other = [i for i, value in enumerate(values) if not isinstance(value, str)]
        got = f"{type(values[other[0]]).__name__} {values[other[0]]!r}"[:80] if other else ""
        table.refuse(other, f"the text `{column}` must be text", got, "name the text column with `--text`")
        broken = [] if _is_unicode("".join(values)) else [i for i, value in enumerate(values) if not _is_unicode(value)]
        table.refuse(
            broken, f"the text `{column}` must be whole characters", "half of a surrogate pair", "correct the row"
        )
        cleaned.append([value.strip() for value in values])
    return list(zip(*cleaned, strict=True))


def read_groups(table: Table, column: str | None) -> list[str] | None:
    """What each row belongs to, without blanks around it; None where there is no such column.

    Errors:
        DataError: a row has none.
    """
    if column is None:
        return None
    values = table.columns[column]
    missing = [i for i, value in enumerate(values) if is_missing(value) or value != value]
    table.refuse(missing, f"the group `{column}` must be given", "nothing", "fill it in or delete the row")
    return [str(value).strip() for value in values]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def presence(kind: str, labels: list[str] | None, targets: np.ndarray) -> np.ndarray:
    """(n, labels) truth: which classes or labels stand in each row; (n, 0) for regression."""
    n_labels = len(labels or [])
    return np.asarray(targets == np.arange(n_labels)) if kind == "classification" else targets[:, :n_labels] > 0


def check_labels(kind: str, labels: list[str] | None, splits: Mapping[str, Split]) -> list[str]:
    """Check that the training split can teach every label of the other splits; notes for what is merely unusual.

    Errors:
        DataError: there is one class only, a label stands only outside the training split, or a target is constant.
    """
    train = splits["train"]
    if labels is None:
        if np.ptp(train.targets) == 0:
            got = f"{train.targets[0, 0]:g} in every row"
            raise DataError(f"the target must vary in the training split, got {got}; is it the right label column?")
        return []
    taught = presence(kind, labels, train.targets).any(axis=0)
    for name, split in splits.items():
        found = presence(kind, labels, split.targets)
        for index in np.flatnonzero(found.any(axis=0) & ~taught):
            rows = np.flatnonzero(found[:, index])
            origin, _, row = split.ids[rows[0]].rpartition(":")
            raise DataError(
                f"{origin}, row {row}: each label must stand in the training split, got `{labels[index]}` only in the "
                f"{name} split ({len(rows)} rows); correct the label, or add training rows of it"
            )
    if kind == "classification" and taught.sum() < 2:
        got = f"only `{labels[int(taught.argmax())]}`"
        raise DataError(f"the training split must hold at least 2 classes, got {got}; is it the right label column?")
    if "test" not in splits:
        return []
    tested = presence(kind, labels, splits["test"].targets).any(axis=0)
    absent = [f"`{labels[i]}`" for i in np.flatnonzero(taught & ~tested)]
    more = ", …" if len(absent) > 5 else ""
    return [f"{len(absent)} labels have no rows in the test split: {', '.join(absent[:5])}{more}"] if absent else []


def check_enough(
    labels: list[str] | None, present: np.ndarray, units: np.ndarray, unit: str, names: Sequence[str]
) -> None:
    """Check that the rows can be divided so that every class reaches every split.

    Args:
        present: (n, labels) truth.
        units: (n,) what each row belongs to and cannot be parted from.
        unit: how a message calls a unit in the plural.
        names: the splits to be made.
    """
    rule = f"must have at least {len(names)} {unit}, one for each split ({', '.join(names)})"
    remedy = "add rows, or give files of your own with `--validation` and `--test`"
    if len(np.unique(units)) < len(names):
        raise DataError(f"the data {rule}, got {len(np.unique(units))}; {remedy}")
    for index, label in enumerate(labels or []):
        rows = np.flatnonzero(present[:, index])
        n_units = len(np.unique(units[rows]))
        if 0 < n_units < len(names):
            raise DataError(
                f"each class {rule}, got {n_units} of `{label}` in {len(rows)} rows; "
                f"merge or remove the class, {remedy} (`--kind regression` if the label is a quantity)"
            )
