"""A tuned model at hand with its validation rows: what a compressed update scores, before and after."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltaproof.compression.container import Compressed
from deltaproof.compression.model_source import ModelSource
from deltaproof.compression.restore import restored
from deltaproof.compression.source import Source
from deltaproof.compression.tuned_source import Start, TunedSource
from deltaproof.data.run_folder import read_dataset
from deltaproof.data.split import Split
from deltaproof.errors import DataError
from deltaproof.evaluation.predict import predict
from deltaproof.methods.tuned import Tuned
from deltaproof.metrics import METRICS, Metric
from deltaproof.saving.folder import facts_of, load_tuned
from deltaproof.tasks.text import Encoded, TextTask


class Trial:
    """Scores updates on validation, in the model that they are of. The test split stays sealed."""

    def __init__(
        self, source: Source, tuned: Tuned, task: TextTask, spec: dict[str, Any], rows: Encoded, device: torch.device
    ) -> None:
        self.source, self.tuned, self.task = source, tuned.to(device), task
        self.metric: Metric = METRICS[task.metrics[0]]
        self._rows, self._training = rows, spec["training"]
        self._parts = {part.name: part for part in source.parts}

    def before(self) -> float:
        """The score of the tuned model as it is."""
        return self.score((part.name, self.source.tensor(part)) for part in self.source.parts)

    def after(self, compressed: Compressed) -> float:
        """The score of the model with the compressed update in place of its own."""
        self.put_compressed(compressed)
        return self.here()

    def score(self, tensors: Iterable[tuple[str, Tensor]]) -> float:
        """The score with these tensors, by name, in place of the tuned ones."""
        self.put(tensors)
        return self.here()

    def choose_on(self, rows: Split) -> None:
        """Score on these rows from now on."""
        self._rows = self.task.encode(self.tuned.backbone.tokenizer, rows)

    def here(self) -> float:
        """The score with the tensors that stand in the model now."""
        return float(self.metric.score(self._rows.targets, self.answers(self._rows)))

    def put(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """These tensors, by name, in place of the tuned ones."""
        if isinstance(self.source, TunedSource):
            self.tuned.load_state(dict(tensors))
        else:
            own = {
                **dict(self.tuned.backbone.model.named_parameters()),
                **dict(self.tuned.backbone.model.named_buffers()),
            }
            with torch.no_grad():
                for name, tensor in tensors:
                    own[name].copy_(tensor)

    def answers(self, rows: Encoded) -> np.ndarray:
        """What the model answers with the tensors that stand in it now, as in the final evaluation."""
        pad, batch_size = self.tuned.backbone.tokenizer.pad_token_id, 2 * self._training["batch_size"]
        return np.asarray(predict(self.tuned, self.task, rows, pad, batch_size, self._training["precision"]))

    def put_compressed(self, compressed: Compressed) -> None:
        """The compressed update in place of the tuned one."""
        self.put((name, restored(entry, self._start)) for name, entry in compressed.entries.items())

    def _start(self, name: str) -> Tensor:
        part = self._parts[name]
        start = self.source.base(part) if part.start is None else self.source.start(part)
        assert start is not None
        return start


def open_trial(
    folder: Path,
    start: Start = "init",
    base: str | None = None,
    embeddings: bool = False,
    trust_remote_code: bool = False,
    device: torch.device | None = None,
    with_scores: bool = True,
) -> tuple[Source, Trial | None]:
    """A tuned model that `train` or `compare` saved, as an update, and what scores it if its run's data lie beside it.

    Without scores a fully tuned model is read tensor by tensor and never as a whole.
    """
    data = folder.resolve().parent.parent / "data"
    with_scores = with_scores and (data / "dataset.json").is_file()
    task, spec = facts_of(folder)
    is_full = spec["method"]["name"] == "full"
    source: Source | None = ModelSource(folder, base, embeddings) if is_full else None
    if source is not None and not with_scores:
        return source, None
    tuned, task, spec = load_tuned(folder, trust_remote_code, base)
    source = source or TunedSource(tuned, task, spec, start)
    if not with_scores:
        return source, None
    dataset = read_dataset(data, ["validation"])
    if dataset.fingerprint != spec["data"].get("fingerprint"):
        raise DataError(
            f"`{data}` must hold the data that `{folder}` was tuned on (fingerprint "
            f"{spec['data'].get('fingerprint')}), got "
            f"{dataset.fingerprint}; copy run folders whole"
        )
    if "threads" in spec["training"]:
        torch.set_num_threads(spec["training"]["threads"])  # it decides the last bits of a sum, as in the run
    rows = task.encode(tuned.backbone.tokenizer, dataset.validation)
    return source, Trial(source, tuned, task, spec, rows, device or torch.device("cpu"))
