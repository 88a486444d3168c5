"""A data set in a run folder, so that runs in other processes read the very same rows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deltaproof.data.dataset import Dataset
from deltaproof.data.ledger import check_ledger
from deltaproof.data.sealed import SealedSplit
from deltaproof.data.split import Split
from deltaproof.data.split_file import read_split, write_split
from deltaproof.errors import DataError
from deltaproof.records.store import read_json, write_json

_FACTS = "dataset.json"
_OPEN_SPLITS = ("train", "validation")


def write_splits(dataset: Dataset, folder: Path | str) -> Dataset:
    """Write the splits to `folder` (`dataset.json` comes last) and return the data set with its test rows there only.

    A folder that holds the same data is left as it is, so that a command may be repeated.

    Errors:
        DataError: the folder holds other data, or the ledger of openings cannot be written.
    """
    folder = Path(folder)
    check_ledger()
    if (folder / _FACTS).exists():
        held = read_json(folder / _FACTS)["fingerprint"]
        if held != dataset.fingerprint:
            raise DataError(
                f"`{folder}` must hold the data of this comparison (fingerprint {dataset.fingerprint}), got {held}; "
                f"the data or the seed has changed: give another folder with `--out`"
            )
        if all((folder / f"{name}.parquet").exists() for name in (*_OPEN_SPLITS, "test")):
            return replace(dataset, test=_sealed(folder, dataset.test.n_rows, dataset.test.fingerprint))
    for name in _OPEN_SPLITS:
        write_split(getattr(dataset, name), folder / f"{name}.parquet")
    test = dataset.test.store(_test_path(folder))
    facts = {
        "name": dataset.name,
        "kind": dataset.kind,
        "labels": dataset.labels,
        "text_columns": dataset.text_columns,
        "label_column": dataset.label_column,
        "fingerprint": dataset.fingerprint,
        "notes": dataset.notes,
        "n_targets": dataset.train.targets.shape[1],
        "test": {"n_rows": test.n_rows, "fingerprint": test.fingerprint},
    }
    write_json(folder / _FACTS, facts)
    return replace(dataset, test=test)


def read_dataset(folder: Path | str, splits: Sequence[str] = _OPEN_SPLITS) -> Dataset:
    """The data set that `write_splits` wrote.

    Args:
        splits: which of train and validation to read; the other has no rows. The test rows stay in their file
            until `dataset.test.open(reader)`.
    Errors:
        RecordError: the folder holds no data set. DataError: a split is gone or is asked for by a wrong name.
    """
    folder = Path(folder)
    wrong = [name for name in splits if name not in _OPEN_SPLITS]
    if wrong:
        raise DataError(
            f"`splits` must be among train and validation, got `{wrong[0]}`; "
            f"the test split opens with `dataset.test.open(reader)`"
        )
    facts = read_json(folder / _FACTS)
    read = {
        name: read_split(folder / f"{name}.parquet", name)
        if name in splits
        else Split(name, [], [], np.empty((0, facts["n_targets"])))
        for name in _OPEN_SPLITS
    }
    return Dataset(
        facts["name"],
        facts["kind"],
        facts["labels"],
        tuple(facts["text_columns"]),
        facts["label_column"],
        read["train"],
        read["validation"],
        _sealed(folder, **facts["test"]),
        facts["fingerprint"],
        facts["notes"],
    )


def carried_files(with_test: bool) -> list[str]:
    """Names of the files of a folder that `read_dataset` needs, for whoever carries them to another machine.

    Args:
        with_test: whether the sealed test split goes too; only where a final evaluation will open it.
    """
    splits = (*_OPEN_SPLITS, "test") if with_test else _OPEN_SPLITS
    return ["dataset.json", *(f"{name}.parquet" for name in splits)]


def _sealed(folder: Path, n_rows: int, fingerprint: str) -> SealedSplit:
    return SealedSplit(n_rows, fingerprint, _test_path(folder))


def _test_path(folder: Path) -> Path:
    return folder / "test.parquet"
