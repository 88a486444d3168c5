"""A tiny model and a few texts, made anew for every check."""

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from deltaproof.backbones import Backbone, tiny_backbone
from deltaproof.methods.base import Method
from deltaproof.methods.tuned import Tuned, attach

TEXTS = ("a good film", "a bad film with a bad story", "the quick brown fox", "does this text describe that function ?")
TARGETS = (0, 1, 0, 1)


@dataclass(frozen=True)
class Bench:
    """Where a method is tried: a random model of one family, and four texts with labels."""

    family: str = "bert"

    def backbone(self) -> Backbone:
        """A fresh model, the same bits every time."""
        made = _made(self.family)
        return replace(made, model=copy.deepcopy(made.model), notes=list(made.notes))

    def batch(self, backbone: Backbone) -> dict[str, Tensor]:
        tokens = backbone.tokenizer(list(TEXTS), padding=True, return_tensors="pt")
        device = next(backbone.model.parameters()).device
        return {key: value.to(device) for key, value in tokens.items()}

    @torch.no_grad()
    def answers(self, tuned: Tuned) -> Tensor:
        """Logits in evaluation mode, (4, 2)."""
        logits: Tensor = tuned.eval()(**self.batch(tuned.backbone)).logits
        return logits.clone()

    def loss(self, tuned: Tuned) -> Tensor:
        logits = tuned(**self.batch(tuned.backbone)).logits.float()
        return F.cross_entropy(logits, torch.tensor(TARGETS, device=logits.device))

    def objective(self, tuned: Tuned) -> Tensor:
        """The loss with what the method adds to it, a scalar: what a step of training goes down."""
        loss = self.loss(tuned)
        penalties = [edit.penalty() for _, edit in tuned.placed()]
        return loss + sum(penalty for penalty in penalties if penalty is not None)

    def train(self, tuned: Tuned, n_steps: int, learning_rate: float) -> None:
        """A few steps of AdamW, as the training loop takes them."""
        optimizer = torch.optim.AdamW(tuned.trained().values(), lr=learning_rate)
        with deterministic_dropout():
            for _, edit in tuned.placed():
                edit.begin(n_steps)
            self.take_steps(tuned, optimizer, range(n_steps))

    def take_steps(self, tuned: Tuned, optimizer: torch.optim.Optimizer, steps: range) -> None:
        """The steps of these numbers, of a training that has begun."""
        tuned.train()
        for step in steps:
            self.objective(tuned).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            for _, edit in tuned.placed():
                edit.after_step(step)
            tuned.zero_grad(set_to_none=True)

    def tuned(self, method: Method, seed: int = 0, n_steps: int = 3) -> Tuned:
        """The method on a fresh model, some steps away from its start."""
        tuned = attach(self.backbone(), method, seed)
        self.train(tuned, n_steps, learning_rate=1e-2)
        return tuned.eval()


@functools.cache
def _made(family: str) -> Backbone:
    return tiny_backbone(family)


@contextmanager
def deterministic_dropout() -> Iterator[None]:
    """Draw the same masks every time, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
