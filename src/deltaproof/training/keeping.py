"""Whether a run keeps the features of its rows: where that saves passes, fits, and changes nothing but rounding."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deltaproof.tasks.text import collate
from deltaproof.training.features import Features, Store, trunk_of
from deltaproof.training.gradient import Alone, penalty, random_state

if TYPE_CHECKING:
    from deltaproof.training.loop import Run

SHARE = 1.0
"""Features may take as many bytes as the model's weights: a run that trains the top only stays far below full
fine-tuning, which holds them four times. Not what is free: then the last bits of a result would hang on that."""
TOLERANCE = 1e-4
"""Of loss and gradient over kept features against those of a whole pass, both in fp32: the norm of the difference
relative to the norm. Sums in another order move it by about 1e-6; layers that see padding, or what lies in the trunk
past its output, mostly by far more."""


def features_for(run: "Run") -> Features | None:
    """What stands between a run and its frozen layers; None where that would change nothing.

    Nothing is kept where the layers draw random numbers in training, where no row is seen twice, where it would take
    too much memory, or where a pass over kept features has shown itself to be another one.
    """
    is_reused = run.n_steps > steps_per_epoch(run)
    if not (is_reused or run.settings.feature_extraction) or run.accelerator.num_processes > 1:
        return None
    trunk = trunk_of(run.tuned)
    if not trunk:
        return None
    features = Features(run.tuned, trunk, run.settings.feature_extraction)
    if is_reused and (reason := _why_not(run, features)) is None:
        features.stores = _stores(run)
        _note(run, f"what the {len(trunk)} frozen layers make of a row was computed once and kept, {_mb(n_bytes(run))}")
    elif is_reused and run.settings.feature_extraction:
        _note(run, f"what the {len(trunk)} frozen layers make of a row was computed in every epoch: {reason}")
    return features if features.stores or features.resting else None


def feature_bytes(run: "Run") -> int:
    """What a run that has not begun is going to keep."""
    run.seed_draws()
    features = features_for(run)
    return n_bytes(run) if features is not None and features.stores else 0


def steps_per_epoch(run: "Run") -> int:
    return math.ceil(len(run.train_rows) / run.settings.batch_size)


def n_bytes(run: "Run") -> int:
    """What the features of all training and validation rows take, in fp32."""
    width = next(site.d_out for site in run.tuned.backbone.all_sites if site.role == "layer")
    return 4 * width * int(run.train_rows.lengths.sum() + run.validation_rows.lengths.sum())


def weight_bytes(run: "Run") -> int:
    return sum(each.numel() * each.element_size() for each in run.tuned.backbone.model.parameters())


def _why_not(run: "Run", features: Features) -> str | None:
    """Why a run keeps no features; None where it does."""
    if n_bytes(run) > SHARE * weight_bytes(run):
        return f"to keep it would take {_mb(n_bytes(run))}, more than the model's weights ({_mb(weight_bytes(run))})"
    return None if _agrees(run, features) else "it is not the same each time in this model"


def _note(run: "Run", note: str) -> None:
    """Said once, also by a training that goes on."""
    if note not in run.outcome.notes:
        run.outcome.notes.append(note)


def _mb(n: int) -> str:
    return f"{n / 1e6:.3g} MB"


def _stores(run: "Run") -> dict[bool, Store]:
    lengths = {True: run.train_rows.lengths, False: run.validation_rows.lengths}
    return {is_training: Store(int(each.sum())) for is_training, each in lengths.items()}


def _agrees(run: "Run", features: Features) -> bool:
    """Whether nothing is drawn for the features of four rows, the shortest to the longest, and loss and gradient over
    those that each had alone, in a batch of another width, are those of a whole pass."""
    lengths = run.train_rows.lengths
    rows = np.argsort(lengths, kind="stable")[np.linspace(0, len(lengths) - 1, 4).astype(int)]
    states: list[dict[str, Tensor]] = []
    """Of the generators, whenever the trunk is left."""
    handle = features.layers[-1].register_forward_hook(lambda *_: states.append(random_state(run.accelerator.device)))
    run.features, features.stores = features, _stores(run)
    try:
        for row in rows:
            _loss(run, np.array([row]))
        has_drawn = any(not torch.equal(state[kind], run.random[kind]) for state in states for kind in state)
        if has_drawn or not features.stores[True].starts:
            return False
        kept = _loss_and_gradient(run, rows)
        features.stores = {}
        whole = _loss_and_gradient(run, rows)
    finally:
        handle.remove()
        run.features, features.stores = None, {}
    return all(bool((one - other).norm() <= TOLERANCE * other.norm()) for one, other in zip(kept, whole, strict=True))


def _loss_and_gradient(run: "Run", rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """The gradient of everything that is trained, in one vector; what takes no part in the pass is left out."""
    loss = _loss(run, rows)
    found = torch.autograd.grad(loss, list(run.trained.values()), allow_unused=True)
    return loss.detach(), torch.cat([each.flatten().float() for each in found if each is not None])


def _loss(run: "Run", rows: np.ndarray) -> Tensor:
    """Of a batch in training and in fp32, penalties included, drawn from where the run's random numbers stand."""
    device, forward = run.accelerator.device, Alone()
    run.tuned.train()
    forward.take_up([run])
    batch = collate(run.train_rows, rows, run.tuned.backbone.tokenizer.pad_token_id)
    targets = torch.as_tensor(run.train_rows.targets[rows], dtype=torch.float32, device=device)
    ((_, (logits,)),) = forward([run], {key: value.to(device) for key, value in batch.items()})
    return run.task.loss(logits, targets) + penalty(run.tuned)
