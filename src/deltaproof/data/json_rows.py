"""JSON lines, and JSON files that hold a list of objects, to tables."""

import json
from pathlib import Path
from typing import Any

from deltaproof.data.decoding import read_text
from deltaproof.data.reading import Reading
from deltaproof.data.table import Table
from deltaproof.errors import DataError, nearest


def read_json_rows(path: Path, reading: Reading, part: str | None = None) -> Table:
    """Objects, one a line or in one list; their keys are the columns, a key that is absent is a missing value.

    A `.json` file may hold either. Rows are line numbers for lines and positions from 1 for a list.

    Args:
        part: of a file that holds one object of several lists, such as a benchmark's tasks, the list to read.
    Errors:
        DataError: a line that is no JSON object, a file that is neither, or no such part.
    """
    text = read_text(path, reading.encoding)
    if part is not None:
        return _from_part(path, text, part)
    may_be_list = (reading.format or path.suffix.lower().removeprefix(".")) == "json"
    if may_be_list and text.lstrip().startswith("["):
        return _from_list(path, text)
    if may_be_list:
        _refuse_one_object(path, text)
    return _from_lines(path, text)


def _refuse_one_object(path: Path, text: str) -> None:
    """Raise where the file is a single object over several lines or of several lists, which is no table."""
    try:
        item = json.loads(text)
    except ValueError:
        return
    parts = _parts(item)
    if isinstance(item, dict) and (parts or "\n" in text.strip()):
        keys = ", ".join(f"`{key}`" for key in list(item)[:6])
        remedy = f"name one of its lists, such as `{path.name}#{parts[0]}`" if parts else "write the list alone into it"
        raise DataError(
            f"{path.name}: the file must hold a list of objects or one on each line, got one object with the keys "
            f"{keys}; {remedy}"
        )


def _parts(item: Any) -> list[str]:
    """The keys under which an object holds lists of objects."""
    if not isinstance(item, dict):
        return []
    return [key for key, rows in item.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]


def _from_part(path: Path, text: str, part: str) -> Table:
    try:
        item = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path.name}: the file must be JSON, got {error}; correct it there") from None
    parts = _parts(item)
    if part not in parts:
        hint = nearest(part, parts) if parts else "leave `#` and what comes after it out"
        raise DataError(f"{path.name}: `{part}` must be one of its lists of objects, got none of that name; {hint}")
    return _of_list(f"{path.name}#{part}", item[part])


def _from_list(path: Path, text: str) -> Table:
    try:
        items = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path.name}: the file must be JSON, got {error}; correct it there") from None
    return _of_list(path.name, items)


def _of_list(origin: str, items: list[Any]) -> Table:
    for position, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise DataError(
                f"{origin}, row {position}: each entry of the list must be an object, got {_short(item)}; "
                f'write {{"text": …, "label": …}}'
            )
    return table_of_objects(origin, items, list(range(1, len(items) + 1)))


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
