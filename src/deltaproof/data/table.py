"""A table as read: columns of plain values that still know file and row, so that an error can name them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deltaproof.errors import DataError


@dataclass(frozen=True)
class Table:
    """Columns of equal length, with the place that each row came from."""

    origin: str
    """How messages and row ids call the source: a file's name, or the name of a split."""
    columns: dict[str, list[Any]]
    rows: Sequence[int]
    """The row number that a reader would look up: in an editor for text files, counted from 1 elsewhere."""
    class_names: dict[str, list[str]] = field(default_factory=dict)
    """Names of integer classes, for columns whose source states them."""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, index: int) -> str:
        """Where a row stands, in the words of an error message.

        >>> Table("reviews.csv", {"text": ["fine"]}, [2]).place(0)
        'reviews.csv, row 2'
        """
        return f"{self.origin}, row {self.rows[index]}"

    def ids(self) -> list[str]:
        """A name for each row, unique within the table: `reviews.csv:2`."""
        return [f"{self.origin}:{row}" for row in self.rows]

    def take(self, indices: Iterable[int]) -> "Table":
        """The rows at `indices`, in that order."""
        kept = list(indices)
        columns = {name: [values[index] for index in kept] for name, values in self.columns.items()}
        return replace(self, columns=columns, rows=[self.rows[index] for index in kept])

    def refuse(self, bad: Sequence[int], rule: str, got: str, remedy: str) -> None:
        """Raise for the first of the bad rows and say how many more there are; nothing for none."""
        if bad:
            more = f" (and in {len(bad) - 1} more rows)" if len(bad) > 1 else ""
            raise DataError(f"{self.place(bad[0])}: {rule}, got {got}{more}; {remedy}")


def join(tables: Sequence[Table]) -> Table:
    """Several shards of one split as one table; rows are counted on across the shards."""
    first = tables[0]
    columns = {
        name: [value for table in tables for value in table.columns.get(name, [None] * len(table))]
        for name in dict.fromkeys(name for table in tables for name in table.columns)
    }
    n_rows = sum(map(len, tables))
    notes = [f"{first.origin} and {len(tables) - 1} more files were read as one table", *first.notes]
    return Table(first.origin, columns, range(1, n_rows + 1), first.class_names, notes)
