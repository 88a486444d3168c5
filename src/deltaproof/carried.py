"""Models that were carried to this machine: a run still calls them by the names that they have where they come from."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

_VARIABLE = "DELTAPROOF_MODELS"


def as_variables(folders: Mapping[str, Path]) -> dict[str, str]:
    """Environment variables that tell a process of models by name and where they lie."""
    return {_VARIABLE: json.dumps({name: str(folder) for name, folder in folders.items()})}


def carried_folder(name: str) -> Path | None:
    """Where the model of this name lies, if it was carried here."""
    folder = json.loads(os.environ.get(_VARIABLE, "{}")).get(name)
    return None if folder is None else Path(folder)
