"""Learning-rate schedules as factors of the peak rate."""

import math


def factor(schedule: str, step: int, n_steps: int, warmup_fraction: float) -> float:
    """The share of the peak learning rate at optimiser step `step`, counted from 0.

    Rises linearly over the first `warmup_fraction` of the steps, then falls to 0 at `n_steps` (`linear`, `cosine`) or
    stays (`constant`).

    >>> [round(factor("linear", step, 10, 0.2), 2) for step in (0, 1, 2, 6)]
    [0.5, 1.0, 1.0, 0.5]
    """
    n_warmup = round(n_steps * warmup_fraction)
    if step < n_warmup:
        return (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress
