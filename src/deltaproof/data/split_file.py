"""One split as one Parquet file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deltaproof.data.split import Split
from deltaproof.errors import DataError
from deltaproof.records import arrow
from deltaproof.records.store import write_atomically


def write_split(split: Split, path: Path) -> None:
    """Write a split whole or not at all: columns `id`, `text`, `text_2` (null for single texts), `group`, `target`."""
    targets = np.ascontiguousarray(split.targets, dtype=float)
    table = pa.table(
        {
            "id": arrow.texts(split.ids),
            "text": arrow.texts([texts[0] for texts in split.texts]),
            "text_2": arrow.texts([texts[1] if len(texts) > 1 else None for texts in split.texts]),
            "group": arrow.texts([None] * len(split) if split.groups is None else split.groups),
            "target": pa.FixedSizeListArray.from_arrays(arrow.numbers(targets.ravel()), targets.shape[1]),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def read_split(path: Path, name: str) -> Split:
    """The split that `write_split` wrote.

    Errors:
        DataError: the file is gone or broken.
    """
    try:
        table = pq.ParquetFile(path).read()  # `read_table` would import pandas, at every run's start
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"`{path}` must hold the {name} split, got {error}; begin a new run folder") from None
    first, second = table.column("text").to_pylist(), table.column("text_2").to_pylist()
    pairs = bool(second) and second[0] is not None
    texts: list[tuple[str, ...]] = list(zip(first, second, strict=True)) if pairs else [(text,) for text in first]
    groups = table.column("group").to_pylist()
    column = table.column("target").combine_chunks()
    flat = np.array(column.flatten().to_pylist(), dtype=float)  # `to_numpy` would import pandas
    targets = flat.reshape(table.num_rows, column.type.list_size)
    return Split(
        name, table.column("id").to_pylist(), texts, targets, None if not groups or groups[0] is None else groups
    )
