"""Data sets of the Hugging Face hub, and folders that `save_to_disk` wrote; needs the extra `hub`."""

import re
from pathlib import Path
from typing import Any

from deltaproof.data.parquet_rows import table_of_arrow
from deltaproof.data.table import Table
from deltaproof.errors import DataError, MissingExtraError

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(:[\w.-]+)?")


def is_hub_id(source: str) -> bool:
    """Whether a text reads like `imdb`, `org/name`, `glue:sst2` or `org/name:config`."""
    return _HUB_ID.fullmatch(source) is not None


def is_saved_folder(folder: Path) -> bool:
    """Whether `save_to_disk` of the `datasets` library wrote this folder."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def load_hub(source: str) -> dict[str, Table]:
    """The splits of a hub data set, such as `glue:sst2`; code of the data set's authors is never run.

    Errors:
        MissingExtraError: the `datasets` library is not installed.
        DataError: the hub has no such data set or configuration, or cannot be reached.
    """
    datasets = _library(f"the data set `{source}` of the hub")
    name, _, config = source.partition(":")
    try:
        loaded = datasets.load_dataset(name, config or None)
    except Exception as error:  # the library raises many kinds, from connection errors to its own
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"`{source}` must be a file, a folder or a data set of the hub, got {first_line}; check the name "
            f"(`org/name:config` names a configuration) and the connection"
        ) from error
    return splits_of(loaded)


def load_saved_folder(folder: Path) -> dict[str, Table]:
    """The splits in a folder that `save_to_disk` wrote."""
    datasets = _library(f"`{folder}`, which the `datasets` library wrote,")
    try:
        return splits_of(datasets.load_from_disk(str(folder)))
    except (FileNotFoundError, ValueError, OSError) as error:
        raise DataError(f"`{folder}` must be a whole data set folder, got {error}; save it anew") from error


def splits_of(loaded: Any) -> dict[str, Table]:
    """Tables by split name from a `DatasetDict`, or one table called `train` from a `Dataset`."""
    if not isinstance(loaded, dict):
        return {"train": _table("train", loaded)}
    return {str(name): _table(str(name), part) for name, part in loaded.items()}


def _table(name: str, part: Any) -> Table:
    table = table_of_arrow(name, part.with_format("arrow")[:])
    for column, feature in part.features.items():
        names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        if names:
            table.class_names[column] = list(names)
    return table


def _library(what: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            f"reading {what} needs the extra `hub`, which is not installed; run `pip install 'deltaproof[hub]'`"
        ) from None
    return datasets
