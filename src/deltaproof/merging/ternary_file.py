"""A whole update in a `.dpz` file, read stream by stream: changes as signs and a scale, never as a dense model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deltaproof.backbones.sites import Site
from deltaproof.compression.container import Compressed, read_compressed
from deltaproof.compression.entries import Entry, Ternary
from deltaproof.compression.restore import restored
from deltaproof.theory.checkpoints import Checkpoint, as_float
from deltaproof.theory.deltas import Delta, Deltas, common_prefix, part, parts_of
from deltaproof.theory.skeleton import Skeleton


@dataclass(frozen=True)
class Signs:
    """scale * signs: one change of a weight."""

    signs: Tensor
    """int8 in {-1, 0, 1}, of the shape of the change."""
    scale: float
    base: Tensor
    """W0, of the same shape."""


class TernaryFile:
    """A compressed whole model over its base."""

    def __init__(self, path: Path, base: Checkpoint, skeleton: Skeleton | None) -> None:
        self.path, self._base = path, base
        self._compressed: Compressed = read_compressed(path)
        self._skeleton = skeleton or Skeleton(common_prefix(base, self._compressed.entries))
        self._before = {self._skeleton.short(name): name for name in base if base.is_float(name)}

    def value(self, name: str) -> Tensor | None:
        """A tensor of the tuned model by its name there."""
        entry = self._compressed.entries.get(name)
        return None if entry is None else restored(entry, self._start)

    def deltas(self) -> Deltas:
        """Every change of a tensor that the base has."""
        return Deltas({own: self._loader(entry, own, site) for own, entry, site in self._shared()})

    def signs(self) -> dict[str, Callable[[], Signs]]:
        """The ternary ones of them, as signs."""
        return {
            own: self._signs_of(entry, site)
            for own, entry, site in self._shared()
            if isinstance(entry, Ternary) and entry.start == "base"
        }

    def _shared(self) -> list[tuple[str, Entry, Site | None]]:
        found = []
        for name, entry in self._compressed.entries.items():
            short = self._skeleton.short(name)
            if short in self._before and self._base.shape(self._before[short]) == entry.shape:
                found += [(own, entry, site) for own, site in parts_of(short, self._skeleton)]
        return found

    def _start(self, name: str) -> Tensor:
        return self._base[self._before[self._skeleton.short(name)]]

    def _loader(self, entry: Entry, own: str, site: Site | None) -> Callable[[], Delta]:
        def load() -> Delta:
            first = part(as_float(self._start(entry.name)), site)
            if isinstance(entry, Ternary):
                change = part(torch.from_numpy(entry.signs() * np.float32(entry.scale)).reshape(entry.shape), site)
            else:
                change = part(as_float(restored(entry, self._start)), site) - first
            return Delta(own, site.role if site else None, site.layer if site else None, first, change)

        return load

    def _signs_of(self, entry: Ternary, site: Site | None) -> Callable[[], Signs]:
        def load() -> Signs:
            signs = part(torch.from_numpy(entry.signs()).reshape(entry.shape), site)
            return Signs(signs, entry.scale, part(as_float(self._start(entry.name)), site))

        return load
