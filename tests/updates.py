"""Updates to compress that are made in a test."""

import torch
from torch import Tensor

from deltaproof.compression.source import Part, Source


class InMemory(Source):
    """Tensors by name, each with the part it plays; start values where they are neither zeros nor ones."""

    def __init__(self, tensors: dict[str, Tensor], starts: dict[str, Tensor] | None = None, **parts) -> None:
        self.tensors, self.starts = tensors, starts or {}
        self.parts = [parts.get(name) or self._guess(name) for name in sorted(tensors)]
        self.facts = {"holds": "peft", "start": "zero", "config": {}, "base": {"name": "none", "fingerprint": None}}

    def tensor(self, part):
        return self.tensors[part.name]

    def start(self, part):
        return self.starts.get(part.name)

    def _guess(self, name):
        """A and B by the last part of their names; anything else is a weight."""
        module, _, last = name.rpartition(".")
        tensor = self.tensors[name]
        start = "init" if name in self.starts else "zero"
        factor = last if last in ("A", "B") else "weight"
        return Part(name, tuple(tensor.shape), tensor.dtype, start, factor, module or name)


def adapters(n_modules: int, size: int, rank: int, b_deviation: float, seed: int = 0):
    """Synthetic LoRA factors: A near a uniform start with a drift of 0.002, B normal; and A's start values."""
    draw = torch.Generator().manual_seed(seed)
    tensors, starts = {}, {}
    for at in range(n_modules):
        first = (2 * torch.rand(rank, size, generator=draw) - 1) / size**0.5
        starts[f"{at:02}.A"] = first
        tensors[f"{at:02}.A"] = first + 0.002 * torch.randn(rank, size, generator=draw)
        tensors[f"{at:02}.B"] = b_deviation * torch.randn(size, rank, generator=draw)
    return tensors, starts
