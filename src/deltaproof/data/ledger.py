"""The ledger of openings: who looked at which sealed test set, kept per user across all run folders."""

import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import filelock

from deltaproof.errors import DataError


@dataclass(frozen=True)
class Opening:
    """One reader's first look at a test set."""

    fingerprint: str
    """Of the test split's content, so that a renamed or copied file is the same test set."""
    reader: str
    """Who looked, such as the key of a run."""
    time: str
    """UTC, ISO 8601."""


def ledger_path() -> Path:
    """`openings.jsonl` in the folder that DELTAPROOF_HOME names, else where the system keeps a program's state."""
    home = os.environ.get("DELTAPROOF_HOME")
    return (Path(home).expanduser() if home else _state_folder()) / "openings.jsonl"


def _state_folder() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "deltaproof"


def record_opening(fingerprint: str, reader: str) -> None:
    """Append an opening, unless this reader is already entered for this test set.

    The line is appended whole under a lock, so that processes do not mix theirs.

    Errors:
        DataError: the ledger cannot be written.
    """
    path = ledger_path()
    try:
        with _locked(path):
            if any(entry.reader == reader for entry in openings(fingerprint)):
                return
            entry = Opening(fingerprint, reader, datetime.now(UTC).isoformat(timespec="seconds"))
            line = json.dumps(asdict(entry), ensure_ascii=False) + "\n"
            _append(path, line.encode())
    except OSError as error:
        raise _unwritable(path, error) from None


def check_ledger() -> None:
    """Make sure that openings can be entered, before anything heavy is done.

    Errors:
        DataError: the ledger cannot be written.
    """
    path = ledger_path()
    try:
        with _locked(path), path.open("ab"):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def openings(fingerprint: str) -> list[Opening]:
    """Who looked at the test set of this fingerprint, each reader once, in the order of their first looks."""
    try:
        lines = ledger_path().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    first: dict[str, Opening] = {}
    for line in lines:
        try:
            entry = Opening(**json.loads(line))
        except (ValueError, TypeError):
            continue  # a line torn by a crash
        if entry.fingerprint == fingerprint:
            first.setdefault(entry.reader, entry)
    return list(first.values())


def _locked(path: Path) -> filelock.BaseFileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path.with_suffix(".lock"))


def _append(path: Path, line: bytes) -> None:
    handle = os.open(path, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size:
            os.lseek(handle, -1, os.SEEK_END)
            if os.read(handle, 1) != b"\n":  # a crash tore the last line: begin a new one
                line = b"\n" + line
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"the ledger of test set openings `{path}` must be writable, got {error}; "
        f"set DELTAPROOF_HOME to a folder that you may write to"
    )
