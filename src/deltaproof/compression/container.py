"""The file of a compressed update, `.dpz`: safetensors of two byte streams, the index and the payload.

    8 bytes     length of the header, little-endian, as safetensors has it
    header      JSON in one fixed form: it follows from the version and the lengths of the two streams alone
    index       CRC-32 of the rest of the index (4 bytes, little-endian), then JSON packed by zlib with the
                dictionary below
    payload     the bytes of every entry, in the order of the index

The index holds facts (method, base model, settings) and for each entry its name, shape, type, kind, numbers, length and
the CRC-32 of its bytes. A reader takes nothing on trust: header against its fixed form, lengths against the file's
size, index and entries against their checksums, numbers against lengths and limits, all before memory is taken by them.
CRC-32 finds every damage that is no longer than four bytes, and others but for one in 2^32. It is no signature.
"""

import json
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deltaproof.compression.entries import ITEM_BYTES, Entry, Rows, Ternary, Whole
from deltaproof.errors import CompressionError, CorruptFileError, NewerFormatError, RecordError
from deltaproof.records.store import write_atomically

VERSION = 1
_START = re.compile(rb'\{"__metadata__":\{"format":"dpz","version":"(\d{1,6})"\}')
_LENGTHS = re.compile(
    rb'"index":\{"dtype":"U8","shape":\[(\d{1,18})\].*"payload":\{"dtype":"U8","shape":\[(\d{1,18})\]'
)
_MOST_HEADER = 1000
_MOST_DENSE = 1 << 26, 1 << 15
"""Bytes that restored tensors may take: so many, and so many more for each byte of the file. At density 1e-4, the least
that `compress` takes, fp32 tensors are 20,000 times larger than their code."""
_MOST_INDEX = 1 << 26
"""Bytes of the unpacked index: 300,000 tensors."""
_MOST_DIMENSIONS = 8
_LARGEST = float(np.finfo(np.float32).max)
_TABLES = "spec", "task", "base", "settings", "config"
"""Facts that are looked into by name."""
_WORDS = (
    b'"start":"base","start":"one","start":"init","start_crc":"kind":"whole","dtype":"BF16","dtype":"F16",'
    b'"kind":"rows","rows":{"version":1,"facts":{},"entries":[{"name":"base_model.model.encoder.layer.0.attention.self.'
    b'query#0.a","shape":[768,8],"dtype":"F32","kind":"ternary","start":"zero","scale":0.0,"kept":0,"divisor":3,'
    b'"unary":0,"long":0,"bytes":0,"crc":0}]}'
)
"""What zlib may refer to as if it had been written before: the words of an index, so that a tensor costs few bytes."""


@dataclass(frozen=True)
class Compressed:
    """A compressed update: entries by name, and what a reader must know of it."""

    entries: dict[str, Entry]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ternary(self) -> dict[str, Ternary]:
        return {name: entry for name, entry in self.entries.items() if isinstance(entry, Ternary)}

    def to_bytes(self) -> bytes:
        """The file, byte by byte; the same update gives the same bytes."""
        listed = [
            {
                "name": entry.name, "shape": entry.shape, "dtype": entry.dtype, "kind": entry.kind,
                **entry.numbers(), "bytes": len(entry.payload), "crc": zlib.crc32(entry.payload),
            }
            for entry in self.entries.values()
        ]  # fmt: skip
        text = json.dumps({"version": VERSION, "facts": self.facts, "entries": listed}, separators=(",", ":"))
        if len(text) > _MOST_INDEX:
            raise CompressionError(
                f"the index of a file may have {_MOST_INDEX} bytes, that of {len(listed)} tensors has {len(text)}; "
                f"compress parts of the model apart"
            )
        packer = zlib.compressobj(9, zdict=_WORDS)
        packed = packer.compress(text.encode()) + packer.flush()
        index = zlib.crc32(packed).to_bytes(4, "little") + packed
        header = _header(VERSION, len(index), sum(len(entry.payload) for entry in self.entries.values()))
        parts = [len(header).to_bytes(8, "little"), header, index]
        return b"".join([*parts, *(entry.payload for entry in self.entries.values())])

    def write(self, path: Path) -> int:
        """Write the file whole or not at all; returns its bytes, as the file system has them."""
        write_atomically(path, self.to_bytes())
        return path.stat().st_size


def read_compressed(path: Path) -> Compressed:
    """Read a file and check every byte of it; vectors are decoded when they are asked for.

    Raises:
        RecordError: there is no such file.
        CorruptFileError: it is no compressed update, or damaged.
        NewerFormatError: a later version wrote it.
    """
    if not path.is_file():
        raise RecordError(f"a compressed update must be a file, found none at `{path}`; check the path")
    return from_bytes(path.read_bytes(), str(path))


def from_bytes(data: bytes, where: str = "the file") -> Compressed:
    """The same from bytes in memory."""
    version, n_index, start = _read_header(data, where)
    try:
        index = _read_index(data[start : start + n_index], where)
    except CorruptFileError:
        if version > VERSION:
            raise _newer(version, where) from None
        raise
    if index["version"] != version:
        raise _corrupt(where, "header", f"the version in the header is {version}, in the index {index['version']}")
    if version > VERSION:
        raise _newer(version, where)
    entries = _read_entries(index["entries"], memoryview(data)[start + n_index :], where)
    dense, most = sum(entry.dense_bytes for entry in entries), _MOST_DENSE[0] + _MOST_DENSE[1] * len(data)
    if dense > most:
        largest = max(entries, key=lambda entry: entry.dense_bytes)
        raise _corrupt(
            where, largest.name, f"tensors of {dense} bytes cannot come from {len(data)} bytes, the limit is {most}"
        )
    return Compressed({entry.name: entry for entry in entries}, index["facts"])


def _header(version: int, n_index: int, n_payload: int) -> bytes:
    end = n_index + n_payload
    return (
        f'{{"__metadata__":{{"format":"dpz","version":"{version}"}},'
        f'"index":{{"dtype":"U8","shape":[{n_index}],"data_offsets":[0,{n_index}]}},'
        f'"payload":{{"dtype":"U8","shape":[{n_payload}],"data_offsets":[{n_index},{end}]}}}}'
    ).encode()


def _read_header(data: bytes, where: str) -> tuple[int, int, int]:
    """Version, bytes of the index, and where it begins."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length] if length <= _MOST_HEADER else b""
    found, lengths = _START.match(header), _LENGTHS.search(header)
    if found is None:
        raise _corrupt(where, "header", "this is no compressed update of deltaproof, or its first bytes are damaged")
    version = int(found[1])
    if lengths is None:
        raise _newer(version, where) if version > VERSION else _corrupt(where, "header", "it is damaged")
    n_index, n_payload = int(lengths[1]), int(lengths[2])
    if header != _header(version, n_index, n_payload):
        raise _corrupt(where, "header", "it is damaged")
    if (whole := 8 + length + n_index + n_payload) != len(data):
        raise _corrupt(where, "file", f"{whole} bytes must be there, got {len(data)}")
    return version, n_index, 8 + length


def _read_index(stored: bytes, where: str) -> dict[str, Any]:
    if len(stored) < 4 or zlib.crc32(stored[4:]) != int.from_bytes(stored[:4], "little"):
        raise _corrupt(where, "index", "its checksum differs")
    unpack = zlib.decompressobj(zdict=_WORDS)
    try:
        text = unpack.decompress(stored[4:], _MOST_INDEX)
        if not unpack.eof or unpack.unused_data:
            raise _corrupt(where, "index", f"it must end where its bytes end and have {_MOST_INDEX} at most")
        index = json.loads(text)
        if not (isinstance(index["facts"], dict) and isinstance(index["entries"], list)):
            raise TypeError("facts and entries are of the wrong kind")
        if wrong := [name for name in _TABLES if not isinstance(index["facts"].get(name) or {}, dict)]:
            raise TypeError(f"the fact `{wrong[0]}` is no table")
        if type(index["version"]) is not int:
            raise TypeError("the version is no number")
    except (ValueError, KeyError, TypeError, RecursionError, zlib.error) as error:
        raise _corrupt(where, "index", f"it is none ({type(error).__name__}: {error})") from None
    return dict(index)


def _read_entries(listed: list[Any], payload: memoryview, where: str) -> list[Entry]:
    entries: list[Entry] = []
    seen: set[str] = set()
    start = 0
    for at, item in enumerate(listed):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or name in seen:
            raise _corrupt(where, f"entry {at}", f"entries must have names of their own, got {name!r}")
        seen.add(name)
        try:
            n_bytes = _count(item["bytes"])
            stored = bytes(payload[start : start + n_bytes])
            if len(stored) != n_bytes:
                raise _corrupt(where, name, f"{n_bytes} bytes must be there, got {len(stored)}")
            if zlib.crc32(stored) != _count(item["crc"]):
                raise _corrupt(where, name, "its checksum differs: bytes of it are damaged")
            entry = _entry(item, name, stored)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"the index does not tell what it is ({type(error).__name__}: {error})"
            raise _corrupt(where, name, reason) from None
        entry.check()
        entries.append(entry)
        start += n_bytes
    if start != len(payload):
        raise _corrupt(where, "payload", f"{len(payload) - start} bytes belong to no tensor")
    return entries


def _entry(item: dict[str, Any], name: str, stored: bytes) -> Entry:
    shape, dtype = tuple(_count(side) for side in item["shape"]), item["dtype"]
    if dtype not in ITEM_BYTES or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"type {dtype}, {len(shape)} dimensions")
    if item["kind"] == "whole":
        return Whole(name, shape, dtype, stored)
    if item["kind"] == "rows":
        return Rows(name, shape, dtype, stored, _count(item["rows"]))
    if item["kind"] == "ternary":
        crc = item.get("start_crc")
        return Ternary(
            name, shape, dtype, stored, str(item["start"]), _single(item["scale"]), _count(item["kept"]),
            _count(item["divisor"]), _count(item["unary"]), _count(item["long"]),
            None if crc is None else _count(crc),
        )  # fmt: skip
    raise ValueError(f"kind {item['kind']!r}")


def _single(value: Any) -> float:
    """A number, as fp32."""
    if type(value) not in (int, float) or not abs(value) <= _LARGEST:
        raise ValueError(f"a number was expected, got {value!r:.40}")
    return float(np.float32(value))


def _count(value: Any) -> int:
    """A whole number from 0 that fits 62 bits."""
    if type(value) is not int or not 0 <= value <= 2**62:
        raise ValueError(f"a count was expected, got {value!r:.40}")
    return value


def _corrupt(where: str, name: str, reason: str) -> CorruptFileError:
    return CorruptFileError(f"`{where}` cannot be read, `{name}`: {reason}; copy the file again, or compress anew")


def _newer(version: int, where: str) -> NewerFormatError:
    return NewerFormatError(
        f"`{where}` has format {version}, this version of deltaproof reads up to {VERSION}; update deltaproof, or copy "
        f"the file again in case its header is damaged"
    )
