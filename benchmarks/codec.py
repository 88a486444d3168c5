"""How fast and how small is the code of ternary vectors, beside numpy's packed bits, zstd and the entropy?

    python benchmarks/codec.py
    python benchmarks/codec.py --values 2000000 --densities 0.2

Every round takes each side once, in turn, so that what else the machine does falls on all alike. Speeds are by
processor time of this process on one thread, the median of the rounds; ratios are to `np.packbits` of both masks of the
same data (`np.unpackbits` for reading) in the same rounds. The last part writes a tensor of that size dense (fp32,
safetensors) and compressed, and compares the times to have it in memory as fp32.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from deltaproof.compression.codec import Code, decode, encode
from deltaproof.compression.container import Compressed, read_compressed
from deltaproof.compression.entries import Ternary
from deltaproof.compression.restore import restored
from deltaproof.compression.sizes import entropy_bits
from deltaproof.compression.ternary import Masks

try:
    import zstandard
except ImportError:
    zstandard = None


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
    if zstandard is not None:
        packed = len(zstandard.compress(np.packbits(signs != 0).tobytes(), 9)) + (code.n_kept + 7) // 8
        said.append(f"zstd-9 of one mask, and signs {8 * packed / bound:.3f}")
    print(
        f"\ndensity {density:g}: {bound / len(signs):.4f} bits a value by entropy; sizes over that: {', '.join(said)}"
    )


def print_speeds(signs: np.ndarray, code: Code, rounds: int) -> None:
    masks = Masks.of(signs)
    times = interleaved(
        {
            "encode": lambda: encode(signs), "pack": lambda: Masks.of(signs),
            "decode": lambda: decode(code), "unpack": masks.signs,
        },
        rounds,
    )  # fmt: skip
    for ours, theirs in (("encode", "pack"), ("decode", "unpack")):
        rate = len(signs) / statistics.median(times[ours]) / 1e6
        ratio = statistics.median(one / other for one, other in zip(times[ours], times[theirs], strict=True))
        print(
            f"  {ours}: {rate:6.0f} million values a second, {ratio:5.1f} times as long as to {theirs} bits", flush=True
        )


def print_loading(signs: np.ndarray, code: Code, rounds: int) -> None:
    entry = Ternary.of("w", (len(signs),), "F32", code, "zero", None).scaled(0.01)
    with tempfile.TemporaryDirectory() as folder:
        dense, small = Path(folder) / "dense.safetensors", Path(folder) / "small.dpz"
        save_file({"w": restored(entry, lambda name: torch.empty(0))}, dense)
        Compressed({"w": entry}).write(small)

        def from_dense() -> torch.Tensor:
            return load_file(dense)["w"].clone()  # the file is mapped: only a copy has read it

        def from_small() -> torch.Tensor:
            return restored(read_compressed(small).entries["w"], lambda name: torch.empty(0))

        times = interleaved({"dense": from_dense, "small": from_small}, rounds)
        ratio = statistics.median(one / other for one, other in zip(times["small"], times["dense"], strict=True))
        sizes = dense.stat().st_size / small.stat().st_size
        print(
            f"\nfrom a file to fp32 in memory: {ratio:.1f} times as long as from dense safetensors that the system has "
            f"cached, from a file {sizes:.1f} times smaller"
        )


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
