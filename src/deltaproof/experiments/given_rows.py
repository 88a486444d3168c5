"""Rows in memory as files in the run folder, so that the experiment can be repeated from what the folder holds."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deltaproof.data.sources import read_source
from deltaproof.data.table import Table
from deltaproof.errors import DataError
from deltaproof.records.store import write_atomically


def keep_rows(source: Any, folder: Path) -> Path:
    """Write a data frame, a list of mappings, or a mapping of such by split, below `folder`; returns where.

    Errors:
        DataError: `source` is none of these, a column mixes types, or the folder holds other rows already.
    """
    _, tables = read_source(source)
    if list(tables) == ["train"]:
        return _keep(tables["train"], folder / "given" / "rows.parquet")
    for role, table in tables.items():
        _keep(table, folder / "given" / f"{role}.parquet")
    return folder / "given"


def _keep(table: Table, path: Path) -> Path:
    features = {name: {"_type": "ClassLabel", "names": names} for name, names in table.class_names.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}  # where the reader looks for class names
    arrow = pa.table({name: _column(table, name) for name in table.columns}, metadata=metadata)
    if path.exists():
        if not pq.ParquetFile(path).read().equals(arrow):
            raise DataError(
                f"`{path}` must hold the rows of this experiment, they are others; give another folder with `out`"
            )
        return path
    sink = pa.BufferOutputStream()
    pq.write_table(arrow, sink)
    write_atomically(path, sink.getvalue().to_pybytes())
    return path


def _column(table: Table, name: str) -> pa.Array:
    try:
        return pa.array(table.columns[name], from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{table.origin}: the column `{name}` must hold one type, got {error}; convert it") from None
