"""What a training is between two steps: everything that the steps to come depend on."""

from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from deltaproof.methods.tuned import Tuned
from deltaproof.training.best import Best
from deltaproof.training.outcome import Outcome

_COUNTERS = ("train_seconds", "examples_seen", "tokens_seen")


class Resumable(Protocol):
    """A training that can be left and taken up again."""

    tuned: Tuned
    trained: dict[str, nn.Parameter]
    optimizer: Any
    accelerator: Accelerator
    micro_batch_size: int
    best: Best
    outcome: Outcome
    losses: list[float]
    random: dict[str, Tensor]


def snapshot(run: Resumable) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts to save: values, best values, optimiser, edits' memories, generators, counters."""
    tensors: dict[str, Tensor] = {f"value/{name}": parameter for name, parameter in run.trained.items()}
    tensors |= {f"best/{name}": value for name, value in run.best.values.items()}
    for number, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": value for key, value in state.items()}
    for number, (_, edit) in enumerate(run.tuned.placed()):
        tensors |= {f"edit/{number}/{key}": value for key, value in edit.progress().items()}
    tensors |= {f"random/{kind}": state for kind, state in run.random.items()}
    outcome = run.outcome
    facts: dict[str, Any] = {key: getattr(outcome, key) for key in _COUNTERS}
    facts |= {"history": outcome.history, "notes": outcome.notes, "losses": run.losses}
    facts |= {"best": run.best.scores, "evaluations_since": run.best.evaluations_since}
    facts |= {"micro_batch_size": run.micro_batch_size}
    if run.accelerator.scaler is not None:
        facts["scaler"] = run.accelerator.scaler.state_dict()
    return tensors, facts


def restore(run: Resumable, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Make a fresh run what the saved one was."""
    with torch.no_grad():
        for name, value in _below(tensors, "value").items():
            run.trained[name].copy_(value)
    run.best.values = _below(tensors, "best")
    run.best.scores, run.best.evaluations_since = facts["best"], facts["evaluations_since"]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(tensors, "optimizer").items():
        parameter, _, key = name.partition("/")
        state.setdefault(int(parameter), {})[key] = value
    run.optimizer.load_state_dict({**run.optimizer.state_dict(), "state": state})
    for number, (_, edit) in enumerate(run.tuned.placed()):
        edit.resume(_below(tensors, f"edit/{number}"))
    run.outcome.history, run.outcome.notes = facts["history"], facts["notes"]
    run.losses = facts["losses"]
    for key in _COUNTERS:
        setattr(run.outcome, key, facts[key])
    run.micro_batch_size = facts["micro_batch_size"]
    if run.accelerator.scaler is not None and "scaler" in facts:
        run.accelerator.scaler.load_state_dict(facts["scaler"])
    run.random = _below(tensors, "random")


def _below(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{start}/"): value for key, value in tensors.items() if key.startswith(f"{start}/")}
