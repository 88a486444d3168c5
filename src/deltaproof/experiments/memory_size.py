"""How many bytes, as people write it."""

import re
from typing import Any

from deltaproof.errors import ConfigError

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
LEAST = 10**6
"""Less is a slip of the pen, such as a unit left out: no process of Python runs in it."""


def parse_bytes(value: Any) -> int:
    """`4GB`, `512MiB`, `4e9`, or a number of bytes.

    >>> parse_bytes("4GB"), parse_bytes("512 MiB"), parse_bytes("4e9")
    (4000000000, 536870912, 4000000000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d{1,2})?)\s*([kmgt]?)(i?)b?\s*", str(value).lower())
    if found is None or (found[3] and not found[2]) or isinstance(value, bool):
        raise ConfigError(f"memory reads `4GB`, `512MiB` or `4e9` bytes, got `{value}`; write one of these")
    n_bytes = int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2]])
    if n_bytes < LEAST:
        raise ConfigError(f"memory must hold a training, got `{value}`, {n_bytes} bytes; write a unit, such as `4GB`")
    return n_bytes
