"""Values of a label column as numbers, whether the source wrote them as numbers or as text."""

import math
import re
from typing import Any

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NOT_FINITE = {
    "nan": math.nan,
    "na": math.nan,
    "n/a": math.nan,
    "null": math.nan,
    "none": math.nan,
    "inf": math.inf,
    "+inf": math.inf,
    "-inf": -math.inf,
    "infinity": math.inf,
    "-infinity": -math.inf,
}


def as_number(value: Any) -> float | None:
    """The number a value stands for, NaN and infinities included; None for a word, a truth value or nothing.

    >>> as_number("2.5"), as_number(3), as_number("positive"), as_number(True)
    (2.5, 3.0, None, None)
    """
    if isinstance(value, str):
        value = value.strip()
        if _NUMBER.fullmatch(value):
            return float(value)
        return _NOT_FINITE.get(value.lower())
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: absent, or text of blanks only."""
    return value is None or (isinstance(value, str) and not value.strip())


def is_code(value: Any) -> bool:
    """Whether a text of digits is a code rather than a count, as `007` is."""
    return isinstance(value, str) and re.fullmatch(r"0\d+", value.strip()) is not None
