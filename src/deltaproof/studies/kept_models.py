"""The tuned models that a run folder keeps, with their data, one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deltaproof.backbones.backbone import Backbone
from deltaproof.data.dataset import Dataset
from deltaproof.data.run_folder import read_dataset
from deltaproof.data.split import Split
from deltaproof.errors import RecordError, nearest
from deltaproof.evaluation.predict import predict
from deltaproof.experiments.kept import tuned_folder
from deltaproof.experiments.run import load_for, use_threads
from deltaproof.methods import method_from
from deltaproof.methods.base import Method
from deltaproof.methods.tuned import Tuned
from deltaproof.metrics import METRICS, Metric
from deltaproof.records.record import Predictions, Record
from deltaproof.records.store import Store, write_json
from deltaproof.saving.folder import FACTS, load_tuned
from deltaproof.tasks.text import TextTask


@dataclass(frozen=True)
class KeptModel:
    """One final run whose tuned model stands on disk."""

    record: Record
    folder: Path

    @property
    def label(self) -> str:
        return self.record.spec.contestant

    @property
    def key(self) -> str:
        return self.record.spec.key

    @property
    def seed(self) -> int:
        return self.record.spec.seed

    @property
    def method(self) -> Method:
        return method_from(self.record.spec.method)

    def load(self, trust_remote_code: bool = False) -> tuple[Tuned, TextTask]:
        use_threads(self.record.spec)
        tuned, task, _ = load_tuned(self.folder, trust_remote_code)
        return tuned, task

    def load_base(self, trust_remote_code: bool = False) -> Backbone:
        """The model before training, its head included, as this run's seed started it."""
        return load_for(self.record.spec, trust_remote_code)


def kept_models(store: Store, contestants: Sequence[str] = ()) -> list[KeptModel]:
    """The kept models of the contestants named, of all when none is; in the plan's order, then by seed.

    Raises:
        RecordError: there is no such contestant, or nothing was kept.
    """
    entries = {entry["name"]: entry["final"] for entry in store.experiment()["contestants"]}
    wanted = [method_from(name).label for name in contestants] or list(entries)
    found = []
    for name in wanted:
        if name not in entries:
            raise RecordError(f"`{store.folder}` has no contestant `{name}`; {nearest(name, entries)}")
        for key in entries[name]:
            record, folder = store.find(key), tuned_folder(store, key)
            if record is not None and (folder / FACTS).exists():
                found.append(KeptModel(record, folder))
    if not found:
        raise RecordError(
            f"a study needs tuned models, `{store.folder}` kept none of {', '.join(wanted) or 'any contestant'}; run "
            f"the same `compare` again with `--keep all`"
        )
    return found


class Bed:
    """What every study of a run folder needs: its data, its deciding metric, and a way to ask a model."""

    def __init__(self, store: Store, device: torch.device) -> None:
        self.store, self.device = store, device
        self.experiment: dict[str, Any] = store.experiment()
        self.metric: Metric = METRICS[self.experiment["task"]["metrics"][0]]
        self.dataset: Dataset = read_dataset(store.folder / "data")

    def open_test(self, reader: str) -> Split:
        """The test rows; the look is entered in the ledger."""
        return self.dataset.test.open(reader)

    def answers(
        self, tuned: torch.nn.Module, task: TextTask, tokenizer: Any, split: Split, kept: KeptModel
    ) -> Predictions:
        """What a model answers for each row of a split, as in the final evaluation."""
        training = kept.record.spec.training
        outputs = predict(
            tuned.to(self.device), task, task.encode(tokenizer, split), tokenizer.pad_token_id,
            2 * training["batch_size"], training["precision"],
        )  # fmt: skip
        return Predictions(split.ids, split.groups, split.targets, outputs)

    def score(self, predictions: Predictions) -> float:
        return float(self.metric.score(predictions.targets, np.asarray(predictions.outputs)))

    def write(self, name: str, result: dict[str, Any]) -> Path:
        path = self.store.study_path(name)
        write_json(path, result)
        return path
