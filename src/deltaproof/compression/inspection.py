"""What a compressed file says of itself."""

from pathlib import Path
from typing import Any

from deltaproof.compression.container import VERSION, read_compressed
from deltaproof.compression.folder import with_ratios
from deltaproof.compression.sizes import sizes_of


def inspected(path: Path) -> dict[str, Any]:
    """Facts, sizes and tensors; every vector is decoded once, so that what is told can be restored.

    Raises:
        CorruptFileError: it is damaged. NewerFormatError: a later version wrote it.
    """
    compressed = read_compressed(path)
    for entry in compressed.ternary.values():
        entry.signs()
    facts = compressed.facts
    spec = facts.get("spec") or {}
    tensors = [
        {
            "name": entry.name, "shape": list(entry.shape), "dtype": entry.dtype, "kind": entry.kind,
            "bytes": len(entry.payload), **entry.numbers(),
        }
        for entry in compressed.entries.values()
    ]  # fmt: skip
    return {
        "path": str(path),
        "format": VERSION,
        "holds": facts.get("holds"),
        "method": spec.get("contestant") or facts.get("config", {}).get("peft_type") or facts.get("holds"),
        "base": facts.get("base"),
        "data": spec.get("data", {}).get("name"),
        "seed": spec.get("seed"),
        "start": facts.get("start"),
        "settings": facts.get("settings"),
        "sizes": with_ratios(sizes_of(compressed, path.stat().st_size)),
        "tensors": tensors,
    }
