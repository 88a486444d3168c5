"""Finished runs of other run folders, taken over where their specs are equal in every field.

A spec's key is a hash of all that decides what a run measures: method, model, data, settings, seed, library versions.
So a run of the same key measured the same, wherever it stands.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deltaproof.data.ledger import record_opening
from deltaproof.data.run_folder import read_dataset
from deltaproof.errors import ConfigError, RecordError
from deltaproof.experiments.kept import is_kept, snapshot_folder, tuned_folder
from deltaproof.records.record import Record
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store, write_atomically

TAKEN = ("done", "diverged")
"""Endings that hold anywhere; memory that ran out elsewhere may be enough here."""


@dataclass(frozen=True)
class Reuse:
    """Run folders to look in, and the run folder that what is found goes to."""

    store: Store
    folders: tuple[Path, ...]
    keeps_models: bool
    """Whether tuned models come along, where the other folder has kept them."""
    keeps_snapshots: bool

    @classmethod
    def of(cls, store: Store, folders: Sequence[str], keep: str) -> "Reuse":
        """Raises:
        ConfigError: a folder is no run folder.
        """
        places = tuple(Path(folder).expanduser() for folder in folders)
        for place in places:
            if not (place / "records").is_dir():
                raise ConfigError(
                    f"`reuse` must name run folders, `{place}` holds no `records`; give folders that `compare` wrote"
                )
        return cls(store, tuple(place for place in places if place.resolve() != store.folder.resolve()), keep != "none",
                   keep == "snapshots")  # fmt: skip

    def fetch(self, spec: Spec) -> tuple[Record, Path] | None:
        """The record of this spec in another folder, copied here with all that belongs to it; None where none has it.

        A final run comes only with its predictions, for the very test split that is sealed here, and is entered in the
        ledger of openings as if it had been run.
        """
        for folder in self.folders:
            other = Store(folder)
            record = _record(other, spec.key)
            if record is not None and record.spec.key == spec.key and record.status in TAKEN:
                if spec.stage == "final" and not self._same_test(folder):
                    continue
                if self._copy(other, record):
                    return record, folder
        return None

    def _same_test(self, folder: Path) -> bool:
        try:
            theirs = read_dataset(folder / "data", ()).test
        except (RecordError, KeyError, TypeError):
            return False
        return theirs.fingerprint == read_dataset(self.store.folder / "data", ()).test.fingerprint

    def _copy(self, other: Store, record: Record) -> bool:
        """Copy everything, the record last; False where the other folder does not hold all of it."""
        key = record.spec.key
        with self.store.lock(key):
            if self.store.record_path(key).exists():
                return True
            if record.test:
                try:
                    predictions = other.predictions(key)
                except RecordError:
                    return False
                if len(predictions.ids) != record.spec.data["rows"]["test"]:
                    return False
                record_opening(read_dataset(self.store.folder / "data", ()).test.fingerprint, key)
                write_atomically(self.store.predictions_path(key), other.predictions_path(key).read_bytes())
            if self.keeps_models and is_kept(other, key):
                shutil.copytree(tuned_folder(other, key), tuned_folder(self.store, key), dirs_exist_ok=True)
            if self.keeps_snapshots and is_kept(other, key, snapshots=True):
                shutil.copytree(snapshot_folder(other, key), snapshot_folder(self.store, key), dirs_exist_ok=True)
            write_atomically(self.store.record_path(key), other.record_path(key).read_bytes())
        return True


def _record(store: Store, key: str) -> Record | None:
    """The record of a key; None where it is missing, broken or of another version."""
    try:
        return store.find(key)
    except RecordError:
        return None
