"""What an experiment may use, in trials, minutes or examples."""

import re
from typing import Any

import pydantic

from deltaproof.errors import ConfigError
from deltaproof.settings import Settings

_UNITS = {
    "trial": ("trials", 1),
    "min": ("minutes", 1),
    "minute": ("minutes", 1),
    "hour": ("minutes", 60),
    "h": ("minutes", 60),
    "example": ("examples", 1),
}


class Budget(Settings):
    """What the experiment may use; a field that is left out is not limited."""

    name = "budget"

    trials: int | None = pydantic.Field(default=None, ge=1)
    """Tuning trials per contestant."""
    minutes: float | None = pydantic.Field(default=None, gt=0)
    """Wall time of the whole experiment: the number of trials is the largest that fits the estimate."""
    examples: int | None = pydantic.Field(default=None, ge=1)
    """Training examples that each run sees."""


def parse_budget(text: str) -> Budget:
    """`6 trials`, `30 minutes`, `20000 examples`, or several with commas.

    >>> parse_budget("6 trials, 1.5 hours").minutes
    90.0
    """
    fields: dict[str, Any] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+?)s?\s*", part.lower())
        if match is None or match[2] not in _UNITS:
            raise ConfigError(
                f"a budget reads `6 trials`, `30 minutes` or `20000 examples`, got `{part.strip()}`; write one of these"
            )
        field, factor = _UNITS[match[2]]
        fields[field] = factor * float(match[1])
    return Budget(**fields)
