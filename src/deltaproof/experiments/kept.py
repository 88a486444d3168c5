"""Tuned models in a run folder: which of them stay, and which one `best` points to."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from deltaproof.experiments.table import Table
from deltaproof.metrics import Metric
from deltaproof.records.record import Record
from deltaproof.records.store import Store

SNAPSHOTS = "snapshots.json"
"""Written by `training/snapshots.py` when all of a training are there."""


def tuned_folder(store: Store, key: str) -> Path:
    return store.folder / "tuned" / key


def is_kept(store: Store, key: str, snapshots: bool = False) -> bool:
    """Whether a run's tuned model stands on disk, whole: its facts are written last; and so its snapshots."""
    return (tuned_folder(store, key) / "deltaproof.json").exists() and (
        not snapshots or (snapshot_folder(store, key) / SNAPSHOTS).exists()
    )


def to_keep(records: Sequence[Record], metric: Metric, keep: str) -> list[Record]:
    """Of one contestant's final runs, those whose tuned models the plan keeps."""
    return {"none": [], "best": by_validation(records, metric)[:1]}.get(keep, by_validation(records, metric))


def snapshot_folder(store: Store, key: str) -> Path:
    """Where a run leaves what it trained as it stood at a few moments, if that was asked for."""
    return store.folder / "snapshots" / key


def by_validation(records: Sequence[Record], metric: Metric) -> list[Record]:
    """The runs that came through, best validation score first."""
    done = [record for record in records if record.status == "done"]
    sign = -1 if metric.higher_is_better else 1
    return sorted(done, key=lambda record: sign * record.validation[metric.name])


def keep_best(store: Store, records: Sequence[Record], metric: Metric) -> None:
    """Of one contestant's tuned models delete all but the best on validation."""
    for record in by_validation(records, metric)[1:]:
        shutil.rmtree(tuned_folder(store, record.spec.key), ignore_errors=True)


def point_to_best(store: Store, table: Table) -> Path | None:
    """Make `best` the tuned model of the recommended contestant: of those kept, the best on validation."""
    name, link = table.recommendation.name, store.folder / "best"
    keys = table.row(name).keys if name is not None else ()
    records = [record for key in keys if (record := store.find(key)) is not None]
    kept = [record for record in by_validation(records, table.metric) if is_kept(store, record.spec.key)]
    if not kept:
        link.unlink(missing_ok=True)
        return None
    temporary = store.folder / f".best-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path("tuned") / kept[0].spec.key)
    temporary.replace(link)
    return link
