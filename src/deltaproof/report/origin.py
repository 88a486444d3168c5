"""Which version made the numbers of a page, and on which day."""

from datetime import datetime
from importlib import metadata
from typing import Any


def version_of(versions: dict[str, Any]) -> str:
    """The version of ours among those that a run had; this one's where that is not known."""
    if found := versions.get("deltaproof"):
        return str(found)
    try:
        return metadata.version("deltaproof")
    except metadata.PackageNotFoundError:
        return "unknown"


def day_of(stamp: str | None) -> str:
    """A time in ISO 8601 as a reader writes its day; empty for anything else.

    >>> day_of("2026-03-05T10:00:00+00:00"), day_of(None)
    ('5 March 2026', '')
    """
    try:
        moment = datetime.fromisoformat(str(stamp))
    except ValueError:
        return ""
    return f"{moment.day} {moment:%B %Y}"
