"""A safetensors file written one tensor at a time, for models of which two copies do not fit into memory."""

import json
from collections.abc import Iterable
from pathlib import Path

from deltaproof.records.store import replaced


def write_tensors(
    path: Path, layout: Iterable[tuple[str, str, tuple[int, ...], int]], contents: Iterable[bytes | memoryview],
    metadata: dict[str, str],
) -> None:  # fmt: skip
    """Write a file whole or not at all.

    Args:
        layout: name, type as safetensors calls it, shape and bytes of each tensor.
        contents: their bytes, in that order; each is written and let go.
        metadata: such as `{"format": "pt"}`.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    start, sizes = 0, []
    for name, dtype, shape, size in layout:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + size]}
        start += size
        sizes.append((name, size))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    with replaced(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, size), content in zip(sizes, contents, strict=True):
            assert len(content) == size, name
            file.write(content)
