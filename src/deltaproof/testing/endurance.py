"""Checks of the contract on what a training goes through: half precision, other devices, recomputing, a kill."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deltaproof.errors import ConfigError
from deltaproof.methods.base import Method
from deltaproof.methods.tuned import Tuned, attach
from deltaproof.testing.bench import Bench, deterministic_dropout
from deltaproof.training.recomputing import recompute_activations

Move = Callable[[Tuned], Any]


def a_base_in_bf16_runs(method: Method, bench: Bench) -> None:
    """The base may be in bf16: what the method adds stays in fp32 and gets gradients."""
    _runs_with_a_base_in(torch.bfloat16, method, bench)


def a_base_in_fp16_runs(method: Method, bench: Bench) -> None:
    """The base may be in fp16 too, with the same promise."""
    _runs_with_a_base_in(torch.float16, method, bench)


def _runs_with_a_base_in(dtype: torch.dtype, method: Method, bench: Bench) -> None:
    backbone = bench.backbone()
    backbone.model.to(dtype)
    tuned = attach(backbone, method)
    for parameter in (parameter for _, edit in tuned.placed() for parameter in edit.parameters()):
        assert parameter.dtype == torch.float32, "the method's own parameters must be in fp32"
    for _, edit in tuned.placed():
        edit.begin(1)
    bench.objective(tuned.train()).backward()  # type: ignore[no-untyped-call]
    assert any(parameter.grad is not None for parameter in tuned.trained().values()), "no gradient arrived"
    assert bench.answers(tuned).isfinite().all(), "an answer is not finite"


def moved_and_back_it_answers_the_same(method: Method, bench: Bench) -> None:
    """In fp64, and on an accelerator where there is one, it answers alike; taken back it answers to the bit as before.

    So nothing that the method reckons with is left behind when the model moves.
    """
    tuned = bench.tuned(method)
    before = bench.answers(tuned)
    moves: dict[str, tuple[Move, Move]] = {"fp64": (Tuned.double, Tuned.float)}
    if torch.cuda.is_available():
        moves["CUDA"] = (Tuned.cuda, Tuned.cpu)
    for place, (there, back) in moves.items():
        there(tuned)
        _assert_close(bench.answers(tuned).cpu().float(), before, 1e-3, f"in {place}")
        back(tuned)
        assert torch.equal(bench.answers(tuned), before), f"back from {place} it answers otherwise"


def recomputed_it_has_the_same_gradients(method: Method, bench: Bench) -> None:
    """Gradient checkpointing changes what is kept, not what comes out; families that do not offer it are excused."""
    tuned = bench.tuned(method)
    wanted = _gradients(tuned, bench)
    try:
        recompute_activations(tuned.backbone)
    except ConfigError:
        return
    got = _gradients(tuned, bench)
    assert wanted.keys() == got.keys(), "other parameters get gradients"
    for name, gradient in wanted.items():
        _assert_close(got[name], gradient, 1e-5, f"the gradient of `{name}`")


def _gradients(tuned: Tuned, bench: Bench) -> dict[str, Tensor]:
    with deterministic_dropout():
        for _, edit in tuned.placed():
            edit.begin(1)
        tuned.zero_grad(set_to_none=True)
        bench.objective(tuned.train()).backward()  # type: ignore[no-untyped-call]
    return {name: value.grad.clone() for name, value in tuned.trained().items() if value.grad is not None}


def interrupted_it_goes_on_to_the_same_bits(method: Method, bench: Bench) -> None:
    """Parameters, the edits' `progress`, the optimiser and the generator are all that a training is between two steps.

    A fresh model that takes them up after two of three steps ends with the bits of a training that nobody stopped.
    """
    whole, resumed = (attach(bench.backbone(), method) for _ in range(2))
    with deterministic_dropout():
        optimizer = _began(whole)
        bench.take_steps(whole, optimizer, range(2))
        values = {name: parameter.detach().clone() for name, parameter in whole.trained().items()}
        memories = [{key: value.clone() for key, value in edit.progress().items()} for _, edit in whole.placed()]
        moments, dice = copy.deepcopy(optimizer.state_dict()), torch.get_rng_state()
        bench.take_steps(whole, optimizer, range(2, 3))
        optimizer = _began(resumed)
        with torch.no_grad():
            for name, parameter in resumed.trained().items():
                parameter.copy_(values[name])
        optimizer.load_state_dict(moments)
        for (_, edit), memory in zip(resumed.placed(), memories, strict=True):
            edit.resume(memory)
        torch.set_rng_state(dice)
        bench.take_steps(resumed, optimizer, range(2, 3))
    wanted, got = whole.state(), resumed.state()
    for name, value in wanted.items():
        assert torch.equal(got[name], value), f"after the interruption `{name}` went another way"


def _began(tuned: Tuned) -> torch.optim.Optimizer:
    """The optimiser of a training of three steps that has just begun."""
    for _, edit in tuned.placed():
        edit.begin(3)
    return torch.optim.AdamW(tuned.trained().values(), lr=1e-2)


def _assert_close(got: Tensor, wanted: Tensor, tolerance: float, where: str) -> None:
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance, msg=lambda message: f"{where}: {message}")
