"""Along the change that tuning made: loss and score of W0 + t (W1 - W0), short of the tuned model and beyond it.

t = 0 is the base and t = 1 the tuned model, both with the head that was trained. A valley at t = 1 is a minimum that
training found; a score that holds at t = 0.5 or beyond 1 is a wide one. Methods whose change is no change of weights
have no such line.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltaproof.backbones.backbone import Backbone
from deltaproof.metrics import METRICS
from deltaproof.records.record import Predictions
from deltaproof.stats import mean_interval
from deltaproof.studies.kept_models import Bed, KeptModel, kept_models
from deltaproof.studies.same_head import SAME_HEAD, base_with_head
from deltaproof.tasks.text import TextTask

Say = Callable[[str], None]
STEPS = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
NO_WEIGHTS, NO_CHANGE = "not a change of weights", "nothing changed below the head"


def path(
    bed: Bed, contestants: Sequence[str] = (), steps: Sequence[float] = STEPS, say: Say = lambda text: None
) -> dict[str, Any]:
    """Loss and score on the validation rows along the line of every kept model that is a change of weights.

    Raises:
        RecordError: nothing was kept.
    """
    found: dict[str, list[tuple[KeptModel, list[Predictions]]]] = {}
    left_out: dict[str, str] = {}
    task: TextTask | None = None
    for kept in kept_models(bed.store, contestants):
        say(f"along the change of {kept.label}, seed {kept.seed}")
        answers, task = along(bed, kept, steps)
        if isinstance(answers, str):
            left_out[kept.label] = answers
        else:
            found.setdefault(kept.label, []).append((kept, answers))
    assert task is not None, "some model was kept, or an error was raised"
    return {
        "format": 1,
        "metric": bed.metric.name,
        "loss": loss_name(task),
        "head": SAME_HEAD,
        "steps": list(steps),
        "methods": [
            {"label": label, "keys": [kept.key for kept, _ in entries], **_curve(bed, task, [a for _, a in entries])}
            for label, entries in found.items()
        ],
        "left_out": left_out,
    }


def along(bed: Bed, kept: KeptModel, steps: Sequence[float]) -> tuple[list[Predictions] | str, TextTask]:
    """Answers on the validation rows at each step; or why there is no line, for a method that cannot be folded into the
    weights or that left them as they were."""
    tuned, task = kept.load()
    if not tuned.mergeable:
        return NO_WEIGHTS, task
    base = base_with_head(kept)
    end = {name: value.detach() for name, value in tuned.merge().named_parameters()}
    start = {name: value.detach().clone() for name, value in base.model.named_parameters()}
    if all(torch.equal(start[name], end[name]) for name in start):
        return NO_CHANGE, task
    answers = []
    for t in steps:
        put_at(base, start, end, t)
        answers.append(bed.answers(base.model, task, base.tokenizer, bed.dataset.validation, kept))
    return answers, task


@torch.no_grad()
def put_at(model: Backbone, start: dict[str, Tensor], end: dict[str, Tensor], t: float) -> None:
    """Set the weights to start + t (end - start); at 0 and 1 to these themselves, to the last bit."""
    for name, parameter in model.model.named_parameters():
        first, last = start[name], end[name]
        value = first if t == 0 else last if t == 1 else first + t * (last.to(first) - first)
        parameter.copy_(value.to(parameter))


def loss_name(task: TextTask) -> str:
    return "mse" if task.kind == "regression" else "nll"


def losses(task: TextTask, answer: Predictions) -> np.ndarray:
    """What training minimised, per example: -log p of the truth, or the squared error in standard deviations."""
    outputs = np.asarray(answer.outputs)
    if task.kind == "regression":
        errors: np.ndarray = (((outputs - answer.targets) / task.target_std) ** 2).mean(axis=1)
        return errors
    return METRICS["nll"].per_example(answer.targets, outputs)


def _curve(bed: Bed, task: TextTask, answers: Sequence[Sequence[Predictions]]) -> dict[str, Any]:
    """Means over seeds and examples with their intervals, one per step."""
    each = [np.stack([losses(task, seed[at]) for seed in answers]) for at in range(len(answers[0]))]
    intervals = [mean_interval(values) for values in each]
    scores = np.array([[bed.score(answer) for answer in seed] for seed in answers])
    return {
        "loss": [interval.mean for interval in intervals],
        "loss_low": [interval.low for interval in intervals],
        "loss_high": [interval.high for interval in intervals],
        "score": scores.mean(axis=0).tolist(),
        "score_by_seed": scores.tolist(),
    }
