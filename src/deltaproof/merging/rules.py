"""Merging rules: changes of one weight by several experts, (experts, …), to one change.

Weights are per expert, density is the share of entries that is kept, 0 < density <= 1.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from deltaproof.compression.topk import Cut, find_cut
from deltaproof.errors import ConfigError, nearest

Rule = Callable[[Tensor, Tensor, float, torch.Generator], Tensor]


def weighted(changes: Tensor, weights: Tensor) -> Tensor:
    """sum_i w_i D_i."""
    return torch.einsum("e,e...->...", weights.to(changes), changes)


def trimmed(changes: Tensor, density: float) -> Tensor:
    """Each expert's largest entries; the others are 0. Of n entries floor(density n) are kept."""
    return torch.stack([keep_largest(one, largest(one, density)) for one in changes])


def largest(change: Tensor, density: float) -> Cut:
    """Where one change is cut so that floor(density n) of its n entries are kept."""
    flat = change.detach().cpu().float().flatten().numpy()
    return find_cut(lambda: [flat], int(density * flat.size))


def keep_largest(change: Tensor, cut: Cut) -> Tensor:
    """A change with 0 in place of what lies below the cut; of equal entries those that come first are kept."""
    flat = change.detach().cpu().float().contiguous().flatten()
    kept = torch.from_numpy(replace(cut).signs(flat.numpy())).ne(0)
    return (flat * kept).view(change.shape).to(change)


def dropped(changes: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Each entry kept with probability `density` and divided by it, so that the expectation stays.

    Source: Yu et al., 2023, arXiv:2311.03099 (DARE), eq. 1 to 3.
    """
    if density >= 1:
        return changes
    kept = [torch.bernoulli(torch.full_like(one, density), generator=generator) for one in changes]
    return changes * torch.stack(kept) / density


def elected(changes: Tensor, weights: Tensor) -> Tensor:
    """The mean over those experts that agree with the elected sign, the sign of the sum; 0 counts for neither side.

    The sum is that of the changes without their weights, as peft has it; the mean divides by the number that agree.

    Source: Yadav et al., 2023, arXiv:2306.01708 (TIES), sec. 3.
    """
    sign = torch.where(changes.sum(0) >= 0, 1.0, -1.0)
    agrees = changes.sign() == sign
    return weighted(changes * agrees, weights) / agrees.sum(0).clamp(min=1)


def _task_arithmetic(changes: Tensor, weights: Tensor, density: float, generator: torch.Generator) -> Tensor:
    return weighted(changes, weights)


def _linear(changes: Tensor, weights: Tensor, density: float, generator: torch.Generator) -> Tensor:
    return weighted(changes, weights / weights.sum())


def _ties(changes: Tensor, weights: Tensor, density: float, generator: torch.Generator) -> Tensor:
    return elected(trimmed(changes, density) if density < 1 else changes, weights)


def _dare(changes: Tensor, weights: Tensor, density: float, generator: torch.Generator) -> Tensor:
    return weighted(dropped(changes, density, generator), weights)


def _dare_ties(changes: Tensor, weights: Tensor, density: float, generator: torch.Generator) -> Tensor:
    return elected(dropped(changes, density, generator), weights)


RULES: dict[str, Rule] = {
    "linear": _linear,
    "task_arithmetic": _task_arithmetic,
    "ties": _ties,
    "dare": _dare,
    "dare_ties": _dare_ties,
}
"""`linear` divides the weights by their sum, so that experts are averaged; `task_arithmetic` (Ilharco et al., 2022,
arXiv:2212.04089) adds them up."""


def merged(how: str, changes: Tensor, weights: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """One change of several.

    Args:
        changes: (experts, …).
        weights: (experts,).
    Raises:
        ConfigError: there is no such rule, or the density is no share.
    """
    if how not in RULES:
        raise ConfigError(f"`how` must be one of {', '.join(RULES)}, got `{how}`; {nearest(how, RULES)}")
    if not 0 < density <= 1:
        raise ConfigError(f"`0 < density <= 1` must hold, got {density}; it is the share of entries that is kept")
    return RULES[how](changes, weights, density, generator)
