"""Label values that are lists: as lists, as text that spells a list, or as labels with | between them."""

import ast
from typing import Any

import numpy as np


def is_list(value: Any) -> bool:
    """Whether a value is a list, or text that spells one in brackets."""
    return isinstance(value, list | tuple | np.ndarray) or (
        isinstance(value, str) and value.strip().startswith("[") and isinstance(as_list(value), list)
    )


def as_list(value: Any) -> list[Any] | None:
    """The labels a value lists; None for what lists none.

    >>> as_list("joy|fear"), as_list("['joy']"), as_list(["joy", "fear"]), as_list("")
    (['joy', 'fear'], ['joy'], ['joy', 'fear'], [])
    """
    if isinstance(value, list | tuple | np.ndarray):
        return [item.item() if isinstance(item, np.generic) else item for item in value]
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            read = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            return None
        return read if isinstance(read, list) else None
    if isinstance(value, str):
        return [part.strip() for part in value.split("|")] if value.strip() else []
    return None if value is None or isinstance(value, float) else [value]
