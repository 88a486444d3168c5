"""From what the user gives to a data set: read, find columns, check, split where needed, seal the test split."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deltaproof.data.checks import check_enough, check_labels, presence, read_groups, read_pairs
from deltaproof.data.columns import Columns, find_columns, find_text
from deltaproof.data.dataset import Dataset, dataset_fingerprint
from deltaproof.data.empty_texts import set_aside_empty
from deltaproof.data.label_names import named_labels
from deltaproof.data.leaks import find_conflicts, find_leaks, shared_groups
from deltaproof.data.reading import Reading
from deltaproof.data.sealed import SealedSplit
from deltaproof.data.sources import read_file, read_source
from deltaproof.data.split import Split
from deltaproof.data.splits import THREE_WAYS, nested_sample, quantile_bins, row_keys, split_rows
from deltaproof.data.table import Table
from deltaproof.data.targets import Targets, read_targets
from deltaproof.data.units import find_units
from deltaproof.data.unlabelled import set_aside_unlabelled
from deltaproof.errors import DataError

SPLITS = tuple(THREE_WAYS)


def load_data(
    source: Any,
    *,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    group: str | None = None,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    kind: str | None = None,
    seed: int = 0,
    drop_leaks: bool = False,
    drop_empty: bool = False,
    max_rows: int | None = None,
    max_evaluation_rows: int | None = None,
    encoding: str | None = None,
    format: str | None = None,
    columns: Sequence[str] = (),
    label_names: Mapping[str, str] | None = None,
) -> Dataset:
    """The data set in `source`, checked, split and with its test split sealed.

    Args:
        source: file (CSV, TSV, JSON lines, JSON, Parquet), folder of them or of the `datasets` library, hub id
            (`imdb`, `glue:sst2`), or rows in memory.
        text: one column or two (`"premise,hypothesis"`); found by name where not given.
        label: one column, or one per label of a multi-label task; found by name where not given.
        group: column of what belongs together; its rows are never parted by a split made here.
        validation: file of the validation split, where the source has none.
        test: file of the test split, where the source has none.
        kind: `classification`, `regression` or `multilabel`; inferred where not given.
        seed: of the splits made here and of the sample.
        drop_leaks: remove rows of train and validation whose text stands in a later split too.
        drop_empty: leave out rows without a text.
        max_rows: at most so many training rows, a stratified sample; smaller samples are subsets of larger ones.
        max_evaluation_rows: at most so many rows of validation and of test each, a stratified sample likewise.
        encoding: of text files that are not UTF-8.
        format: of files whose endings do not say it: `csv`, `tsv`, `json`, `jsonl`, `parquet`, or `label_text` for
            lines of a label, a blank and a text.
        columns: names for the fields of CSV and TSV files that have no header line.
        label_names: what the label column holds to the name to show for it, such as `{"0": "negative"}`.
    Errors:
        DataError: with file, row and remedy. MissingExtraError: a hub data set without the extra `hub`.
    """
    reading = Reading(encoding, format, tuple(columns))
    name, tables = read_source(source, reading)
    for role, path in (("validation", validation), ("test", test)):
        if path is not None:
            tables[role] = read_file(path, reading)
    tables = _distinct_origins(tables)
    found = find_columns(tables["train"], text, label, group)
    tables, notes = set_aside_unlabelled(tables, found.label, test_was_given=test is not None)
    for table in tables.values():
        _check_columns(table, found)
    if drop_empty:
        tables, without_text = set_aside_empty(tables, found.text)
        notes += without_text
    if label_names:
        tables = named_labels(tables, found.label, label_names)
    targets = read_targets(tables, found.label, kind)
    given = {role: _split(role, table, found, targets) for role, table in tables.items()}
    check_labels(targets.kind, targets.labels, given)
    splits, how = _complete(given, targets, seed)
    splits, leaks = find_leaks(splits, drop_leaks)
    for role, split in splits.items():
        if not len(split):
            raise DataError(
                f"the {role} split must hold rows, got none; all of them stood in a later split too: check the files"
            )
    unusual = check_labels(targets.kind, targets.labels, splits)
    conflicts = find_conflicts(splits)
    sample: list[str] = []
    for role, most in (("train", max_rows), ("validation", max_evaluation_rows), ("test", max_evaluation_rows)):
        splits[role], said = _sample(splits[role], targets, most, seed)
        sample += said
    from_tables = [note for table in tables.values() for note in table.notes]
    prints = (splits["train"].fingerprint, splits["validation"].fingerprint, splits["test"].fingerprint)
    return Dataset(
        name,
        targets.kind,
        targets.labels,
        found.text,
        ",".join(found.label),
        splits["train"],
        splits["validation"],
        SealedSplit.seal(splits["test"]),
        dataset_fingerprint(targets.kind, targets.labels, *prints),
        [
            *from_tables,
            *notes,
            *targets.notes,
            *found.notes,
            *how,
            *leaks,
            *shared_groups(splits),
            *conflicts,
            *unusual,
            *sample,
        ],
    )


def read_texts(
    source: Any, *, text: str | Sequence[str] | None = None, encoding: str | None = None
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Row ids and texts of data to predict on; labels may be absent.

    A source with splits gives those of `test` where it has one, else those of `train`.

    Errors:
        DataError: the text column is missing or unclear, or a text is empty.
    """
    _, tables = read_source(source, Reading(encoding))
    table = tables.get("test", tables["train"])
    return table.ids(), read_pairs(table, find_text(table, text, set()))


def _distinct_origins(tables: dict[str, Table]) -> dict[str, Table]:
    """Tables of one file name, such as `a/data.csv` and `b/data.csv`, told apart by their splits in row ids."""
    origins = [table.origin for table in tables.values()]
    return {
        role: replace(table, origin=f"{role}/{table.origin}") if origins.count(table.origin) > 1 else table
        for role, table in tables.items()
    }


def _check_columns(table: Table, columns: Columns) -> None:
    groups = (columns.group,) if columns.group is not None else ()
    for option, names in (("text", columns.text), ("label", columns.label), ("group", groups)):
        for name in names:
            if name not in table.columns:
                raise DataError(
                    f"{table.origin}: the {option} column `{name}` must be there as in the training split, got "
                    f"{', '.join(f'`{known}`' for known in table.columns)}; rename the column in this file"
                )


def _split(role: str, table: Table, columns: Columns, targets: Targets) -> Split:
    groups = read_groups(table, columns.group)
    return Split(role, table.ids(), read_pairs(table, columns.text), targets.values[role], groups)


def _complete(given: dict[str, Split], targets: Targets, seed: int) -> tuple[dict[str, Split], list[str]]:
    """All three splits: those given, and those that are missing made from the training rows."""
    missing = [role for role in SPLITS if role not in given]
    if not missing:
        return {role: given[role] for role in SPLITS}, ["the splits are those of the source"]
    rows = given["train"]
    fractions = _fractions(missing)
    units, unit_name = find_units(rows.texts, rows.groups)
    present = presence(targets.kind, targets.labels, rows.targets)
    check_enough(targets.labels, present, units, unit_name, list(fractions))
    strata = present if targets.labels is not None else quantile_bins(rows.targets[:, 0])
    parts = split_rows(strata, units, row_keys(rows.texts, seed, "split"), fractions)
    made = {role: replace(rows.take(indices), name=role) for role, indices in parts.items()}
    splits = {role: made[role] if role in made else given[role] for role in SPLITS}
    shares = ", ".join(f"{role} {share:.1%}" for role, share in fractions.items()).replace(".0%", "%")
    stratified = "by quantiles of the target" if targets.labels is None else "by label"
    together = "groups and " if rows.groups is not None else ""
    how = f"splits made here with seed {seed}, stratified {stratified} ({shares})"
    return splits, [f"{how}; {together}equal texts stay in one split"]


def _fractions(missing: list[str]) -> dict[str, float]:
    """Shares of the training rows for what is to be made: 70 / 10 / 20, scaled to the splits concerned."""
    if missing == ["validation"]:
        return {"train": 0.875, "validation": 0.125}
    if missing == ["test"]:
        return {"train": 0.8, "test": 0.2}
    return dict(THREE_WAYS)


def _sample(split: Split, targets: Targets, most: int | None, seed: int) -> tuple[Split, list[str]]:
    if most is None or most >= len(split):
        return split, []
    if targets.labels is None:
        strata, n_least = quantile_bins(split.targets[:, 0]), 2
    else:
        strata = presence(targets.kind, targets.labels, split.targets)
        n_least = int(strata.any(axis=0).sum())
    if most < n_least:
        option = "max_rows" if split.name == "train" else "max_evaluation_rows"
        raise DataError(f"`{option}` must be at least {n_least}, one row for each label, got {most}; raise it")
    indices = nested_sample(strata, row_keys(split.texts, seed, "sample"), most)
    called = "training" if split.name == "train" else split.name
    return split.take(indices), [f"the {called} split is a stratified sample of {most} of {len(split)} rows"]
