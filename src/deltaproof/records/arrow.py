"""Arrow arrays from plain values, made from bytes: `pyarrow.array` imports pandas first, 0.2 s of every process."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def texts(values: Sequence[str | None]) -> pa.Array:
    """Strings; None becomes null.

    >>> texts(["a", None, "bc"]).to_pylist()
    ['a', None, 'bc']
    """
    encoded = [b"" if value is None else value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    is_there = np.packbits(np.array([value is not None for value in values], dtype=bool), bitorder="little")
    buffers = [pa.py_buffer(bytes(is_there)), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers).cast(pa.string())


def numbers(values: np.ndarray) -> pa.Array:
    """(n,) floats.

    >>> numbers(np.array([1.0, 2.5])).to_pylist()
    [1.0, 2.5]
    """
    flat = np.ascontiguousarray(values, dtype=np.float64)
    return pa.Array.from_buffers(pa.float64(), len(flat), [None, pa.py_buffer(flat)])


def rows(values: np.ndarray) -> pa.Array:
    """(n, k) floats as n lists of k.

    >>> rows(np.array([[1.0, 2.0], [3.0, 4.0]])).to_pylist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    values = np.asarray(values, dtype=np.float64)
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    kind = pa.list_(pa.float64())
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends)], children=[numbers(values.ravel())])
