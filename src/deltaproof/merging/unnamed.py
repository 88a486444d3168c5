"""The task of an expert that others made, from what its folder tells: labels by name, or by number alone."""

from pathlib import Path
from typing import Any

import torch

from deltaproof.backbones.quiet import quiet
from deltaproof.errors import RecordError
from deltaproof.methods.counting import backbone_without_weights
from deltaproof.metrics import default_metrics
from deltaproof.tasks.text import TextTask
from deltaproof.theory.checkpoints import read_json_file

_MARK = 1013
"""A number of labels that no width of a model equals."""
MAX_LENGTH = 128
"""Tokens per text where nothing says how many training took."""
NO_NAME = "LABEL_{}"
"""What transformers calls an output that nobody named."""
_KINDS = {"regression": "regression", "multi_label_classification": "multilabel"}


def task_of(path: Path, kind: str, base: Path, values: Any) -> TextTask:
    """What an expert without deltaproof's facts answers.

    Args:
        kind: as in `ExpertSource`.
        base: the base model's folder.
        values: the expert's tensors by name.
    Raises:
        RecordError: it has no head that could be told.
    """
    config = read_json_file(path / "config.json") if kind == "model" else {}
    n_outputs = _n_outputs(base, values)
    if n_outputs is None:
        raise RecordError(
            f"an expert must bring the head of a sequence classifier, `{path}` has none; save it again with its head"
        )
    names = {str(key): str(value) for key, value in (config.get("id2label") or {}).items()}
    labels = tuple(names.get(str(at), NO_NAME.format(at)) for at in range(n_outputs))
    asked = _KINDS.get(str(config.get("problem_type")), "regression" if n_outputs == 1 else "classification")
    if asked == "regression":
        return TextTask("regression", None, tuple(default_metrics("regression")), MAX_LENGTH)
    return TextTask(asked, labels, tuple(default_metrics(asked)), MAX_LENGTH)


def _n_outputs(base: Path, values: Any) -> int | None:
    """Rows of the expert's tensor whose rows are labels in a classifier on this base."""
    with torch.device("meta"), quiet():
        model = backbone_without_weights(base, _MARK).model
    for name, parameter in model.named_parameters():
        if parameter.shape[0] == _MARK and (found := values(name)) is not None:
            return int(found.shape[0])
    return None
