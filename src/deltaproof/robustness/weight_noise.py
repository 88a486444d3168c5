"""Gaussian noise on weights: W + s ||W||_F / sqrt(m n) N(0, 1), put in and taken out again to the byte.

Three questions that are easily mixed up, each with a name of its own in `QUESTIONS`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from deltaproof.backbones.sites import bias_of, weight_of
from deltaproof.errors import ConfigError, nearest
from deltaproof.methods.edits import ModelEdit, WeightEdit
from deltaproof.methods.tuned import Tuned
from deltaproof.seeding import generator

Question = Literal["all", "trained", "equal_norm"]
QUESTIONS: dict[Question, str] = {
    "all": "noise on every weight in proportion to the weight: does the whole model stand noise?",
    "trained": "noise on what was trained, in proportion to it: does what was learnt stand noise?",
    "equal_norm": "noise of one length, the same for every method, on what was trained: who has room for noise?",
}


Changes = dict[str, tuple[Tensor, Tensor]]
"""Name to a weight that edits were folded into, and its change."""
_Chosen = tuple[str, Tensor, Tensor]
"""Name of a weight that gets noise, the weight, and how large a number of the noise of size 1 is."""


@dataclass(frozen=True)
class Noise:
    """What was put in."""

    question: Question
    size: float
    """s, or the length for `equal_norm`."""
    frobenius_norm: float
    """Length of all the noise together."""
    n_weights: int
    """How many numbers got noise."""


@dataclass(frozen=True, eq=False)
class _Noisy:
    """A weight that gets noise, its values without, and one draw of noise of size 1."""

    weight: Tensor
    clean: Tensor
    noise: Tensor


class Disturbed:
    """A model whose weights stand ready for noise of one draw, of any size."""

    def __init__(self, label: str, question: Question, noisy: Sequence[_Noisy]) -> None:
        self.label, self.question = label, question
        self._noisy = noisy

    @cached_property
    def length(self) -> float:
        """Of the noise of size 1, of all weights together."""
        return math.sqrt(sum(float(one.noise.double().square().sum()) for one in self._noisy))

    @torch.no_grad()
    def put(self, size: float, question: Question | None = None) -> float:
        """Have noise of this size in the weights, in place of what was there; returns what multiplies noise of size 1.

        Args:
            question: `equal_norm` where the model was opened for `trained` and the other way round: their noise differs
                in its length alone.
        Raises:
            ConfigError: a negative size, or `equal_norm` where nothing was learnt.
        """
        if not size >= 0:
            raise ConfigError(f"`size >= 0` must hold, got {size}; 0.01 to 0.3 are usual, relative to the weights")
        factor = size
        if size and (question or self.question) == "equal_norm":
            if self.length == 0:
                raise ConfigError(f"`equal_norm` needs something learnt to disturb, `{self.label}` has nothing")
            factor /= self.length
        for one in self._noisy:
            one.weight.copy_(one.clean.float() + factor * one.noise if factor else one.clean)
        return factor

    @property
    def n_weights(self) -> int:
        """How many numbers get noise."""
        return sum(one.weight.numel() for one in self._noisy)


@contextmanager
def disturbed(
    tuned: Tuned, question: Question, *, seed: int = 0, draw: int = 0, base: Mapping[str, Tensor] | None = None
) -> Iterator[Disturbed]:
    """While open, one draw of noise may be put into the weights at any size; afterwards every byte is as before.

    Where all edits of a method fold into the weights, they are folded while this is open: `all` disturbs the tuned
    weights W1, `trained` disturbs their changes W1 - W0. A method with edits that do not fold (prefixes, adapters, what
    `peft` wraps) has noise on the edits' own parameters. What is trained in place, the head included, counts with its
    values, or with its change where `base` gives the values from before. A vector is a matrix of one column.

    Args:
        draw: number of the draw, for several under one seed.
        base: values before training by the model's parameter names.
    Raises:
        ConfigError: an unknown question.
    """
    if question not in QUESTIONS:
        raise ConfigError(f"`question` must be a known one, got `{question}`; {nearest(question, QUESTIONS)}")
    with _folded(tuned) as changes:
        chosen = _everything(tuned, changes) if question == "all" else _trained(tuned, changes, base or {})
        noisy = [
            _Noisy(weight, weight.detach().clone(), _draw(name, spread, weight, seed, draw))
            for name, weight, spread in chosen
        ]
        try:
            yield Disturbed(tuned.method.label, question, noisy)
        finally:
            with torch.no_grad():
                for one in noisy:
                    one.weight.copy_(one.clean)


@contextmanager
def weight_noise(
    tuned: Tuned,
    question: Question,
    size: float,
    *,
    seed: int = 0,
    draw: int = 0,
    base: Mapping[str, Tensor] | None = None,
) -> Iterator[Noise]:
    """`disturbed` at one size.

    Args:
        size: s, the noise's length relative to the weight's; for `equal_norm` the length itself. 0 changes nothing.
    Raises:
        ConfigError: an unknown question, a negative size, or `equal_norm` where nothing was learnt.
    """
    if size == 0 and question in QUESTIONS:
        yield Noise(question, 0.0, 0.0, 0)
        return
    with disturbed(tuned, question, seed=seed, draw=draw, base=base) as ready:
        yield Noise(question, size, ready.put(size) * ready.length, ready.n_weights)


def _draw(name: str, spread: Tensor, weight: Tensor, seed: int, draw: int) -> Tensor:
    """spread N(0, 1), in fp32; drawn on the CPU, so the same on every device."""
    chance = generator(seed, "weight_noise", draw, name)
    noise: Tensor = torch.randn(weight.shape, generator=chance).to(weight.device)
    noise *= spread
    return noise


@contextmanager
def _folded(tuned: Tuned) -> Iterator[Changes]:
    """The edits folded into the weights where all of them can be; else nothing."""
    if not tuned.mergeable or any(isinstance(edit, ModelEdit) for _, edit in tuned.placed()):
        yield {}
        return
    changes = _changes(tuned)
    before = [(weight, weight.detach().clone()) for weight, _ in changes.values()]
    tuned.unhook()
    try:
        with torch.no_grad():
            for weight, change in changes.values():
                weight += change.to(weight.dtype)
        yield changes
    finally:
        tuned.hook_up()
        with torch.no_grad():
            for weight, values in before:
                weight.copy_(values)


@torch.no_grad()
def _changes(tuned: Tuned) -> Changes:
    """Of every weight, all of its edits' changes together: each is reckoned from the base weight."""
    changes: Changes = {}
    for site, edit in tuned.placed():
        if not isinstance(edit, WeightEdit) or site is None:
            continue
        module = tuned.backbone.module(site)
        weight, bias = weight_of(module, site), bias_of(module, site)
        parts = {"weight": (weight, edit.delta(weight)), "bias": (bias, edit.delta_bias(bias))}
        for name, (target, change) in parts.items():
            if target is not None and change is not None:
                before = changes[key][1] if (key := f"{site.name}.{name}") in changes else 0
                changes[key] = (target, change + before)
    return changes


def _everything(tuned: Tuned, changes: Changes) -> Iterator[_Chosen]:
    folded = _folded_parameters(tuned, changes)
    for name, parameter in tuned.named_parameters():
        if id(parameter) not in folded and parameter.is_floating_point():
            yield name, parameter, _spread(parameter)


def _trained(tuned: Tuned, changes: Changes, base: Mapping[str, Tensor]) -> Iterator[_Chosen]:
    folded = _folded_parameters(tuned, changes)
    for name, (weight, change) in changes.items():
        yield name, weight, _spread(change)
    for name, parameter in tuned.trained().items():
        if id(parameter) not in folded:
            yield name, parameter, _spread(parameter - base[name].to(parameter) if name in base else parameter)


def _folded_parameters(tuned: Tuned, changes: Changes) -> set[int]:
    return {id(parameter) for edit in tuned.edits for parameter in edit.parameters()} if changes else set()


def _spread(reference: Tensor) -> Tensor:
    """||reference||_F / sqrt(m n): the size of a number of it."""
    size: Tensor = reference.detach().float().norm() / reference.numel() ** 0.5
    return size
