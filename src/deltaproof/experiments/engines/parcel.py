"""What travels between the driver's run folder and a node's, as bytes: no file system is shared."""

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from deltaproof.experiments.jobs import Job

CHUNK_BYTES = 32 * 2**20
"""No more of a file is in memory at once."""
LAST = ("deltaproof.json", "snapshots.json", "checkpoint.json")
"""Written last into their folders, so that a folder which has one is whole."""

Piece = tuple[str, bytes]
"""A path below the run folder, and the next bytes of that file."""


def files_of(job: Job) -> tuple[str, ...]:
    """What a run writes below its folder; the record comes last, as where it stands everything stands."""
    key = job.spec.key
    return (
        f"checkpoints/{job.checkpoint_key}", f"snapshots/{key}", f"tuned/{key}", f"rungs/{key}",
        f"predictions/{key}.parquet", f"records/{key}.json",
    )  # fmt: skip


def pieces(folder: Path, places: Sequence[str]) -> Iterator[Piece]:
    """The files at `places` below a folder, in an order in which they may be written; what is not there is left out."""
    for place in places:
        start = folder / place
        found = [start] if start.is_file() else [path for path in start.rglob("*") if path.is_file()]
        for path in sorted(found, key=lambda path: (path.name in LAST, str(path))):
            name = path.relative_to(folder).as_posix()
            with path.open("rb") as file:
                yield name, file.read(CHUNK_BYTES)
                while more := file.read(CHUNK_BYTES):
                    yield name, more


class Incoming:
    """Files on their way in: each is put in its place whole, and none before all have come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting = folder / "incoming" / uuid.uuid4().hex
        self._names: list[str] = []

    def take(self, piece: Piece) -> None:
        name, content = piece
        path = self._waiting / name
        if name not in self._names:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._names.append(name)
        with path.open("ab") as file:
            file.write(content)

    def settle(self) -> None:
        """Put all in their places, in the order in which they came."""
        for name in self._names:
            with (self._waiting / name).open("rb") as file:
                os.fsync(file.fileno())
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._waiting / name, target)
        self.drop()

    def drop(self) -> None:
        """Forget what came."""
        shutil.rmtree(self._waiting, ignore_errors=True)
        self._names = []


def remove(folder: Path, places: Sequence[str]) -> None:
    """Delete what lies at `places` below a folder."""
    for place in places:
        path = folder / place
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
