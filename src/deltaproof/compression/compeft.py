"""ComPEFT: of each update only the signs of its largest entries, and a few scales.

tau = tuned - start; gamma = sign(tau) at the round(density * d) largest |tau|, 0 elsewhere; tau' = alpha * sigma *
gamma with sigma the unbiased standard deviation of the whole tau. Yadav et al., 2023, arXiv:2311.13171, sec. 2.

Two choices go wrong with LoRA as the authors' code makes them, and are settings here:

- `scope`, what one threshold and one scale are for. The code takes all tensors as one vector (`global`). LoRA's A
  starts large and B at zero, so that with small B the largest entries are all in A and nothing of B is left: the update
  is gone. `per_factor` takes all A together and all B together, `per_tensor` each tensor alone.
- what tau is counted from. The code takes the raw A, as if it had started at zero (`start = "zero"`), and keeps the
  signs of A's random start. `start = "init"` counts from the true start values, which come again from the seed.

The scale. |tau - s gamma|^2 = |tau|^2 - 2 s sum_kept |tau| + s^2 n is least at s = the mean of |tau| over the kept:
that is `alpha = "auto"`, alpha = s / sigma. (With scope `global` it is the scale of STC, Sattler et al., 2019,
arXiv:1903.02891, with the mean of the magnitudes, as it is meant, and not of the signed values, which cancel.)
"""

import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch

from deltaproof.compression.codec import encode
from deltaproof.compression.container import Compressed
from deltaproof.compression.entries import Entry, Rows, Ternary, Whole
from deltaproof.compression.guard import check_survival
from deltaproof.compression.source import NAMES, Part, Source, tensor_bytes
from deltaproof.compression.topk import Moments, find_cut
from deltaproof.errors import ConfigError

Scope = Literal["per_tensor", "per_factor", "global"]
SCOPES: tuple[Scope, ...] = ("per_tensor", "per_factor", "global")
LEAST_DENSITY = 1e-4
"""Below this a file would be so much smaller than what it becomes that readers take it for an attack."""


@dataclass(frozen=True)
class Group:
    """Tensors that share a threshold and a scale."""

    name: str
    n_values: int
    n_kept: int
    sigma: float
    """Unbiased standard deviation of tau before anything is dropped."""
    mean_kept: float
    """Mean of |tau| over the kept entries."""
    energy: float
    """Sum of tau^2."""

    def scale(self, alpha: float | Literal["auto"]) -> float:
        return self.mean_kept if alpha == "auto" else alpha * self.sigma

    @property
    def best_alpha(self) -> float | None:
        """The alpha that leaves the smallest error; None of an update that is constant."""
        return self.mean_kept / self.sigma if self.sigma > 0 else None

    def relative_error(self, scale: float) -> float:
        """|tau - tau'| / |tau|, in 0..1 at the best scale; 0 where nothing had changed."""
        left = self.energy - 2 * scale * self.mean_kept * self.n_kept + scale**2 * self.n_kept
        return (max(left, 0.0) / self.energy) ** 0.5 if self.energy > 0 else 0.0


@dataclass(frozen=True)
class Compression:
    """A compressed update with the numbers of its groups, from which every other alpha follows at once."""

    compressed: Compressed
    groups: dict[str, Group]
    group_of: dict[str, str]
    """The group of each ternary tensor."""
    notes: tuple[str, ...] = ()

    def with_alpha(self, alpha: float | Literal["auto"]) -> "Compression":
        """The same signs with other scales."""
        entries: dict[str, Entry] = dict(self.compressed.entries)
        for name, entry in self.compressed.ternary.items():
            entries[name] = entry.scaled(self.groups[self.group_of[name]].scale(alpha))
        settings = {**self.compressed.facts["settings"], "alpha": alpha}
        facts = {**self.compressed.facts, "settings": settings}
        return replace(self, compressed=Compressed(entries, facts))

    def silent(self) -> "Compression":
        """The same with every scale at zero: what is kept whole, and nothing else of the update."""
        entries = {name: entry.scaled(0.0) for name, entry in self.compressed.ternary.items()}
        return replace(self, compressed=Compressed({**self.compressed.entries, **entries}, self.compressed.facts))

    @property
    def relative_error(self) -> float:
        """|tau - tau'| / |tau| over all ternary tensors."""
        scales = {self.group_of[name]: entry.scale for name, entry in self.compressed.ternary.items()}
        energy = sum(group.energy for group in self.groups.values())
        left = sum(
            group.relative_error(scales[name]) ** 2 * group.energy
            for name, group in self.groups.items() if name in scales
        )  # fmt: skip
        return float((left / energy) ** 0.5) if energy > 0 else 0.0


def compress(
    source: Source, density: float = 0.2, alpha: float | Literal["auto"] = "auto", scope: Scope = "per_tensor",
    allow_erased: bool = False, progress: Callable[[int, int, str], None] = lambda done, n, name: None,
) -> Compression:  # fmt: skip
    """Make an update small; tensors are read one at a time.

    Args:
        density: share of entries that are kept, of each group.
        alpha: the scale in units of sigma, or `auto`, which leaves the smallest error.
        allow_erased: go on where the update of a module would be lost, to see what the plain algorithm does.
    Raises:
        ConfigError: a setting is out of its range.
        CompressionError: the update is not finite, or would not survive.
    """
    check_settings(density, alpha, scope)
    members = _members(source, scope)
    entries: dict[str, Entry] = {}
    groups: dict[str, Group] = {}
    changed: dict[str, bool] = {}
    done = 0
    for name, parts in members.items():
        groups[name], made, moved = _compress_group(source, name, parts, density)
        entries |= made
        changed |= moved
        done += len(parts)
        progress(done, len(source.parts), name)
    ternary = [part for part in source.parts if part.start is not None]
    notes = check_survival(ternary, changed, entries, allow_erased)
    for part in source.parts:
        if part.start is None:
            entries[part.name] = _kept(source, part)
    settings = {"density": density, "alpha": alpha, "scope": scope}
    facts = {**source.facts, "settings": settings, "groups": _described(groups, scope)}
    in_order = {part.name: entries[part.name] for part in source.parts}
    group_of = {part.name: name for name, parts in members.items() for part in parts}
    return Compression(Compressed(in_order, facts), groups, group_of, tuple(notes)).with_alpha(alpha)


def check_settings(density: float, alpha: float | str, scope: str) -> None:
    """Whether these settings are in their ranges.

    Raises:
        ConfigError: one is not.
    """
    if not LEAST_DENSITY <= density <= 1:
        raise ConfigError(
            f"`{LEAST_DENSITY} <= density <= 1` must hold, got {density}; 0.2 keeps every fifth entry, 0.05 every "
            f"twentieth"
        )
    if isinstance(alpha, str) and alpha != "auto":
        raise ConfigError(f"`alpha` must be a number or `auto`, got `{alpha}`; write for example `--alpha 1`")
    if not isinstance(alpha, str) and not 0 < alpha < float("inf"):
        raise ConfigError(f"`alpha > 0` must hold, got {alpha}; 1 is one standard deviation of the update")
    if scope not in SCOPES:
        raise ConfigError(
            f"`scope` must be one of {', '.join(SCOPES)}, got `{scope}`; see `deltaproof compress --help`"
        )


def _members(source: Source, scope: Scope) -> dict[str, list[Part]]:
    """The tensors that share a threshold and a scale, by group."""
    members: dict[str, list[Part]] = defaultdict(list)
    for part in source.parts:
        if part.start is not None:
            members[{"per_tensor": part.name, "per_factor": part.factor, "global": "all"}[scope]].append(part)
    return members


def _compress_group(
    source: Source, name: str, parts: list[Part], density: float
) -> tuple[Group, dict[str, Entry], dict[str, bool]]:
    """One threshold for all parts; a single part is read once, several are read anew in each pass."""
    alone = source.change(parts[0]) if len(parts) == 1 else None

    def vectors() -> list[np.ndarray] | map:  # type: ignore[type-arg]
        return [alone] if alone is not None else map(source.change, parts)

    moments = Moments()
    for vector in vectors():
        moments.add(vector)
    cut = find_cut(vectors, round(density * moments.n))
    entries: dict[str, Entry] = {}
    changed: dict[str, bool] = {}
    total, n_kept = 0.0, 0
    for part, vector in zip(parts, vectors(), strict=True):
        signs = cut.signs(vector)
        code = encode(signs)
        start = source.start(part)
        crc = zlib.crc32(tensor_bytes(start)) if start is not None and part.start == "init" else None
        assert part.start is not None
        entries[part.name] = Ternary.of(part.name, part.shape, NAMES[part.dtype], code, part.start, crc)
        changed[part.name] = bool(vector.any())
        total += float(np.abs(vector[signs != 0]).sum(dtype=np.float64))
        n_kept += code.n_kept
    mean = total / n_kept if n_kept else 0.0
    return Group(name, moments.n, n_kept, moments.deviation, mean, moments.energy), entries, changed


def _kept(source: Source, part: Part) -> Entry:
    """The tensor itself, or the rows that differ from the base's where that is less."""
    tensor, dtype = source.tensor(part), NAMES[part.dtype]
    whole = tensor_bytes(tensor)
    base = source.base(part)
    if base is None or not part.shape or base.shape != tensor.shape or base.dtype != tensor.dtype or not whole:
        return Whole(part.name, part.shape, dtype, whole)
    n_rows = part.shape[0]
    after = np.frombuffer(whole, np.uint8).reshape(n_rows, -1)
    before = np.frombuffer(tensor_bytes(base), np.uint8).reshape(n_rows, -1)
    where = np.flatnonzero((after != before).any(axis=1)).astype("<u4")
    if len(where) * (4 + after.shape[1]) >= len(whole):
        return Whole(part.name, part.shape, dtype, whole)
    return Rows(part.name, part.shape, dtype, where.tobytes() + after[where].tobytes(), len(where))


def _described(groups: dict[str, Group], scope: str) -> list[dict[str, object]]:
    """The groups' numbers for the file where they are few; one for each tensor would cost more than they tell."""
    return [] if scope == "per_tensor" else [asdict(group) for group in groups.values()]


def pruned(source: Source, density: float, scope: Scope) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of an update with its small entries dropped and the others as they were, nothing made ternary.

    For comparison: it tells apart what dropping costs and what equal magnitudes cost.
    """
    members = _members(source, scope)
    for parts in members.values():
        n_values = sum(math.prod(part.shape) for part in parts)
        cut = find_cut(lambda parts=parts: map(source.change, parts), round(density * n_values))  # type: ignore[misc]
        for part in parts:
            vector = source.change(part)
            change = torch.from_numpy(np.where(cut.signs(vector) != 0, vector, np.float32(0))).reshape(part.shape)
            start = source.start(part)
            base = torch.full(part.shape, float(part.start == "one")) if start is None else start.detach().cpu().float()
            yield part.name, (base + change).to(part.dtype)
    for part in source.parts:
        if part.start is None:
            yield part.name, source.tensor(part)


def ternarised(vector: np.ndarray, density: float, alpha: float | Literal["auto"] = "auto") -> np.ndarray:
    """ComPEFT of one vector in memory, decoded again: alpha sigma gamma, (d,) fp32."""
    check_settings(density, alpha, "global")
    vector = np.ascontiguousarray(vector, np.float32)
    moments = Moments()
    moments.add(vector)
    signs = find_cut(lambda: [vector], round(density * len(vector))).signs(vector)
    kept = np.abs(vector[signs != 0])
    mean = float(kept.mean(dtype=np.float64)) if len(kept) else 0.0
    scale = mean if alpha == "auto" else alpha * moments.deviation
    return signs * np.float32(scale)
