"""White-box attack on token embeddings: projected gradient ascent in an l2 ball; one step of it is FGSM.

Source: Madry et al., 2018, arXiv:1706.06083; on embeddings: Miyato et al., 2017, arXiv:1605.07725, which also has the
one-step form in l2, after Goodfellow et al., 2015, arXiv:1412.6572.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

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
    until_wrong: bool = False,
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
        until_wrong: leave a row alone once its answer is wrong, the clean one included: which rows end up wrong is the
            same, for less work. Of no effect where answers are not one class.
    Raises:
        ConfigError: a negative epsilon, or no step.
    """
    if n_steps < 1 or n_starts < 1 or any(epsilon < 0 for epsilon in epsilons):
        raise ConfigError(
            f"`n_steps >= 1`, `n_starts >= 1` and `epsilon >= 0` must hold, got {n_steps}, {n_starts} and "
            f"{list(epsilons)}; 10 steps from 1 start are usual"
        )
    is_short = until_wrong and task.kind == "classification"
    attack = _Attack(task, sorted(set(epsilons)), n_steps, ball, n_starts, is_short, seed)

    def answers(size: int, device: torch.device) -> np.ndarray:
        outputs = np.zeros((len(attack.epsilons), len(encoded), task.n_outputs))
        for rows in evaluation_batches(encoded.lengths, size):
            made = collate(encoded, rows, pad_token_id, task.max_length)
            batch = {key: value.to(device) for key, value in made.items()}
            targets = torch.as_tensor(encoded.targets[rows], dtype=torch.float32, device=device)
            with embedding_offset(model) as offset, autocast(device, precision):
                outputs[:, rows] = attack.on(model, offset, batch, targets, rows)
        return outputs

    found = in_evaluation(model, batch_size, answers)
    return {epsilon: found[attack.epsilons.index(epsilon)] for epsilon in epsilons}


@dataclass(frozen=True)
class _Attack:
    """The settings of an attack, and its course on one batch."""

    task: TextTask
    epsilons: list[float]
    n_steps: int
    ball: Ball
    n_starts: int
    until_wrong: bool
    seed: int

    @property
    def dims(self) -> tuple[int, ...]:
        return (1, 2) if self.ball == "sequence" else (2,)

    def on(
        self, model: nn.Module, offset: Offset, batch: dict[str, Tensor], targets: Tensor, rows: np.ndarray
    ) -> np.ndarray:
        """(epsilons, rows, n_outputs)"""
        point = _Points(self, model, offset, batch, targets, rows)
        answers = []
        for epsilon in self.epsilons:
            for start in range(self.n_starts if epsilon else 0):
                point.climb(start, epsilon)
            answers.append(self.task.outputs(point.logits))
        return np.stack(answers)


class _Points:
    """The worst point found for each row of a batch so far, and the way to worse ones."""

    def __init__(
        self, attack: _Attack, model: nn.Module, offset: Offset, batch: dict[str, Tensor], targets: Tensor,
        rows: np.ndarray,
    ) -> None:  # fmt: skip
        self.attack, self.model, self.offset, self.batch, self.targets = attack, model, offset, batch, targets
        self.rows = rows
        with torch.no_grad():
            self.logits = model(**batch).logits.float()
        self.loss = _loss(attack.task, self.logits, targets)
        assert offset.vectors is not None, "the model calls its token embedding"
        self.vectors = offset.vectors
        self.real = batch["attention_mask"][..., None].to(self.vectors.dtype)
        self.size = (self.vectors * self.real).norm(dim=attack.dims, keepdim=True).float()
        self.centre_slopes: Tensor | None = None
        """At the clean points, where the first start of every radius begins."""

    def climb(self, start: int, epsilon: float) -> None:
        """Take the steps of one start in one ball, and keep what is worse than anything before."""
        attack = self.attack
        going = self.left(torch.arange(len(self.loss), device=self.loss.device))
        if not len(going):
            return
        delta = self.start(start)[going] * epsilon * self.size[going]
        for step in range(attack.n_steps):
            slopes = self.slopes_at_centre()[going] if start == step == 0 else self.visit(going, delta, True)
            still = self.left(going)
            if not len(still):
                return
            kept = torch.isin(going, still)
            going, delta, slopes = still, delta[kept], slopes[kept]
            radius = epsilon * self.size[going]
            length = radius if attack.n_steps == 1 else STEP / attack.n_steps * radius
            direction = _unit(slopes * self.real[going], attack.dims)
            delta = _into_ball(delta + length * direction, radius, attack.dims)
        self.visit(going, delta, False)

    def left(self, rows: Tensor) -> Tensor:
        """Those of the rows that are attacked still."""
        return rows[self.loss[rows] <= 0] if self.attack.until_wrong else rows

    def slopes_at_centre(self) -> Tensor:
        if self.centre_slopes is None:
            everywhere = torch.arange(len(self.loss), device=self.loss.device)
            rows = self.left(everywhere)
            self.centre_slopes = torch.zeros(self.vectors.shape, dtype=torch.float32, device=self.vectors.device)
            self.centre_slopes[rows] = self.visit(rows, torch.zeros_like(self.centre_slopes[rows]), True)
        return self.centre_slopes

    def visit(self, rows: Tensor, delta: Tensor, with_slopes: bool) -> Tensor:
        """Ask the model at these points, keep the worse ones, and return the slopes there (or nothing of them)."""
        batch = {key: value[rows] for key, value in self.batch.items()}
        self.offset.value = delta.detach().requires_grad_(with_slopes)
        try:
            with torch.set_grad_enabled(with_slopes), _attention(delta.device, with_slopes):
                logits = self.model(**batch).logits.float()
                loss = _loss(self.attack.task, logits, self.targets[rows])
                slopes = torch.autograd.grad(loss.sum(), self.offset.value)[0] if with_slopes else delta
        finally:
            self.offset.value = None
        is_worse = loss.detach() > self.loss[rows]
        self.loss[rows] = torch.where(is_worse, loss.detach(), self.loss[rows])
        self.logits[rows] = torch.where(is_worse[:, None], logits.detach(), self.logits[rows])
        return slopes

    def start(self, start: int) -> Tensor:
        """The centre of the unit ball, or a random point in it: the row's own, whatever its batch."""
        point = torch.zeros(self.vectors.shape)
        if start:
            for at, row in enumerate(self.rows):
                n_tokens = int(self.batch["attention_mask"][at].sum())
                chance = generator(self.attack.seed, "pgd", start, int(row))
                length = torch.rand(1, generator=chance)
                direction = torch.randn(1, n_tokens, self.vectors.shape[2], generator=chance)
                point[at, :n_tokens] = length * _unit(direction, self.attack.dims)[0]
        return point.to(self.vectors.device)


def _attention(device: torch.device, with_slopes: bool) -> AbstractContextManager[None]:
    """Attention by its plain formula where slopes are reckoned on a CPU: the fused kernel's backward pass in bf16 took
    most of the attack's time there (torch 2.13)."""
    is_plain = with_slopes and device.type == "cpu"
    return sdpa_kernel(SDPBackend.MATH) if is_plain else nullcontext()


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
