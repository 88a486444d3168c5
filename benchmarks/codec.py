"""How fast and how small is the code of ternary vectors, beside numpy's packed bits, zstd, bitarray and the entropy?

    python benchmarks/codec.py
    python benchmarks/codec.py --values 2000000 --densities 0.2

zstd (Python's own from 3.14 on, else `zstandard`) and `bitarray` come with `pip install 'deltaproof[bench]'`; without
them their lines are left out. Both code the mask of kept entries, and the signs stand beside it, one bit each: zstd at
level 9, bitarray by `sc_encode`, its code for sparse arrays.

Every round takes each side once, in turn, so that what else the machine does falls on all alike. Speeds are by
processor time of this process on one thread, the median of the rounds, with quartiles; ratios are to `np.packbits` of
both masks of the same data (`np.unpackbits` for reading) in the same rounds. The last part writes a tensor of that size
dense (safetensors) and compressed, and compares the times to load it into a model's parameter, in fp32.
"""

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from deltaproof.compression.codec import Code, decode, encode
from deltaproof.compression.container import Compressed, read_compressed
from deltaproof.compression.entries import Ternary
from deltaproof.compression.restore import restored
from deltaproof.compression.sizes import entropy_bits
from deltaproof.compression.ternary import Masks


@dataclass(frozen=True)
class Peer:
    """Another code for a mask, both ways; the signs beside it take one bit each and are not timed."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]


def peers() -> dict[str, Peer]:
    """Those that are installed."""
    found = {}
    for name in ("compression.zstd", "zstandard"):
        try:
            zstd: Any = importlib.import_module(name)
        except ImportError:
            continue
        found["zstd-9"] = Peer(
            lambda kept, zstd=zstd: zstd.compress(np.packbits(kept).tobytes(), 9),
            lambda data, zstd=zstd: np.unpackbits(np.frombuffer(zstd.decompress(data), np.uint8)),
        )
        break
    try:
        import bitarray
        import bitarray.util
    except ImportError:
        return found

    def sparse(kept: np.ndarray) -> bytes:
        return bitarray.util.sc_encode(bitarray.bitarray(buffer=np.packbits(kept), endian="big"))

    def dense(data: bytes) -> np.ndarray:
        return np.unpackbits(np.frombuffer(bitarray.util.sc_decode(data), np.uint8))

    found["bitarray sc_encode"] = Peer(sparse, dense)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--densities", default="0.05,0.1,0.2,0.3,0.5")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{given.values:,} values, {given.rounds} rounds, processor time of one thread", flush=True)
    for density in map(float, given.densities.split(",")):
        signs = random_signs(given.values, density)
        code = encode(signs)
        print_sizes(density, signs, code)
        print_speeds(signs, code, given.rounds)
    print_loading(signs, code, given.rounds)


def random_signs(n: int, density: float) -> np.ndarray:
    draw = np.random.default_rng(0)
    signs = np.where(draw.random(n, np.float32) < 0.5, np.int8(-1), np.int8(1))
    return signs * (draw.random(n, np.float32) < density)


def print_sizes(density: float, signs: np.ndarray, code: Code) -> None:
    bound, masks = entropy_bits(len(signs), code.n_kept), Masks.of(signs)
    said = [f"code {8 * len(code.streams) / bound:.4f}", f"two masks {8 * masks.n_bytes / bound:.3f}"]
    for name, peer in peers().items():
        n_bytes = len(peer.encode(signs != 0)) + (code.n_kept + 7) // 8
        said.append(f"{name} {8 * n_bytes / bound:.3f}")
    print(
        f"\ndensity {density:g}: {bound / len(signs):.4f} bits a value by entropy; sizes over that: {', '.join(said)}"
    )


def print_speeds(signs: np.ndarray, code: Code, rounds: int) -> None:
    masks, kept = Masks.of(signs), signs != 0
    writing: dict[str, Callable[[], object]] = {"packbits": lambda: Masks.of(signs), "code": lambda: encode(signs)}
    reading: dict[str, Callable[[], object]] = {"unpackbits": masks.signs, "code": lambda: decode(code)}
    for name, peer in peers().items():
        data = peer.encode(kept)
        assert np.array_equal(peer.decode(data)[: len(kept)], kept), name
        writing[name] = lambda peer=peer: peer.encode(kept)
        reading[name] = lambda peer=peer, data=data: peer.decode(data)
    for way, sides in (("to write", writing), ("to read", reading)):
        times = interleaved(sides, rounds)
        first = next(iter(sides))
        for name, values in times.items():
            low, middle, high = np.quantile(len(signs) / np.array(values) / 1e6, [0.25, 0.5, 0.75])
            ratio = np.median(np.array(values) / np.array(times[first]))
            print(
                f"  {way} {name:18} {middle:6.0f} ({low:.0f} to {high:.0f}) million values a second, {ratio:6.1f} "
                f"times as long as {first}", flush=True,
            )  # fmt: skip


def print_loading(signs: np.ndarray, code: Code, rounds: int) -> None:
    entry = Ternary.of("w", (len(signs),), "F32", code, "zero", None).scaled(0.01)
    parameter = torch.nn.Parameter(torch.zeros(len(signs)), requires_grad=False)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.dpz"
        change = restored(entry, lambda name: torch.empty(0))
        dense = {kind: Path(folder) / f"{kind}.safetensors" for kind in ("fp32", "fp16")}
        save_file({"w": change}, dense["fp32"])
        save_file({"w": change.half()}, dense["fp16"])
        Compressed({"w": entry}).write(small)

        def load(path: Path) -> None:
            parameter.copy_(load_file(path)["w"])

        def load_small() -> None:
            parameter.copy_(restored(read_compressed(small).entries["w"], lambda name: torch.empty(0)))

        times = interleaved({**{kind: lambda path=path: load(path) for kind, path in dense.items()},
                             "small": load_small}, rounds)  # fmt: skip
        print("\nfrom a file that the system has cached into a model's parameter in fp32:")
        for kind, path in dense.items():
            ratio = np.median(np.array(times["small"]) / np.array(times[kind]))
            sizes = path.stat().st_size / small.stat().st_size
            print(f"  {ratio:.1f} times as long as from {kind} safetensors, from a file {sizes:.1f} times smaller")


def interleaved(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time by side, one each in every round, after a round that warms up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            started = time.process_time()
            run()
            if number:
                times[name].append(time.process_time() - started)
    return times


if __name__ == "__main__":
    main()
