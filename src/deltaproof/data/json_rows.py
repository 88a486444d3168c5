"""JSON lines, and JSON files that hold a list of objects, to tables."""

import json
from pathlib import Path
from typing import Any

from deltaproof.data.decoding import read_text
from deltaproof.data.table import Table
from deltaproof.errors import DataError


def read_json_rows(path: Path, encoding: str | None = None) -> Table:
    """Objects, one a line or in one list; their keys are the columns, a key that is absent is a missing value.

    A `.json` file may hold either. Rows are line numbers for lines and positions from 1 for a list.

    Errors:
        DataError: a line that is no JSON object, or a file that is neither.
    """
    text = read_text(path, encoding)
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        return _from_list(path, text)
    if path.suffix.lower() == ".json":
        _refuse_one_object(path, text)
    return _from_lines(path, text)


def _refuse_one_object(path: Path, text: str) -> None:
    """Raise where the file is a single object over several lines, which is no table."""
    try:
        item = json.loads(text)
    except ValueError:
        return
    if isinstance(item, dict) and "\n" in text.strip():
        keys = ", ".join(f"`{key}`" for key in list(item)[:6])
        raise DataError(
            f"{path.name}: the file must hold a list of objects or one on each line, got one object with the keys "
            f"{keys}; write the list alone into the file"
        )


def _from_list(path: Path, text: str) -> Table:
    try:
        items = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path.name}: the file must be JSON, got {error}; correct it there") from None
    for position, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise DataError(
                f"{path.name}, row {position}: each entry of the list must be an object, got {_short(item)}; "
                f'write {{"text": …, "label": …}}'
            )
    return table_of_objects(path.name, items, list(range(1, len(items) + 1)))


def _from_lines(path: Path, text: str) -> Table:
    items: list[dict[str, Any]] = []
    rows: list[int] = []
    for row, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path.name}, row {row}: each line must be a JSON object, got {error}; correct or delete the line"
            ) from None
        if not isinstance(item, dict):
            raise DataError(
                f"{path.name}, row {row}: each line must be a JSON object, got {_short(item)}; "
                f'write {{"text": …, "label": …}}'
            )
        items.append(item)
        rows.append(row)
    return table_of_objects(path.name, items, rows)


def table_of_objects(origin: str, items: list[dict[str, Any]], rows: list[int]) -> Table:
    """A table from one mapping per row."""
    if not items:
        raise DataError(f"{origin}: a table must hold rows, got none; add rows")
    names = dict.fromkeys(name for item in items for name in item)
    return Table(origin, {name: [item.get(name) for item in items] for name in names}, rows)


def _short(item: Any) -> str:
    text = json.dumps(item, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
