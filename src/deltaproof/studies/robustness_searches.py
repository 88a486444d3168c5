"""What searches against models took: queries and changed words, from the texts that they left in the run folder."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deltaproof.errors import RecordError
from deltaproof.robustness.metrics import ratio_interval
from deltaproof.stats import Interval

Array = np.ndarray


def search_costs(
    places: Sequence[Path], before: Array, after: Array, groups: Sequence[str] | None
) -> dict[str, Interval | None]:
    """Mean queries of the rows that were attacked, which are those right when clean; mean share of words changed in
    those that fell, which is how much it takes to turn an answer. None where there are no such rows.

    Args:
        places: files of texts, one for each seed.
        before: (S, n) right (1) or wrong (0) when clean.
        after: (S, n) the same after the search.
    Source of the two: Jin et al., 2020, arXiv:1907.11932, sec. 4 ("% perturbed words", "query number").
    """
    rows = [_rows(place) for place in places]
    queries = np.array([[row["queries"] for row in seed] for seed in rows], dtype=float)
    changed = np.array([[_changed(row) for row in seed] for seed in rows], dtype=float)
    fell = before * (1 - after)
    n_queries, share = ratio_interval(queries * before, before, groups), ratio_interval(changed * fell, fell, groups)
    return {"n_queries": _within(n_queries, math.inf), "changed": _within(share, 1.0)}


def _within(found: Interval | None, top: float) -> Interval | None:
    """An interval of what is 0 to `top`."""
    return None if found is None else replace(found, low=max(found.low, 0.0), high=min(found.high, top))


def _rows(place: Path) -> list[dict[str, Any]]:
    if not place.is_file():
        raise RecordError(
            f"`{place}` must hold the texts that a search found, it is gone; delete the model's answers, "
            f"`robustness/answers/{place.stem}`, and run `deltaproof attack` again"
        )
    # the line break alone ends a row: texts may hold other characters that `splitlines` breaks at
    return [json.loads(line) for line in place.read_text(encoding="utf-8").split("\n") if line]


def _changed(row: dict[str, Any]) -> float:
    """Share of the words that may be edited."""
    return sum(map(len, row["edits"])) / row["words"] if row["words"] else 0.0
