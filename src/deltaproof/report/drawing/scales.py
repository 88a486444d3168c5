"""From values to positions, and the round values in between that a reader can name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

DECIMAL = (1.0, 2.0, 5.0)
_FEWER = 1.5
"""A round step may be smaller than asked for by this factor: a few ticks more are better than half as many."""
SECONDS = (
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    1200.0,
    1800.0,
    3600.0,
    7200.0,
    10800.0,
    21600.0,
    43200.0,
    86400.0,
)
"""Steps of time that read well; below and above they go on in decimal."""


@dataclass(frozen=True)
class Scale:
    """A map from low..high to start..end, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, n: int = 5, whole: bool = False, seconds: bool = False) -> list[float]:
        """About n round values within the domain.

        Args:
            whole: only whole numbers, for counts.
            seconds: values that read well as times.
        """
        if self.log:
            found = _log_ticks(self.low, self.high, n, seconds)
            if len(found) >= 2:
                return found
        step = _round_step((self.high - self.low) / n, seconds)
        if whole:
            step = max(1.0, step)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def _round_step(least: float, seconds: bool) -> float:
    if seconds and SECONDS[0] <= least <= SECONDS[-1]:
        return next(step for step in SECONDS if step >= least / _FEWER)
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * step for step in (*DECIMAL, 10.0) if power * step >= least / _FEWER)


def _log_ticks(low: float, high: float, n: int, seconds: bool) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    rungs: Sequence[float] = [10.0**power * step for power in range(first, last + 1) for step in DECIMAL]
    if seconds:
        rungs = sorted({*SECONDS, *(rung for rung in rungs if not SECONDS[0] <= rung <= SECONDS[-1])})
    inside = [rung for rung in rungs if low * (1 - 1e-9) <= rung <= high * (1 + 1e-9)]
    if len(inside) > n and not seconds:
        decades = [
            10.0**power for power in range(first, last + 1) if low * (1 - 1e-9) <= 10.0**power <= high * (1 + 1e-9)
        ]
        inside = decades if len(decades) >= 2 else inside
    return inside[:: math.ceil(len(inside) / n)] if len(inside) > n else list(inside)


def padded(values: Sequence[float], share: float = 0.06, log: bool = False) -> tuple[float, float]:
    """A domain that holds the values with some room; a single value gets room too.

    >>> padded([0.0, 1.0], share=0.1)
    (-0.1, 1.1)
    """
    low, high = min(values), max(values)
    if log:
        span = math.log10(high / low) or 0.5
        return low / 10 ** (share * span), high * 10 ** (share * span)
    span = (high - low) or abs(high) * 0.2 or 1.0
    return low - share * span, high + share * span
