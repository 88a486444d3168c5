"""A plan's file, read before anything large is loaded."""

import tomllib
from pathlib import Path
from typing import Any

from deltaproof.errors import ConfigError, nearest


def read_plan(path: Path) -> dict[str, Any]:
    """The fields of a TOML plan, not yet checked, so that options can override them."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = [file.name for file in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        hint = nearest(path.name, names) if names else "check the path"
        raise ConfigError(f"the plan `{path}` must exist, found nothing; {hint}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{path}` must be TOML, got {error}; correct that line") from None
    return fields
