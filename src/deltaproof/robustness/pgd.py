"""White-box attack on token embeddings: projected gradient ascent in an l2 ball; one step of it is FGSM.

Source: Madry et al., 2018, arXiv:1706.06083; on embeddings: Miyato et al., 2017, arXiv:1605.07725, which also has the
one-step form in l2, after Goodfellow et al., 2015, arXiv:1412.6572.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from deltaproof.errors import ConfigError
from deltaproof.evaluation.predict import autocast, in_evaluation
from deltaproof.robustness.embeddings import Offset, embedding_offset
from deltaproof.seeding import generator
from deltaproof.tasks.batches import evaluation_batches
from deltaproof.tasks.text import Encoded, TextTask, collate

Ball = Literal["sequence", "token"]
STEP = 2.5
"""A step's length is 2.5 * radius / n_steps, so that the border is reached from anywhere. Source: Madry et al., 2018,
app. of the MNIST experiments."""


def pgd(
    model: nn.Module,
    task: TextTask,
    encoded: Encoded,
    pad_token_id: int,
    epsilons: Sequence[float],
    *,
    n_steps: int = 10,
    ball: Ball = "sequence",
    n_starts: int = 1,
    seed: int = 0,
    batch_size: int = 32,
    precision: str = "fp32",
) -> dict[float, np.ndarray]:
    """The answers at the worst point found in each ball, (n, n_outputs) by epsilon, rows in their order.

    The loss that rises is the margin by which the best wrong class leads, which unlike cross-entropy has a slope where
    the model is sure; for other kinds of task the task's own. Every token but padding is attacked. A point found in a
    smaller ball lies in the larger ones too, so the loss never falls with epsilon. Epsilon 0 gives `predict`'s answers
    at the same batch size, to the bit.

    Args:
        model: a `Tuned`, or any model with a token embedding.
        epsilons: radii as shares of the embeddings' own l2 norm, such as 0.1: of all the row's tokens together with
            `ball="sequence"`, of each token by itself with `ball="token"`.
        n_steps: gradient steps; 1 is FGSM, a step to the border along the gradient.
        n_starts: the first start is the clean point, further ones are random (`seed`).
    Raises:
        ConfigError: a negative epsilon, or no step.
    """
    if n_steps < 1 or n_starts < 1 or any(epsilon < 0 for epsilon in epsilons):
        raise ConfigError(
            f"`n_steps >= 1`, `n_starts >= 1` and `epsilon >= 0` must hold, got {n_steps}, {n_starts} and "
            f"{list(epsilons)}; 10 steps from 1 start are usual"
        )
    attack = _Attack(task, sorted(set(epsilons)), n_steps, ball, n_starts, seed)

    def answers(size: int, device: torch.device) -> np.ndarray:
        outputs = np.zeros((len(attack.epsilons), len(encoded), task.n_outputs))
        for rows in evaluation_batches(encoded.lengths, size):
            batch = {key: value.to(device) for key, value in collate(encoded, rows, pad_token_id).items()}
            targets = torch.as_tensor(encoded.targets[rows], dtype=torch.float32, device=device)
            with embedding_offset(model) as offset, autocast(device, precision):
                outputs[:, rows] = attack.on(model, offset, batch, targets, rows)
        return outputs

    found = in_evaluation(model, batch_size, answers)
    return {epsilon: found[attack.epsilons.index(epsilon)] for epsilon in epsilons}


class _Attack:
    """The settings of an attack, and its course on one batch."""

    def __init__(
        self, task: TextTask, epsilons: list[float], n_steps: int, ball: Ball, n_starts: int, seed: int
    ) -> None:
        self.task = task
        self.epsilons = epsilons
        self.n_steps = n_steps
        self.dims = (1, 2) if ball == "sequence" else (2,)
        self.n_starts = n_starts
        self.seed = seed

    def on(
        self, model: nn.Module, offset: Offset, batch: dict[str, Tensor], targets: Tensor, rows: np.ndarray
    ) -> np.ndarray:
        """(epsilons, rows, n_outputs)"""
        with torch.no_grad():
            worst_logits = model(**batch).logits.float()
        worst = _loss(self.task, worst_logits, targets)
        assert offset.vectors is not None, "the model calls its token embedding"
        real = batch["attention_mask"][..., None].to(offset.vectors.dtype)
        size = (offset.vectors * real).norm(dim=self.dims, keepdim=True).float()
        answers = []
        for epsilon in self.epsilons:
            for start in range(self.n_starts if epsilon else 0):
                delta = self._start(start, rows, batch["attention_mask"], offset.vectors) * epsilon * size
                for step in range(self.n_steps + 1):
                    delta.requires_grad_(step < self.n_steps)
                    offset.value = delta
                    with torch.set_grad_enabled(step < self.n_steps):
                        logits = model(**batch).logits.float()
                        loss = _loss(self.task, logits, targets)
                    worse = loss.detach() > worst
                    worst = torch.where(worse, loss.detach(), worst)
                    worst_logits = torch.where(worse[:, None], logits.detach(), worst_logits)
                    if step < self.n_steps:
                        (slope,) = torch.autograd.grad(loss.sum(), delta)
                        delta = self._ascend(delta.detach(), slope * real, epsilon * size)
            offset.value = None
            answers.append(self.task.outputs(worst_logits))
        return np.stack(answers)

    def _ascend(self, delta: Tensor, slope: Tensor, radius: Tensor) -> Tensor:
        """A step of steepest ascent, and back into the ball."""
        length = radius if self.n_steps == 1 else STEP / self.n_steps * radius
        return _into_ball(delta + length * _unit(slope, self.dims), radius, self.dims)

    def _start(self, start: int, rows: np.ndarray, mask: Tensor, vectors: Tensor) -> Tensor:
        """The centre of the unit ball, or a random point in it: the row's own, whatever its batch."""
        point = torch.zeros(vectors.shape)
        if start:
            for at, row in enumerate(rows):
                n_tokens, chance = int(mask[at].sum()), generator(self.seed, "pgd", start, int(row))
                length = torch.rand(1, generator=chance)
                direction = torch.randn(1, n_tokens, vectors.shape[2], generator=chance)
                point[at, :n_tokens] = length * _unit(direction, self.dims)[0]
        return point.to(vectors.device)


def _loss(task: TextTask, logits: Tensor, targets: Tensor) -> Tensor:
    """What the attack raises, one value per row: for classes, positive exactly where the answer is wrong."""
    if task.kind != "classification":
        return torch.stack([task.loss(logits[row : row + 1], targets[row : row + 1]) for row in range(len(logits))])
    truth = nn.functional.one_hot(targets[:, 0].long(), logits.shape[1]).bool()
    return logits.masked_fill(truth, -torch.inf).amax(1) - logits[truth]


def _unit(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """x at length 1; zero stays zero."""
    length: Tensor = x.norm(dim=dims, keepdim=True)
    return x / length.clamp_min(torch.finfo(x.dtype).tiny)


def _into_ball(x: Tensor, radius: Tensor, dims: tuple[int, ...]) -> Tensor:
    length: Tensor = x.norm(dim=dims, keepdim=True)
    return x * (radius / length.clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(1)
