"""Where zeros among feed-forward activations pay on a CPU: the second matrix's product without the zero columns.

    python benchmarks/density.py
    python benchmarks/density.py --threads 4 --json density.json

For a block of tokens, columns of the activations that are zero at every one of its tokens are left out, by gathering
the others, and the rows of the (transposed) second matrix that go with them, into a smaller dense product. Finding the
columns is part of the time. Zeros fall in two ways: `alike`, the same units at all tokens of the block, the best case;
and `apart`, at each token for itself, where a unit rests in the whole block with probability (1 - density)^tokens.

The two products are timed in turns, so that what else the machine does strikes both; printed is the median of the
paired ratios, time without zeros over dense time: below 1 it pays. With one thread it is the processor's time that is
taken, which a busy machine stretches less than the clock's.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

WIDTHS, TOKENS, DENSITIES = (384, 768), (1, 8, 64, 512), (1.0, 0.5, 0.25, 0.1, 0.03)


def dense(h: Tensor, weight: Tensor) -> Tensor:
    """h W^T, (tokens, d_model). h: (tokens, d_ff); weight: (d_ff, d_model), as it is gathered best."""
    return h @ weight


def without_zeros(h: Tensor, weight: Tensor) -> Tensor:
    """The same from the units alone that are active at one token at least."""
    active = h.ne(0).any(dim=0).nonzero().squeeze(1)
    return h.index_select(1, active) @ weight.index_select(0, active)


def activations(n_tokens: int, d_ff: int, density: float, zeros: str, generator: torch.Generator) -> Tensor:
    h = torch.rand(n_tokens, d_ff, generator=generator) + 0.1
    n_rows = 1 if zeros == "alike" else n_tokens
    order = torch.rand(n_rows, d_ff, generator=generator).argsort(dim=1).argsort(dim=1)
    return h * (order < round(density * d_ff))


def case(d_model: int, n_tokens: int, density: float, zeros: str, rounds: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    d_ff = 4 * d_model
    h = activations(n_tokens, d_ff, density, zeros, draw)
    weight = torch.randn(d_ff, d_model, generator=draw) / d_ff**0.5
    torch.testing.assert_close(without_zeros(h, weight), dense(h, weight), rtol=1e-4, atol=1e-4)
    n_calls = max(1, round(5e-3 / seconds(dense, h, weight, 3)))  # some milliseconds, above the clock's grain
    pairs = [(seconds(dense, h, weight, n_calls), seconds(without_zeros, h, weight, n_calls)) for _ in range(rounds)]
    ratios = [ours / plain for plain, ours in pairs]
    low, _, high = quantiles(ratios, n=4)
    return {
        "d_model": d_model, "d_ff": d_ff, "tokens": n_tokens, "zeros": zeros, "density": density,
        "active_columns_fraction": float(h.ne(0).any(0).float().mean()),
        "dense_seconds": median(plain for plain, _ in pairs), "ratio": median(ratios), "low": low, "high": high,
    }  # fmt: skip


def seconds(product: Callable[[Tensor, Tensor], Tensor], h: Tensor, weight: Tensor, n_calls: int) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    for _ in range(n_calls):
        product(h, weight)
    return (clock() - started) / n_calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = []
    print("d_model tokens zeros  density  columns left  dense     ratio (quartiles)")
    for d_model in WIDTHS:
        for zeros in ("alike", "apart"):
            for n_tokens in TOKENS:
                for density in DENSITIES:
                    if n_tokens == 1 and zeros == "apart":
                        continue  # of one token they are the same
                    found = case(d_model, n_tokens, density, zeros, options.rounds)
                    cases.append(found)
                    print(
                        f"{d_model:7} {n_tokens:6} {zeros:6} {density:7.0%} {found['active_columns_fraction']:12.0%} "
                        f"{1e6 * found['dense_seconds']:8.0f} µs  {found['ratio']:.2f} "
                        f"({found['low']:.2f} to {found['high']:.2f})  {verdict(found)}"
                    )
    if options.json:
        surroundings = {"torch": torch.__version__, "machine": platform.machine(), "threads": options.threads}
        options.json.write_text(json.dumps({**surroundings, "cases": cases}, indent=1))


def verdict(found: dict[str, Any]) -> str:
    """Told by the quartiles, so that a tie is called one."""
    return "pays" if found["high"] < 1 else "costs" if found["low"] > 1 else "no difference"


if __name__ == "__main__":
    main()
