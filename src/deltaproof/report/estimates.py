"""Estimates with their intervals, as studies store them, where any part may be missing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deltaproof.experiments import wording
from deltaproof.report.grid import Cell
from deltaproof.report.numbers import interval, value


@dataclass(frozen=True)
class Estimate:
    """A finite number, and where it may lie; an interval has both ends or none."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, ...]:
        """All that a drawing has to hold."""
        return (self.mean,) if self.low is None or self.high is None else (self.low, self.mean, self.high)

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on one side of zero; else 0."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)

    def within(self, least: float, most: float) -> "Estimate":
        """For drawings: the interval cut at what the number can be. Few seeds give intervals that reach beyond.

        >>> Estimate(0.9, 0.7, 1.1).within(0, 1)
        Estimate(mean=0.9, low=0.7, high=1)
        """
        if self.low is None or self.high is None:
            return self
        return Estimate(self.mean, max(self.low, least), min(self.high, most))

    def text(self, unit: str, with_sign: bool = False) -> str:
        """The number and its interval in words.

        >>> Estimate(0.02, 0.01, 0.03).text("fraction", with_sign=True)
        '+2.0 (+1.0 to +3.0)'
        """
        reach = interval(self.low, self.high, unit, with_sign)
        number = wording.signed(self.mean, unit) if with_sign else value(self.mean, unit)
        return f"{number} ({reach})" if reach else number

    def cell(self, unit: str, with_sign: bool = False) -> Cell:
        number = wording.signed(self.mean, unit) if with_sign else value(self.mean, unit)
        return Cell(number, interval(self.low, self.high, unit, with_sign))


def estimate(entry: Mapping[str, Any] | None) -> Estimate | None:
    """What a study stored as `mean` or `value` with `low` and `high`; None where there is no finite number.

    >>> estimate({"mean": 0.5, "low": 0.4, "high": None}), estimate({"value": float("nan")})
    (Estimate(mean=0.5, low=None, high=None), None)
    """
    if entry is None:
        return None
    mean, low, high = finite(entry.get("mean", entry.get("value"))), finite(entry.get("low")), finite(entry.get("high"))
    if mean is None:
        return None
    return Estimate(mean) if low is None or high is None else Estimate(mean, low, high)


def finite(number: Any) -> float | None:
    """The number as a float, if it is one and finite."""
    return float(number) if isinstance(number, int | float) and math.isfinite(number) else None
