"""Parquet files to tables, with the class names that Hugging Face writes beside them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deltaproof.data.table import Table
from deltaproof.errors import DataError


def read_parquet_rows(path: Path) -> Table:
    """A Parquet file; rows are counted from 1.

    Errors:
        DataError: the file is not Parquet, or holds no rows.
    """
    try:
        arrow = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name}: the file must be Parquet, got {error}; write it anew") from None
    return table_of_arrow(path.name, arrow)


def table_of_arrow(origin: str, arrow: Any) -> Table:
    """A table from an Arrow table; columns of bytes and structs (pictures, sound) are left out."""
    if arrow.num_rows == 0:
        raise DataError(f"{origin}: a table must hold rows, got none; add rows")
    plain = [
        field.name for field in arrow.schema if not (pa.types.is_struct(field.type) or pa.types.is_binary(field.type))
    ]
    columns = {name: arrow.column(name).to_pylist() for name in plain}
    return Table(origin, columns, range(1, arrow.num_rows + 1), _class_names(arrow.schema.metadata or {}))


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Names of classes from the metadata key `huggingface`, for class labels and lists of them."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    found = {}
    for name, feature in features.items():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and inner.get("names"):
            found[name] = list(inner["names"])
    return found
