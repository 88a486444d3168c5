"""Text tasks: classification, regression and multi-label over single texts or pairs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deltaproof.backbones.tokenizing import pair_separator
from deltaproof.data.dataset import Dataset
from deltaproof.data.split import Split

WIDTHS = 4
"""Batches of training and evaluation are as many tokens wide as a multiple of this. In bf16 on a CPU, oneDNN makes code
of its own for every width that it sees, 26 milliseconds and 5 MB of it for a step of a small model."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a split; rows keep the split's order."""

    columns: dict[str, list[list[int]]]
    """What the tokenizer returns per row: `input_ids`, and `token_type_ids` where the model wants them."""
    targets: np.ndarray
    """(n, t), as in `Split`."""
    truncated_fraction: float
    """Share of rows that lost tokens to the maximum length."""

    def __len__(self) -> int:
        return len(self.columns["input_ids"])

    def take(self, rows: Sequence[int] | np.ndarray) -> "Encoded":
        """Some of the rows, in the order given."""
        columns = {key: [column[row] for row in rows] for key, column in self.columns.items()}
        return Encoded(columns, self.targets[np.asarray(rows)], self.truncated_fraction)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(row) for row in self.columns["input_ids"]], dtype=np.int64)


@dataclass(frozen=True)
class TextTask:
    """What is asked of a text model, and how its answer is scored."""

    kind: str
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    """The first decides."""
    max_length: int
    """Tokens per example, special tokens included; what is longer is cut."""
    target_mean: float = 0.0
    target_std: float = 1.0
    """Regression is trained on (target - mean) / std of the training split, so that one grid of learning rates serves
    any unit; answers are given in the user's unit."""

    @property
    def n_outputs(self) -> int:
        return len(self.labels) if self.labels else 1

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the examples. logits: (batch, n_outputs); targets: (batch, t) in the user's unit."""
        logits = logits.float()
        if self.kind == "classification":
            return F.cross_entropy(logits, targets[:, 0].long())
        if self.kind == "multilabel":
            return F.binary_cross_entropy_with_logits(logits, targets)
        return F.mse_loss(logits, (targets - self.target_mean) / self.target_std)

    def outputs(self, logits: Tensor) -> np.ndarray:
        """Probabilities, or values in the user's unit: (batch, n_outputs)."""
        logits = logits.cpu().double()
        if self.kind == "classification":
            answer = logits.softmax(-1)
        elif self.kind == "multilabel":
            answer = logits.sigmoid()
        else:
            answer = logits * self.target_std + self.target_mean
        return answer.numpy()

    def encode(self, tokenizer: Any, split: Split) -> Encoded:
        return self.encode_texts(tokenizer, split.texts, split.targets)

    def encode_texts(
        self, tokenizer: Any, texts: Sequence[tuple[str, ...]], targets: np.ndarray | None = None
    ) -> Encoded:
        """Token ids of single texts or pairs. A text without any token gets one, so that no row is empty.

        The texts of a pair are kept apart: tokenizers of decoders (GPT-2's, for one) put nothing between them.
        """
        firsts, seconds = [text[0] for text in texts], None
        if texts and len(texts[0]) == 2:
            separator = pair_separator(tokenizer)
            seconds = [separator + text[1] for text in texts]
        whole = tokenizer(firsts, seconds, truncation=False, verbose=False)
        too_long = [len(ids) > self.max_length for ids in whole["input_ids"]]
        if any(too_long):
            whole = tokenizer(firsts, seconds, truncation=True, max_length=self.max_length, verbose=False)
        columns = {key: whole[key] for key in ("input_ids", "token_type_ids") if key in whole}
        for row, ids in enumerate(columns["input_ids"]):
            if not ids:
                filler = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.eos_token_id or 0
                for key, column in columns.items():
                    column[row] = [filler if key == "input_ids" else 0]
        if targets is None:
            targets = np.full((len(texts), 1), np.nan)
        return Encoded(columns, targets, float(np.mean(too_long)) if too_long else 0.0)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "TextTask":
        labels = tuple(data["labels"]) if data["labels"] else None
        return cls(**{**data, "labels": labels, "metrics": tuple(data["metrics"])})


def task_for(dataset: Dataset, metrics: Sequence[str], max_length: int) -> TextTask:
    """The task that a data set asks for."""
    mean, std = 0.0, 1.0
    if dataset.kind == "regression":
        mean = float(dataset.train.targets.mean())
        std = float(dataset.train.targets.std()) or 1.0
    labels = tuple(dataset.labels) if dataset.labels else None
    return TextTask(dataset.kind, labels, tuple(metrics), max_length, mean, std)


def padded(n_tokens: int, most: int) -> int:
    """The width that so many tokens are padded to: a multiple of `WIDTHS`, but within `most`.

    >>> padded(29, 256), padded(29, 30), padded(29, 0)
    (32, 30, 29)
    """
    return max(n_tokens, min(most, -(-n_tokens // WIDTHS) * WIDTHS))


def collate(encoded: Encoded, rows: Sequence[int] | np.ndarray, pad_token_id: int, most: int = 0) -> dict[str, Tensor]:
    """Right-padded tensors of some rows, (rows, tokens): `input_ids`, `attention_mask`, perhaps `token_type_ids`.

    Args:
        most: tokens that there may be; where it is given, widths are few, see `padded`.
    """
    width = padded(max(len(encoded.columns["input_ids"][row]) for row in rows), most)
    batch = {}
    for key, column in encoded.columns.items():
        filler = pad_token_id if key == "input_ids" else 0
        batch[key] = torch.tensor([column[row] + [filler] * (width - len(column[row])) for row in rows])
    lengths = torch.tensor([len(encoded.columns["input_ids"][row]) for row in rows])
    batch["attention_mask"] = (torch.arange(width)[None, :] < lengths[:, None]).long()
    return batch
