"""Rows without a text, which files that were cleaned by a program hold."""

from collections.abc import Mapping

from deltaproof.data.numbers import is_missing
from deltaproof.data.table import Table
from deltaproof.errors import DataError


def set_aside_empty(tables: Mapping[str, Table], text: tuple[str, ...]) -> tuple[dict[str, Table], list[str]]:
    """Tables without the rows in which a text is empty, and a note on how many they were, with the first of them.

    Args:
        text: the text columns; of a pair both must be there.
    Errors:
        DataError: no row of a table has its text.
    """
    kept, notes = dict(tables), []
    for role, table in tables.items():
        columns = [table.columns[name] for name in text]
        empty = [row for row in range(len(table)) if any(_is_empty(values[row]) for values in columns)]
        if not empty:
            continue
        if len(empty) == len(table):
            raise DataError(
                f"{table.origin}: some rows must have their text `{','.join(text)}`, got none in {len(table)} rows; "
                f"is it the right text column?"
            )
        kept[role] = table.take(sorted(set(range(len(table))) - set(empty)))
        rows = "1 row" if len(empty) == 1 else f"{len(empty)} rows"
        notes.append(f"{rows} of {role} without a text left out, the first at {table.place(empty[0])}")
    return kept, notes


def _is_empty(value: object) -> bool:
    return is_missing(value) or value != value
