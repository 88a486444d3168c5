"""The evaluations of a search on disk, so that one that was stopped goes on."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deltaproof.errors import RecordError
from deltaproof.experiments.environment import versions
from deltaproof.merging.combine import Recipe
from deltaproof.merging.search import Tried
from deltaproof.merging.sources import ExpertSource
from deltaproof.records.store import Store, read_json, write_json


class SearchLog:
    """`merging/search-….json` in a run folder; its name stands for everything that decides an evaluation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: list[Tried] = _read(path)

    @classmethod
    def of(cls, store: Store, sources: Sequence[ExpertSource], recipe: Recipe, rows: Sequence[Any]) -> "SearchLog":
        """The log of one search.

        Args:
            rows: what tells the rows that are scored on from others.
        """
        settings = {**recipe.to_json(), "weights": None}
        facts = [settings, [one.digest for one in sources], sources[0].fingerprint, list(rows), versions()]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        return cls(store.folder / "merging" / f"search-{digest}.json")

    def add(self, tried: Tried) -> None:
        """Keep one evaluation."""
        self.known.append(tried)
        write_json(self.path, [one.to_json() for one in self.known])


def _read(path: Path) -> list[Tried]:
    if not path.is_file():
        return []
    try:
        return [Tried(tuple(one["weights"]), float(one["value"]), float(one["loss"])) for one in read_json(path)]
    except (KeyError, TypeError, ValueError, RecordError):
        return []  # a log saves time and decides nothing
