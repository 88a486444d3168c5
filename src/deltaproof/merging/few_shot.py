"""A head for a new task from a few labelled rows: the model's features stay as they are, a linear map is fitted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.head import output_parameters
from deltaproof.errors import BackboneError
from deltaproof.evaluation.predict import autocast, in_evaluation
from deltaproof.seeding import sub_seed
from deltaproof.tasks.batches import evaluation_batches
from deltaproof.tasks.text import Encoded, TextTask, collate

N_FOLDS = 5
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
"""On the squares of the map's weights, of standardised features; the folds choose. Few rows and hundreds of features
need a large one, else the map is sure of what it cannot know."""


def output_map(backbone: Backbone, n_outputs: int) -> str:
    """The path of the last linear map, whose rows are the labels.

    Raises:
        BackboneError: there is none.
    """
    names = output_parameters(backbone.model, n_outputs)
    if not names:
        raise BackboneError(
            f"a head that can be fitted ends in a linear map to {n_outputs} outputs, `{backbone.name}` has none; give "
            f"an expert of the same labels"
        )
    return sorted(names)[0].rpartition(".")[0]


@torch.inference_mode()
def features(backbone: Backbone, path: str, encoded: Encoded, batch_size: int, precision: str = "fp32") -> np.ndarray:
    """What goes into the last linear map for each row, (rows, width), one vector per text."""

    def read(size: int, device: torch.device) -> np.ndarray:
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for rows in evaluation_batches(encoded.lengths, size):
            batch = collate(encoded, rows, backbone.tokenizer.pad_token_id)
            with autocast(device, precision):
                answer = backbone.model(**{name: value.to(device) for name, value in batch.items()}).logits
            found.append((rows, answer.float().cpu().numpy()))
        result = np.zeros((len(encoded), found[0][1].shape[1]))
        for rows, values in found:
            result[rows] = values
        return result

    with _without_map(backbone.model, path):
        return in_evaluation(backbone.model, batch_size, read)


@contextmanager
def _without_map(model: nn.Module, path: str) -> Iterator[None]:
    """Let the model answer with what its last map is given: decoders pick their last token after that map."""
    own = model.get_submodule(path)
    model.set_submodule(path, nn.Identity())
    try:
        yield
    finally:
        model.set_submodule(path, own)


def fitted(
    task: TextTask, inputs: np.ndarray, targets: np.ndarray, has_bias: bool, penalty: float = PENALTIES[0]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n_outputs, width) and biases (n_outputs,) of the map that answers these rows best.

    Logistic regression, one per label where several may hold, ridge regression for values; features are standardised
    first where the map has a bias to take their means up.

    Args:
        inputs: (rows, width).
        targets: (rows, t), as in `Split`.
        penalty: half of it times the squared length of the weights is added to the summed loss (all of it for values).
    """
    mean = inputs.mean(axis=0) if has_bias else np.zeros(inputs.shape[1])
    spread = inputs.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    scaled = (inputs - mean) / spread
    if task.kind == "regression":
        weights, biases = _ridge(scaled, (targets[:, 0] - task.target_mean) / task.target_std, has_bias, penalty)
    elif task.kind == "multilabel":
        each = [_binary(scaled, targets[:, at].astype(int), has_bias, penalty) for at in range(task.n_outputs)]
        weights, biases = np.stack([one[0] for one in each]), np.array([one[1] for one in each])
    else:
        weights, biases = _classes(scaled, targets[:, 0].astype(int), task.n_outputs, has_bias, penalty)
    weights = weights / spread
    return weights, biases - weights @ mean


def _classes(
    inputs: np.ndarray, classes: np.ndarray, n: int, has_bias: bool, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(classes)
    weights, biases = np.zeros((n, inputs.shape[1])), np.zeros(n)
    if len(seen) == 1:
        biases[:] = np.log(0.5 / len(inputs)) if has_bias else 0.0
        biases[seen[0]] = 0.0
        return weights, biases
    model = LogisticRegression(C=1 / penalty, max_iter=1000, fit_intercept=has_bias).fit(inputs, classes)
    slopes, starts = model.coef_, np.broadcast_to(model.intercept_, (len(model.coef_),))
    if len(seen) == 2:  # scikit-learn gives the second against the first
        slopes, starts = np.stack([-slopes[0] / 2, slopes[0] / 2]), np.array([-starts[0] / 2, starts[0] / 2])
    if has_bias:  # a label that no row has is as likely as half a row would make it
        biases[:] = np.logaddexp.reduce(starts) + np.log(0.5 / len(inputs))
    weights[seen], biases[seen] = slopes, starts
    return weights, biases


def _binary(inputs: np.ndarray, holds: np.ndarray, has_bias: bool, penalty: float) -> tuple[np.ndarray, float]:
    from sklearn.linear_model import LogisticRegression

    if holds.min() == holds.max():
        return np.zeros(inputs.shape[1]), (4.0 if holds[0] else -4.0) if has_bias else 0.0
    model = LogisticRegression(C=1 / penalty, max_iter=1000, fit_intercept=has_bias).fit(inputs, holds)
    return model.coef_[0], float(model.intercept_[0]) if has_bias else 0.0


def _ridge(inputs: np.ndarray, values: np.ndarray, has_bias: bool, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """(X^T X + p I)^-1 X^T (y - mean y), in closed form; through the small of the two Gram matrices."""
    start = values.mean() if has_bias else 0.0
    gram = inputs @ inputs.T + penalty * np.eye(len(inputs))
    slopes = inputs.T @ np.linalg.solve(gram, values - start)
    return slopes[None, :], np.array([start])


@torch.no_grad()
def seat(backbone: Backbone, path: str, weights: np.ndarray, biases: np.ndarray) -> None:
    """Put a fitted map into the model."""
    module: Any = backbone.module(path)
    module.weight.copy_(torch.from_numpy(weights).to(module.weight))
    if module.bias is not None:
        module.bias.copy_(torch.from_numpy(biases).to(module.bias))


def losses(task: TextTask, logits: np.ndarray, targets: np.ndarray) -> float:
    """The task's mean loss of logits, (rows, n_outputs)."""
    return float(task.loss(torch.from_numpy(logits), torch.from_numpy(targets).float()))


def best_penalty(
    task: TextTask, inputs: np.ndarray, targets: np.ndarray, has_bias: bool, seed: int
) -> tuple[float, float]:
    """Of `PENALTIES` the one of least loss over folds, and that loss."""
    found = [(held_out_loss(task, inputs, targets, has_bias, seed, penalty), penalty) for penalty in PENALTIES]
    loss, penalty = min(found)
    return penalty, loss


def held_out_loss(
    task: TextTask, inputs: np.ndarray, targets: np.ndarray, has_bias: bool, seed: int, penalty: float = PENALTIES[0]
) -> float:
    """The loss of a fitted map on rows that it was not fitted on, over five folds.

    On its own rows a map of hundreds of weights answers dozens of rows whatever the features are.
    """
    order = np.random.default_rng(sub_seed(seed, "folds")).permutation(len(inputs))
    if task.kind == "classification":  # each class over all folds
        order = order[np.argsort(targets[order, 0], kind="stable")]
    fold = np.empty(len(inputs), dtype=int)
    fold[order] = np.arange(len(inputs)) % min(N_FOLDS, len(inputs))
    logits = np.zeros((len(inputs), task.n_outputs))
    for at in np.unique(fold):
        rest, own = fold != at, fold == at
        weights, biases = fitted(task, inputs[rest], targets[rest], has_bias, penalty)
        logits[own] = inputs[own] @ weights.T + biases
    return losses(task, logits, targets)
