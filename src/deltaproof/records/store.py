"""A run folder: records and predictions written atomically, so that a kill at any moment loses one run at most."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deltaproof.errors import RecordError
from deltaproof.records import arrow
from deltaproof.records.record import Predictions, Record


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that takes the place of `path` whole or not at all: a neighbour, flushed, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all."""
    with replaced(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, data: Any) -> None:
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False, default=_plain) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"`{path}` must exist, found nothing there; check the folder") from None
    except ValueError as error:
        raise RecordError(f"`{path}` must be JSON, got {error}; delete it and run the same command again") from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in a record")


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write answers as Parquet, whole or not at all."""
    columns = {
        "id": arrow.texts(predictions.ids),
        "target": arrow.rows(predictions.targets),
        "output": arrow.rows(predictions.outputs),
    }
    if predictions.groups is not None:
        columns["group"] = arrow.texts(predictions.groups)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def read_predictions(path: Path, remedy: str) -> Predictions:
    """What `write_predictions` wrote.

    Args:
        remedy: what a reader can do where that is not there.
    Raises:
        RecordError: the file is missing or broken.
    """
    try:
        table = pq.ParquetFile(path).read().to_pydict()  # `read_table` would import pandas first
    except (OSError, pa.ArrowInvalid) as error:
        raise RecordError(f"`{path}` must hold a model's predictions, got {error}; {remedy}") from None
    return Predictions(
        table["id"],
        table.get("group"),
        np.array(table["target"], dtype=float),
        np.array(table["output"], dtype=float),
    )


class Store:
    """The folder of one experiment: `experiment.json`, `records/`, `predictions/`, `data/`, `best/`, `report.html`."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def record_path(self, key: str) -> Path:
        return self.folder / "records" / f"{key}.json"

    def predictions_path(self, key: str) -> Path:
        return self.folder / "predictions" / f"{key}.parquet"

    def rung_path(self, key: str, moment: Literal["start", "rung"]) -> Path:
        """Where a tuning trial's answers to the validation rows stand, before training and at its rung."""
        return self.folder / "rungs" / key / f"{moment}.parquet"

    def lock(self, name: str) -> filelock.BaseFileLock:
        """A lock that the system frees when its holder dies, so that two processes share a folder unharmed."""
        path = self.folder / "locks" / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(path)

    def write(self, record: Record, predictions: Predictions | None = None) -> None:
        """Store a run. The record comes last: where it stands, its predictions stand too."""
        if predictions is not None:
            write_predictions(self.predictions_path(record.spec.key), predictions)
        write_json(self.record_path(record.spec.key), record.to_json())

    def study_path(self, name: str) -> Path:
        return self.folder / "studies" / f"{name}.json"

    def studies(self) -> dict[str, dict[str, Any]]:
        """What studies of the kept models measured, by name."""
        return {path.stem: read_json(path) for path in sorted((self.folder / "studies").glob("*.json"))}

    def find(self, key: str) -> Record | None:
        path = self.record_path(key)
        return Record.from_json(read_json(path)) if path.exists() else None

    def records(self) -> Iterator[Record]:
        """Every record of the folder, in the order of their keys."""
        for path in sorted((self.folder / "records").glob("*.json")):
            if re.fullmatch(r"[0-9a-f]{16}", path.stem):
                yield Record.from_json(read_json(path))

    def experiment(self) -> dict[str, Any]:
        """The plan as resolved, the data's facts and the protocol; see `experiments/plan.py`."""
        path = self.folder / "experiment.json"
        if not path.exists():
            raise RecordError(
                f"`{self.folder}` must be a run folder with an `experiment.json`; give a folder that `compare` wrote"
            )
        data: dict[str, Any] = read_json(path)
        return data

    def write_experiment(self, experiment: dict[str, Any]) -> None:
        write_json(self.folder / "experiment.json", experiment)

    def predictions(self, key: str) -> Predictions:
        """The test predictions of a final run."""
        return read_predictions(self.predictions_path(key), "delete its record and run again")
