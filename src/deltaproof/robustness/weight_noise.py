"""Gaussian noise on weights: W + s ||W||_F / sqrt(m n) N(0, 1), put in and taken out again to the byte.

Three questions that are easily mixed up, each with a name of its own in `QUESTIONS`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

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


@dataclass(frozen=True)
class _Noisy:
    """A weight that gets noise, and what the noise is in proportion to: the weight itself, or its change."""

    name: str
    weight: Tensor
    reference: Tensor

    def draw(self, seed: int, draw: int) -> Tensor:
        """||reference||_F / sqrt(m n) N(0, 1), in fp32; drawn on the CPU, so the same on every device."""
        chance = generator(seed, "weight_noise", draw, self.name)
        spread = self.reference.float().norm() / self.reference.numel() ** 0.5
        noise: Tensor = torch.randn(self.weight.shape, generator=chance).to(self.weight.device)
        noise *= spread
        return noise


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
    """While open, the model answers with noise in its weights; afterwards every byte is as before.

    Where all edits of a method fold into the weights, they are folded while this is open: `all` disturbs the tuned
    weights W1, `trained` disturbs their changes W1 - W0. A method with edits that do not fold (prefixes, adapters, what
    `peft` wraps) has noise on the edits' own parameters. What is trained in place, the head included, counts with its
    values, or with its change where `base` gives the values from before. A vector is a matrix of one column.

    Args:
        size: s, the noise's length relative to the weight's; for `equal_norm` the length itself. 0 changes nothing.
        draw: number of the draw, for several under one seed.
        base: values before training by the model's parameter names.
    Raises:
        ConfigError: an unknown question, a negative size, or `equal_norm` where nothing was learnt.
    """
    if question not in QUESTIONS:
        raise ConfigError(f"`question` must be a known one, got `{question}`; {nearest(question, QUESTIONS)}")
    if not size >= 0:
        raise ConfigError(f"`size >= 0` must hold, got {size}; 0.01 to 0.3 are usual, relative to the weights")
    if size == 0:
        yield Noise(question, 0.0, 0.0, 0)
        return
    with _put_back(tuned.parameters()), _folded(tuned) as changes:
        yield _disturb(tuned, changes, question, size, seed, draw, base or {})


@torch.no_grad()
def _disturb(
    tuned: Tuned, changes: Changes, question: Question, size: float, seed: int, draw: int, base: Mapping[str, Tensor]
) -> Noise:
    noisy = _everything(tuned, changes) if question == "all" else _trained(tuned, changes, base)
    length = _length(weight.draw(seed, draw) for weight in noisy)  # drawn anew below: all at once would be a model
    if question == "equal_norm" and length == 0:
        raise ConfigError(f"`equal_norm` needs something learnt to disturb, `{tuned.method.label}` has nothing")
    factor = size / length if question == "equal_norm" else size
    for weight in noisy:
        weight.weight.copy_(weight.weight.float() + factor * weight.draw(seed, draw))
    return Noise(question, size, factor * length, sum(weight.weight.numel() for weight in noisy))


@contextmanager
def _put_back(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    before = [(parameter, parameter.detach().clone()) for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in before:
                parameter.copy_(values)


@contextmanager
def _folded(tuned: Tuned) -> Iterator[Changes]:
    """The edits folded into the weights where all of them can be; else nothing."""
    if not tuned.mergeable or any(isinstance(edit, ModelEdit) for _, edit in tuned.placed()):
        yield {}
        return
    changes = _fold(tuned)
    tuned.unhook()
    try:
        yield changes
    finally:
        tuned.hook_up()


@torch.no_grad()
def _fold(tuned: Tuned) -> Changes:
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
    for weight, change in changes.values():  # only now, so that several edits of one site all see the base weight
        weight += change.to(weight.dtype)
    return changes


def _everything(tuned: Tuned, changes: Changes) -> list[_Noisy]:
    folded = {id(parameter) for edit in tuned.edits for parameter in edit.parameters()} if changes else set()
    return [
        _Noisy(name, parameter, parameter.clone())
        for name, parameter in tuned.named_parameters()
        if id(parameter) not in folded and parameter.is_floating_point()
    ]


def _trained(tuned: Tuned, changes: Changes, base: Mapping[str, Tensor]) -> list[_Noisy]:
    folded = {id(parameter) for edit in tuned.edits for parameter in edit.parameters()} if changes else set()
    in_place = [
        _Noisy(name, parameter, parameter - base[name].to(parameter) if name in base else parameter.clone())
        for name, parameter in tuned.trained().items()
        if id(parameter) not in folded
    ]
    return [*(_Noisy(name, weight, change) for name, (weight, change) in changes.items()), *in_place]


def _length(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))
