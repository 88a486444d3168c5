"""The sealed test split: its rows come out through `open` alone, and every opening is entered in a ledger."""

from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

from deltaproof.data.ledger import Opening, openings, record_opening
from deltaproof.data.split import Split
from deltaproof.data.split_file import read_split, write_split
from deltaproof.errors import DataError
from deltaproof.records.store import write_atomically

_IN_MEMORY: "WeakKeyDictionary[SealedSplit, Split]" = WeakKeyDictionary()
"""Rows that have no file yet; kept beside the objects, so that no attribute, iteration or pickle carries them."""


class SealedSplit:
    """A test split that only the final evaluation reads."""

    __slots__ = ("__weakref__", "_path", "fingerprint", "n_rows")

    def __init__(self, n_rows: int, fingerprint: str, path: Path | None = None) -> None:
        self.n_rows = n_rows
        self.fingerprint = fingerprint
        self._path = path

    @classmethod
    def seal(cls, split: Split) -> "SealedSplit":
        """Seal a split that is in memory; `store` moves its rows to a file."""
        sealed = cls(len(split), split.fingerprint)
        _IN_MEMORY[sealed] = split
        return sealed

    def open(self, reader: str) -> Split:
        """The rows. The reader is entered in the ledger first, once for each test set.

        Args:
            reader: who looks, such as the key of a final run.
        Errors:
            DataError: the rows' file is gone or was changed, or the ledger cannot be written.
        """
        if not reader:
            raise DataError("a reader of the sealed test split must have a name, got none; give the key of the run")
        record_opening(self.fingerprint, reader)
        split = _IN_MEMORY[self] if self._path is None else read_split(self._path, "test")
        if split.fingerprint != self.fingerprint:
            raise DataError(
                f"`{self._path}` must hold the test rows as they were sealed (fingerprint {self.fingerprint}), "
                f"got {split.fingerprint}; begin a new run folder"
            )
        return split

    def openings(self) -> list[Opening]:
        """Who has looked at these rows so far, in this and in other run folders."""
        return openings(self.fingerprint)

    def store(self, path: Path) -> "SealedSplit":
        """Move the rows to a Parquet file of their own; the sealed split returned knows them by that file only."""
        if self._path is None:
            write_split(_IN_MEMORY[self], path)
        elif self._path.resolve() != path.resolve():
            write_atomically(path, self._path.read_bytes())
        return SealedSplit(self.n_rows, self.fingerprint, path)

    def __repr__(self) -> str:
        return f"SealedSplit(n_rows={self.n_rows}, fingerprint={self.fingerprint!r})"

    def __copy__(self) -> "SealedSplit":
        return self

    def __deepcopy__(self, memo: Any) -> "SealedSplit":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            raise DataError(
                "a sealed split must be stored before it goes to another process, got one in memory; "
                "call `write_splits` first"
            )
        return SealedSplit, (self.n_rows, self.fingerprint, self._path)

    def __iter__(self) -> NoReturn:
        raise DataError(
            "the sealed test split must be opened by name, got an attempt to iterate over it; "
            "call `open(reader)`, which is entered in a ledger"
        )

    __getitem__ = None
