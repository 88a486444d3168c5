"""The compressed file: what it costs, and that no damage to it goes unseen."""

import json
import resource
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from deltaproof.compression.compeft import compress
from deltaproof.compression.container import _WORDS, Compressed, _header, from_bytes, read_compressed
from deltaproof.compression.entries import Rows, Whole
from deltaproof.compression.restore import restored
from deltaproof.errors import CorruptFileError, NewerFormatError, RecordError
from updates import InMemory, adapters

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def small():
    """A file of every kind of entry, about a kilobyte."""
    tensors, starts = adapters(2, 24, 2, 0.02)
    found = compress(InMemory(tensors, starts), 0.2).compressed
    rows = np.array([1, 4], "<u4").tobytes() + np.arange(24, dtype=np.uint8).tobytes()
    more = {
        "classifier.weight": Whole("classifier.weight", (2, 3), "F32", np.arange(6, dtype="<f4").tobytes()),
        "embeddings": Rows("embeddings", (6, 3), "F32", rows, 2),
    }
    return Compressed({**found.entries, **more}, {**found.facts, "base": {"name": "nowhere", "fingerprint": "0"}})


def build(index: dict, payload: bytes = b"", version: int = 1) -> bytes:
    """A file whose checksums hold, whatever stands in it."""
    packer = zlib.compressobj(zdict=_WORDS)
    packed = packer.compress(json.dumps(index).encode()) + packer.flush()
    stored = zlib.crc32(packed).to_bytes(4, "little") + packed
    header = _header(version, len(stored), len(payload))
    return len(header).to_bytes(8, "little") + header + stored + payload


def test_what_is_written_is_read(small, tmp_path):
    path = tmp_path / "expert.dpz"
    assert small.write(path) == path.stat().st_size == len(small.to_bytes())
    assert read_compressed(path) == small
    assert read_compressed(path).to_bytes() == small.to_bytes()


GOLDEN = bytes.fromhex(
    "aa000000000000007b225f5f6d657461646174615f5f223a7b22666f726d6174223a2264707a222c2276657273696f6e223a"
    "2231227d2c22696e646578223a7b226474797065223a225538222c227368617065223a5b3135355d2c22646174615f6f6666"
    "73657473223a5b302c3135355d7d2c227061796c6f6164223a7b226474797065223a225538222c227368617065223a5b3136"
    "5d2c22646174615f6f666673657473223a5b3135352c3137315d7d7de67c94cf78f956dd71839dd2310e83300c40d1bb648e"
    "aa38b6c133f7e8508914ba754062e2ee04354edd020b5b26e7fdc4c7b12ebf5d9f0fee9d9e933b4eff14ce26847c733d8335"
    "a33519b166006a475b3ba87440600e0d33c2e2ff7883e1595cf7f3fd7b5d5932c5c5aa03a3a3af4e71b0c31130a1881019dc"
    "981efd6d4eaf619c0c30fa783f59505de6325cca7044817c0184ed2b572dc889849998aa4880008000003c00c000380000"
)
"""A file as it was written once: it must read the same on every machine, whatever zlib packs there."""


def test_a_file_that_was_written_elsewhere_is_read_to_the_same_tensors():
    found = from_bytes(GOLDEN)
    i = np.arange(24)
    signs = np.where(i * i % 7 == 1, np.where(i % 3 == 0, -1, 1), 0)
    tensors = {name: restored(entry, {}.__getitem__) for name, entry in found.entries.items()}
    assert torch.equal(tensors["layer.w"], torch.from_numpy(0.5 * signs).float().reshape(4, 6))
    assert torch.equal(tensors["layer.g"], torch.from_numpy(1 + 0.25 * signs[:6]).bfloat16())
    assert torch.equal(tensors["head.weight"], torch.tensor([[1.0, -2.0], [0.5, 0.0]]).half())
    assert found.facts == {"holds": "peft"}


SHAPES = st.lists(st.integers(0, 9), max_size=4).map(tuple)


@settings(max_examples=150, deadline=None)
@given(st.lists(SHAPES, min_size=1, max_size=4), st.floats(1e-4, 1), st.sampled_from(DTYPES), st.integers(0, 9))
def test_tensors_of_any_shape_come_back_as_start_and_signs_say(shapes, density, dtype, seed):
    draw = torch.Generator().manual_seed(seed)
    tensors = {f"t{at}": torch.randn(shape, generator=draw).round(decimals=1).to(dtype)
               for at, shape in enumerate(shapes)}  # fmt: skip
    found = compress(InMemory(tensors), density, allow_erased=True).compressed
    again = from_bytes(found.to_bytes())
    assert again == found
    for name, tensor in tensors.items():
        flat = tensor.float().flatten().numpy()
        order = np.argsort(-np.abs(flat), kind="stable")[: round(density * flat.size)]
        kept = order[flat[order] != 0]
        scale = np.float32(np.abs(flat[kept]).mean(dtype=np.float64)) if len(kept) else np.float32(0)
        wanted = np.zeros_like(flat)
        wanted[kept] = np.sign(flat[kept]) * again.ternary[name].scale
        assert again.ternary[name].scale == pytest.approx(scale, rel=1e-6)
        assert torch.equal(
            restored(again.entries[name], {}.__getitem__), torch.from_numpy(wanted).reshape(tensor.shape).to(dtype)
        )


def test_it_is_a_safetensors_file_of_two_byte_streams(small, tmp_path):
    path = tmp_path / "expert.dpz"
    small.write(path)
    with safe_open(path, "np") as file:
        assert sorted(file.keys()) == ["index", "payload"]
        assert file.metadata() == {"format": "dpz", "version": "1"}
        assert file.get_tensor("payload").nbytes == sum(len(entry.payload) for entry in small.entries.values())


def test_every_flip_of_every_byte_is_seen(small):
    data = bytearray(small.to_bytes())
    draw = np.random.default_rng(0)
    for at in range(len(data)):
        for mask in {1, 1 << int(draw.integers(1, 8)), int(draw.integers(1, 256))}:
            data[at] ^= mask
            with pytest.raises(CorruptFileError) as error:
                from_bytes(bytes(data))
            assert "cannot be read, `" in str(error.value), str(error.value)
            data[at] ^= mask
    assert from_bytes(bytes(data)) == small


def test_a_flip_in_the_payload_names_its_tensor(small):
    data = small.to_bytes()
    start = len(data) - sum(len(entry.payload) for entry in small.entries.values())
    for entry in small.entries.values():
        damaged = bytearray(data)
        damaged[start] ^= 4
        with pytest.raises(CorruptFileError, match=f"`{entry.name}`: its checksum differs"):
            from_bytes(bytes(damaged))
        start += len(entry.payload)


def test_every_length_but_the_right_one_is_seen(small):
    data = small.to_bytes()
    for length in range(len(data)):
        with pytest.raises(CorruptFileError):
            from_bytes(data[:length])
    with pytest.raises(CorruptFileError, match="bytes must be there"):
        from_bytes(data + b"\0")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_bytes_that_are_no_such_file_are_refused(data):
    with pytest.raises(CorruptFileError):
        from_bytes(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_an_index_that_lies_under_true_checksums_is_refused(small, data):
    """Nobody's accident: someone who writes checksums that hold around numbers that do not."""
    packed = small.to_bytes()[8 + len(_header_of(small)) + 4 :][: _n_index(small) - 4]
    listed = json.loads(zlib.decompressobj(zdict=_WORDS).decompress(packed))
    payload = b"".join(entry.payload for entry in small.entries.values())
    item = data.draw(st.sampled_from(listed["entries"]))
    key = data.draw(st.sampled_from(sorted(item)))
    value = data.draw(
        st.one_of(
            st.none(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5),
            st.lists(st.integers(-3, 2**40), max_size=10), st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
        )
    )  # fmt: skip
    before, item[key] = item[key], value
    try:
        found = from_bytes(build(listed, payload))
    except CorruptFileError:
        return
    assert key in ("name", "scale", "start", "start_crc", "shape", "dtype"), (key, before, value)
    for entry in found.ternary.values():
        entry.signs()


@pytest.mark.parametrize("scale", [10**400, 1e39, -(10**400), True, None, "1.0"], ids=str)
def test_a_scale_that_no_fp32_holds_is_refused_with_its_tensor(scale):
    entry = {**ENTRY, "shape": [8], "kept": 0, "divisor": 1, "unary": 0, "long": 0, "scale": scale}
    with pytest.raises(CorruptFileError, match=r"`w`.*a number was expected"):
        from_bytes(build({"version": 1, "facts": {}, "entries": [entry]}))


@pytest.mark.parametrize("fact", ["spec", "task", "base", "settings", "config"])
def test_a_fact_that_should_be_a_table_and_is_none_is_refused(fact):
    with pytest.raises(CorruptFileError, match=f"the fact `{fact}` is no table"):
        from_bytes(build({"version": 1, "facts": {fact: 1}, "entries": []}))


def _header_of(compressed):
    data = compressed.to_bytes()
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def _n_index(compressed):
    return int(_header_of(compressed).split(b'"shape":[')[1].split(b"]")[0])


ENTRY = {"name": "w", "dtype": "F32", "bytes": 0, "crc": 0, "kind": "ternary", "start": "zero", "scale": 1.0}


@pytest.mark.parametrize(
    "index",
    [
        {**ENTRY, "shape": [2**31, 2**29], "kept": 0, "divisor": 1, "unary": 0, "long": 0},
        {**ENTRY, "shape": [10**9], "kept": 0, "divisor": 1, "unary": 0, "long": 0},
        {**ENTRY, "shape": [10**12], "kept": 10**11, "divisor": 7, "unary": 10**11, "long": 5},
        {**ENTRY, "kind": "whole", "shape": [10**12]},
        {**ENTRY, "kind": "rows", "shape": [10**12, 4], "rows": 10**12},
    ],
    ids=["zeros without end", "four gigabytes of zeros", "kept without bytes", "whole", "rows"],
)
def test_a_file_that_claims_more_than_it_can_hold_is_refused(index):
    with pytest.raises(CorruptFileError, match="`w`"):
        from_bytes(build({"version": 1, "facts": {}, "entries": [index]}))


def test_claims_take_no_memory():
    """In a process of its own that may take 0.4 GB more: an index that would unpack to 0.6 GB."""
    code = """
import json, resource, sys, zlib
from deltaproof.compression.container import _header, from_bytes
from deltaproof.errors import CorruptFileError
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 10**8, used + 3 * 10**8))
packer = zlib.compressobj(1)
packed = b''.join(packer.compress(b' ' * 2**24) for _ in range(36)) + packer.flush()
stored = zlib.crc32(packed).to_bytes(4, 'little') + packed
header = _header(1, len(stored), 0)
try:
    from_bytes(len(header).to_bytes(8, 'little') + header + stored)
except CorruptFileError as error:
    assert 'index' in str(error)
    print('refused')
"""
    if not hasattr(resource, "RLIMIT_AS") or not sys.platform.startswith("linux"):
        pytest.skip("limits of memory are Linux's")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "refused\n", done.stderr


def test_a_newer_format_is_told_from_damage(small):
    facts = {"version": 2, "facts": {}, "entries": []}
    with pytest.raises(NewerFormatError, match="has format 2, this version of deltaproof reads up to 1; update"):
        from_bytes(build(facts, version=2))
    start = b'{"__metadata__":{"format":"dpz","version":"7"},"something":"else"}'
    with pytest.raises(NewerFormatError, match="has format 7"):
        from_bytes(len(start).to_bytes(8, "little") + start)
    damaged = small.to_bytes().replace(b'"version":"1"', b'"version":"3"')
    with pytest.raises(CorruptFileError, match="the version in the header is 3, in the index 1"):
        from_bytes(damaged)


def test_a_file_that_is_not_there_or_something_else_is_said_so(tmp_path):
    with pytest.raises(RecordError, match="must be a file, found none"):
        read_compressed(tmp_path / "none.dpz")
    (tmp_path / "other.dpz").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(CorruptFileError, match="no compressed update of deltaproof"):
        read_compressed(tmp_path / "other.dpz")


@pytest.mark.parametrize("n_tensors", [1, 24, 200])
def test_a_file_costs_256_bytes_and_64_for_each_tensor_beyond_its_payload(n_tensors):
    names = [f"encoder.layer.{at}.attention.self.query#0.{part}" for at in range(n_tensors) for part in "ab"]
    draw = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(384, 8, generator=draw) for name in names[:n_tensors]}
    bare = Compressed(compress(InMemory(tensors), 0.2).compressed.entries)
    payload = sum(len(entry.payload) for entry in bare.entries.values())
    assert len(bare.to_bytes()) <= payload + 256 + 64 * n_tensors
