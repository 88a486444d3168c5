"""The plan as TOML, so that the page holds what it takes to repeat the experiment."""

import json
import math
import re
from pathlib import PurePath
from typing import Any


def plan_toml(plan: dict[str, Any], hide_folders: bool = False) -> str:
    """A plan's fields as a TOML document; what is None or empty is left out, as it is when a plan is written by hand.

    Args:
        hide_folders: write absolute paths as file names, for a page that is shared.

    >>> print(plan_toml({"model": "minilm", "seeds": 3, "text": [], "training": {"epochs": 2.0, "patience": None}}))
    model = "minilm"
    seeds = 3
    <BLANKLINE>
    [training]
    epochs = 2.0
    """
    flat = {key: value for key, value in plan.items() if not isinstance(value, dict)}
    lines = _pairs(flat, hide_folders)
    for key, value in plan.items():
        if isinstance(value, dict) and (inner := _pairs(value, hide_folders)):
            lines += ["", f"[{_key(key)}]", *inner]
    return "\n".join(lines)


def _pairs(fields: dict[str, Any], hide_folders: bool) -> list[str]:
    return [
        f"{_key(key)} = {_value(value, hide_folders)}"
        for key, value in fields.items()
        if value is not None and value not in ([], ())
    ]


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def _value(value: Any, hide_folders: bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item, hide_folders) for item in value) + "]"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    text = str(value)
    return _string(PurePath(text).name if hide_folders and PurePath(text).is_absolute() else text)


def _string(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
