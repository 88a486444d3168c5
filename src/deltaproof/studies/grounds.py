"""Run folders on whose data merges are scored, with the model that answers there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deltaproof.data.dataset import Dataset
from deltaproof.data.run_folder import read_dataset
from deltaproof.data.split import Split
from deltaproof.data.splits import nested_sample, quantile_bins, row_keys
from deltaproof.errors import ConfigError
from deltaproof.evaluation.predict import predict
from deltaproof.merging.sources import ExpertSource
from deltaproof.metrics import METRICS, Metric
from deltaproof.records.record import Predictions
from deltaproof.records.store import Store, read_json
from deltaproof.tasks.text import TextTask

BATCH_SIZE = 64
"""Where no run says how many rows go through a model at a time."""
_UP = 3
"""How many folders above a file a run folder may lie."""


@dataclass
class Ground:
    """One run folder: its data, its deciding metric, and which of the experts were tuned there."""

    store: Store
    members: list[int] = field(default_factory=list)
    """Which experts, by their place."""
    experiment: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.experiment = self.experiment or self.store.experiment()
        self.task = TextTask.from_json(self.experiment["task"])
        self.metric: Metric = METRICS[self.task.metrics[0]]
        self.training: dict[str, Any] = {
            "batch_size": BATCH_SIZE // 2, "precision": self.experiment.get("precision") or "fp32",
        }  # fmt: skip
        self._dataset: Dataset | None = None

    @property
    def name(self) -> str:
        return self.store.folder.resolve().name

    @property
    def dataset(self) -> Dataset:
        """Read once."""
        if self._dataset is None:
            self._dataset = read_dataset(self.store.folder / "data")
        return self._dataset

    @property
    def fingerprint(self) -> str:
        return str(self.experiment["data"]["fingerprint"])

    def use(self, source: ExpertSource) -> None:
        """Answer as this expert's final run did: its batch size, its precision, its threads."""
        if source.spec is not None:
            named = ("batch_size", "precision", "threads", "device")
            self.training |= {name: source.spec["training"][name] for name in named if name in source.spec["training"]}

    def answers(self, model: nn.Module, task: TextTask, tokenizer: Any, split: Split) -> Predictions:
        """What a model answers for each row of a split, as in a final evaluation."""
        if "threads" in self.training:
            torch.set_num_threads(self.training["threads"])
        outputs = predict(
            model, task, task.encode(tokenizer, split), tokenizer.pad_token_id, 2 * self.training["batch_size"],
            self.training["precision"],
        )  # fmt: skip
        return Predictions(split.ids, split.groups, split.targets, outputs)

    def scores(self, answers: Predictions) -> dict[str, float]:
        """Each metric of the task."""
        outputs = np.asarray(answers.outputs)
        return {name: float(METRICS[name].score(answers.targets, outputs)) for name in self.task.metrics}

    def score(self, answers: Predictions) -> float:
        """The deciding metric."""
        return float(self.metric.score(answers.targets, np.asarray(answers.outputs)))


def find_grounds(sources: Sequence[ExpertSource], runs: Sequence[Path] = ()) -> list[Ground]:
    """The run folders of the experts: those that they lie in, or of those named the one with the same data.

    Raises:
        ConfigError: a folder that is named has the data of no expert.
        RecordError: it is no run folder.
    """
    named = [Ground(Store(folder)) for folder in runs]
    found: dict[Path, Ground] = {}
    for at, source in enumerate(sources):
        ground = _around(source) or next((one for one in named if _is_of(source, one)), None)
        if ground is None:
            continue
        ground = found.setdefault(ground.store.folder.resolve(), ground)
        if not ground.members:
            ground.use(source)
        ground.members.append(at)
    for ground in named:
        if ground.store.folder.resolve() not in found:
            raise ConfigError(
                f"`--run` must name a run folder with the data that an expert was tuned on, `{ground.store.folder}` "
                f"has other data (fingerprint {ground.fingerprint}); leave it out, or take `--for` to compose for it"
            )
    return list(found.values())


def _around(source: ExpertSource) -> Ground | None:
    """The run folder that an expert lies in."""
    for folder in list(source.path.parents)[:_UP]:
        is_run = (folder / "data" / "dataset.json").is_file() and (folder / "experiment.json").is_file()
        if is_run and source.spec is not None:
            held = read_json(folder / "data" / "dataset.json")["fingerprint"]
            if held == source.spec["data"].get("fingerprint"):
                return Ground(Store(folder))
    return None


def _is_of(source: ExpertSource, ground: Ground) -> bool:
    """Whether an expert was tuned on this data; of one that does not say, whether it answers by the same labels."""
    if source.spec is not None:
        return bool(source.spec["data"].get("fingerprint") == ground.fingerprint)
    return source.task is not None and source.task.labels == ground.task.labels


def drawn_by_class(split: Split, kind: str, n_rows: int | None, seed: int, purpose: str) -> Split:
    """Some rows of a split, drawn by class: a smaller draw is part of a larger one."""
    if n_rows is None or n_rows >= len(split):
        return split
    if kind == "classification":
        present = split.targets == np.unique(split.targets)
    else:
        present = split.targets > 0 if kind == "multilabel" else quantile_bins(split.targets[:, 0])
    return split.take(nested_sample(present, row_keys(split.texts, seed, purpose), n_rows))


Say = Callable[[str], None]
