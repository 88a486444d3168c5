"""One change of each weight from those of all experts, weight by weight."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltaproof.compression.topk import Cut
from deltaproof.errors import ConfigError, nearest
from deltaproof.merging.experts import Expert
from deltaproof.merging.rules import RULES, keep_largest, largest, merged
from deltaproof.merging.ternary import MOST_EXPERTS, looked_up, products
from deltaproof.seeding import generator
from deltaproof.theory.deltas import natural_order
from deltaproof.theory.subspaces import leading_directions

HOWS = (*RULES, "svd")
"""`svd` is task arithmetic cut to a rank, as peft's `svd`."""
SPARSE = ("ties", "dare", "dare_ties")
"""Rules that keep a share of the entries."""


@dataclass(frozen=True)
class Recipe:
    """How experts are merged."""

    how: str = "task_arithmetic"
    weights: tuple[float, ...] = ()
    """One per expert."""
    density: float = 1.0
    """Share of entries kept by TIES (the largest) and DARE (at random)."""
    rank: int | None = None
    """Every merged matrix is cut to this rank; None: as it is."""
    seed: int = 0
    """Of DARE's draws."""

    def check(self, n_experts: int) -> None:
        """Whether this can be done.

        Raises:
            ConfigError: it cannot.
        """
        if self.how not in HOWS:
            raise ConfigError(f"`how` must be one of {', '.join(HOWS)}, got `{self.how}`; {nearest(self.how, HOWS)}")
        if len(self.weights) != n_experts:
            raise ConfigError(
                f"there must be one weight for each of {n_experts} experts, got {len(self.weights)}; separate them by "
                f"commas, or write `equal` or `auto`"
            )
        if not all(np.isfinite(self.weights)):
            raise ConfigError(f"weights must be finite, got {self.weights}; numbers about 0 to 1 are usual")
        if not 0 < self.density <= 1:
            raise ConfigError(f"`0 < density <= 1` must hold, got {self.density}; it is the share of entries kept")
        if self.density < 1 and self.how not in SPARSE:
            raise ConfigError(
                f"a density is for {', '.join(SPARSE)}, which drop entries, got {self.density} with `{self.how}`; "
                f"leave it out"
            )
        if self.rank is not None and self.rank < 1:
            raise ConfigError(f"`rank >= 1` must hold, got {self.rank}; give the rank that the adapter is to have")
        if self.how == "svd" and self.rank is None:
            raise ConfigError("`svd` cuts every matrix to a rank, got none; give one with `--rank`")
        if self.how == "linear" and abs(sum(self.weights)) < 1e-9:
            raise ConfigError(
                f"`linear` divides by the sum of the weights, which must not be 0, got {self.weights}; take "
                f"`task_arithmetic`"
            )

    def at(self, weights: Sequence[float]) -> "Recipe":
        """The same with other weights."""
        return replace(self, weights=tuple(float(weight) for weight in weights))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "weights": list(self.weights)}

    def of_those(self, experts: Sequence[int]) -> tuple[str, Tensor]:
        """Rule and weights for a tensor that only some experts change: the others count as unchanged."""
        weights = torch.tensor(self.weights, dtype=torch.float32)
        if self.how == "linear":  # divided by the sum over all, those that leave the tensor as it is among them
            weights = weights / weights.sum()
        how = {"linear": "task_arithmetic", "svd": "task_arithmetic"}.get(self.how, self.how)
        return how, weights[list(experts)]


@dataclass(frozen=True)
class Merged:
    """The merged change of one weight."""

    name: str
    """As `theory.deltas` names it."""
    base: Tensor
    """W0."""
    change: Tensor


def names_of(experts: Sequence[Expert]) -> list[str]:
    """Every weight that some expert changes, in the model's order."""
    return sorted({name for expert in experts for name in expert.deltas.loaders}, key=natural_order)


_ENTRIES = 1 << 20
"""Of a weight that a rule is asked for at a time."""
Cuts = dict[tuple[int, str, float], Cut]
"""Where TIES cuts each expert's change of each weight: weights do not move it, so that a search finds it once."""


@torch.no_grad()
def combined(
    experts: Sequence[Expert], recipe: Recipe, names: Sequence[str], cuts: Cuts | None = None
) -> Iterator[Merged]:
    """The merged changes, one weight at a time: dense changes of all experts exist for that one only.

    Where all are ternary and the rule acts on each entry alone, not even for that one.

    Args:
        cuts: what an earlier call found, and where this one leaves it.
    """
    cuts = {} if cuts is None else cuts
    for name in names:
        present = [at for at, expert in enumerate(experts) if name in expert.deltas.loaders]
        how, weights = recipe.of_those(present)
        chosen = [experts[at] for at in present]
        found = _ternary(chosen, name, how, weights, recipe)
        if found is None:
            found = _dense(chosen, present, name, how, weights, recipe, cuts)
        yield found if recipe.rank is None else Merged(name, found.base, cut(found.change, recipe.rank))


def _dense(
    experts: Sequence[Expert], places: Sequence[int], name: str, how: str, weights: Tensor, recipe: Recipe, cuts: Cuts
) -> Merged:
    """By the rule itself, some entries at a time: what it writes on the way is never as large as the weights."""
    base: Tensor | None = None
    changes = []
    for at, expert in zip(places, experts, strict=True):
        delta = expert.deltas[name]
        base = delta.base if base is None else base
        change = delta.change.float()
        is_trimmed = how == "ties" and recipe.density < 1
        changes.append(_trimmed(change, (at, name, recipe.density), cuts) if is_trimmed else change)
    assert base is not None
    density = recipe.density if how in ("dare", "dare_ties") else 1.0
    drawn = generator(recipe.seed, "merge", name)
    flat = [change.flatten() for change in changes]
    found = torch.empty_like(flat[0])
    for start in range(0, len(found), _ENTRIES):
        part = slice(start, start + _ENTRIES)
        found[part] = merged(how, torch.stack([one[part] for one in flat]), weights, density, drawn)
    return Merged(name, base, found.view(changes[0].shape))


def _trimmed(change: Tensor, which: tuple[int, str, float], cuts: Cuts) -> Tensor:
    if which not in cuts:
        cuts[which] = largest(change, which[2])
    return keep_largest(change, cuts[which])


def cut(change: Tensor, rank: int) -> Tensor:
    """The nearest matrix of that rank (its first singular vectors); what is no matrix stays."""
    if change.ndim != 2 or not bool(change.any()):
        return change
    u, s, v = leading_directions(change, rank)
    return ((u * s) @ v.mT).to(change.dtype)


def cosines(experts: Sequence[Expert], names: Sequence[str]) -> list[list[float | None]]:
    """The cosine of every two experts' changes over these weights, (k, k); None where one of them changes nothing.

    Two experts whose updates point the same way can be added; updates that cancel cannot.
    """
    total = np.zeros((len(experts), len(experts)))
    for name in names:
        present = [at for at, expert in enumerate(experts) if name in expert.deltas.loaders]
        if all(name in experts[at].signs for at in present):
            read = [experts[at].signs[name]() for at in present]
            own = products([one.signs for one in read], [one.scale for one in read])
        else:
            flat = torch.stack([experts[at].deltas[name].change.float().flatten() for at in present])
            own = (flat @ flat.mT).double().numpy()
        total[np.ix_(present, present)] += own
    lengths = np.sqrt(np.diag(total))
    return [
        [float(np.clip(total[i, j] / (lengths[i] * lengths[j]), -1, 1)) if lengths[i] * lengths[j] > 0 else None
         for j in range(len(experts))]
        for i in range(len(experts))
    ]  # fmt: skip


def _ternary(
    experts: Sequence[Expert], name: str, how: str, weights: Tensor, recipe: Recipe
) -> Merged | None:  # fmt: skip
    """By looking up; None where a change is dense, or the rule needs more than an entry's own signs."""
    if len(experts) > MOST_EXPERTS or how not in ("task_arithmetic", "ties"):
        return None
    if not all(name in expert.signs for expert in experts):
        return None
    read = [expert.signs[name]() for expert in experts]
    if how == "ties" and any(_would_be_trimmed(one.signs, recipe.density) for one in read):
        return None
    unused = torch.Generator()

    def rule(changes: Tensor) -> Tensor:
        return merged(how, changes, weights, 1.0, unused)

    change = looked_up([lambda one=one: one.signs for one in read], [one.scale for one in read], rule)  # type: ignore[misc]
    return Merged(name, read[0].base, change)


def _would_be_trimmed(signs: Tensor, density: float) -> bool:
    """Whether more entries stand than TIES keeps; one more, by rounding, is let stand."""
    return int(torch.count_nonzero(signs)) > int(density * signs.numel()) + 1
