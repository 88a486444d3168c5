"""What an orthonormal matrix costs a training step: ours, a thin QR, beside torch's own parametrisation.

    python benchmarks/orthonormal.py                       # d = 4096, r = 8, as LoReFT has it on a model of 7 B
    python benchmarks/orthonormal.py --width 768 --rank 1

A step makes the matrix from its free parameter, and its gradient. Torch's is `parametrizations.orthogonal` with its
default map for a tall matrix (Householder, trivialised), on which the authors' code for LoReFT rests. The two are timed
in turns; printed are medians with quartiles, and those of the paired ratios.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from deltaproof.methods.orthonormal import orthonormal


def ours(width: int, rank: int) -> Callable[[], Tensor]:
    a = nn.Parameter(nn.init.orthogonal_(torch.empty(width, rank)))
    return lambda: orthonormal(a)


class Tall(nn.Module):
    """Holds a tall matrix, as the authors' code for LoReFT does."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(width, rank)))


def torchs(width: int, rank: int) -> Callable[[], Tensor]:
    module = nn.utils.parametrizations.orthogonal(Tall(width, rank))
    return lambda: module.weight


def seconds(make: Callable[[], Tensor], gradient: Tensor) -> float:
    start = time.perf_counter()
    (make() * gradient).sum().backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - start


def spread(values: list[float], unit: float = 1.0) -> dict[str, float]:
    low, middle, high = (value * unit for value in quantiles(values, n=4))
    return {"quartile_1": low, "median": middle, "quartile_3": high}


def measure(width: int, rank: int, n_rounds: int) -> dict[str, object]:
    """Times in ms and the ratio theirs / ours, each with quartiles."""
    torch.manual_seed(0)
    mine, theirs, gradient = ours(width, rank), torchs(width, rank), torch.randn(width, rank)
    for make in (mine, theirs):
        q = make().detach()
        assert (q.mT @ q - torch.eye(rank)).abs().max() < 1e-5, "both must be orthonormal"
        seconds(make, gradient)  # the first is slower
    pairs = [(median(seconds(mine, gradient) for _ in range(5)), seconds(theirs, gradient)) for _ in range(n_rounds)]
    return {
        "width": width, "rank": rank, "rounds": n_rounds,
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "ours_ms": spread([a for a, _ in pairs], 1e3), "torch_ms": spread([b for _, b in pairs], 1e3),
        "ratio": spread([b / a for a, b in pairs]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    result = measure(options.width, options.rank, options.rounds)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{result['width']} x {result['rank']}, {result['rounds']} rounds, {result['threads']} threads")
    for name, unit in (("ours_ms", "ms"), ("torch_ms", "ms"), ("ratio", "")):
        values = result[name]
        assert isinstance(values, dict)
        print(f"{name.removesuffix('_ms'):6} {values['median']:9.2f} {unit:2} "
              f"[{values['quartile_1']:.2f}, {values['quartile_3']:.2f}]")  # fmt: skip


if __name__ == "__main__":
    main()
