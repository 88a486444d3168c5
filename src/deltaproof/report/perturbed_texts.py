"""One test example as it is and after every perturbation, so that a reader sees what was done to the texts."""

import json
from collections.abc import Iterator
from typing import Any

from deltaproof.report.examples import open_test
from deltaproof.report.grid import Grid, grid
from deltaproof.report.robustness_sets import SEARCHED, Group, Json, groups
from deltaproof.report.study import Study

_MOST_ROWS = 60
"""So many rows of each set are looked through for an example."""
_USUAL_LETTERS = 120
_MOST_LETTERS = 400


def perturbed_texts(study: Study, result: Json) -> Grid | None:
    """The example that most perturbations changed, of those the one nearest to a usual length; None without texts."""
    test = open_test(study)
    if test is None:
        return None
    clean = dict(zip(test.ids, test.texts, strict=True))
    sets = [
        (group, {row["id"]: row for row in _rows(study, result, group) if row["id"] in clean})
        for group in groups(result)
    ]
    sets = [(group, rows) for group, rows in sets if rows]
    changed: dict[str, int] = {}
    for _, rows in sets:
        for name, row in rows.items():
            changed[name] = changed.get(name, 0) + any(row.get("edits") or [])
    if not changed:
        return None
    chosen = max(changed, key=lambda name: (changed[name], -abs(len(" ".join(clean[name])) - _USUAL_LETTERS)))
    lines = [["as it is", _shown(clean[chosen])]]
    lines += [[_name(result, group), _shown(rows[chosen]["texts"])] for group, rows in sets if chosen in rows]
    note = "One test example, at the middle strengths; the run folder has every text, in robustness/sets."
    return grid("What was done to a text", ("Perturbation", "Text"), lines, (0, 1), note)


def _name(result: Json, group: Group) -> str:
    return f"{group.middle_name}, against {result['reference']}" * (group.category == SEARCHED) or group.middle_name


def _rows(study: Study, result: Json, group: Group) -> Iterator[dict[str, Any]]:
    """The first rows of a set of perturbed test texts; none where its file is gone or is not such a file. Of a search
    those found against the reference's first model."""
    name, kind = group.middle.get("file"), group.middle.get("kind")
    if kind not in ("perturbation", "search") or not name:
        return
    path = study.store.folder / str(name)
    if kind == "search":
        path = path / f"{result['keys'][result['reference']][0]}.jsonl"
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line, _ in zip(file, range(_MOST_ROWS), strict=False):
            row = json.loads(line)
            if "id" in row and row.get("texts"):
                yield row


def _shown(texts: Any) -> str:
    text = " | ".join(str(text) for text in texts)
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"
