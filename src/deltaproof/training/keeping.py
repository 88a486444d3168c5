"""Whether a run keeps the features of its rows: where that saves passes, fits, and changes nothing but rounding."""

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deltaproof.tasks.text import collate
from deltaproof.training.features import OverFeatures, modules_left, trunk_of
from deltaproof.training.gradient import Alone, penalty

if TYPE_CHECKING:
    from deltaproof.training.loop import Run

SHARE = 1.0
"""Features may take as many bytes as the model's weights: a run that trains the top only stays far below full
fine-tuning, which holds them four times. Not what is free: then the last bits of a result would hang on that."""
TOLERANCE = 1e-4
"""Of loss and gradient over kept features against those of a whole pass, both in fp32: the norm of the difference
relative to the norm. Sums in another order move it by about 1e-6; layers that see padding, or what lies in the trunk
past its output, mostly by far more."""


def features_for(run: "Run") -> OverFeatures | None:
    """The run's model over kept features, or with frozen layers at rest; None where neither would change anything.

    Nothing is kept where the layers draw random numbers in training, where no row is seen twice, where it would take
    too much memory, or where a pass over kept features has shown itself to be another one.
    """
    rests, model = run.settings.feature_extraction, run.tuned.backbone.model
    is_reused = run.n_steps > math.ceil(len(run.train_rows) / run.settings.batch_size)
    trunk = trunk_of(run.tuned) if (is_reused or rests) and run.accelerator.num_processes == 1 else []
    if not trunk:
        return None
    make = partial(OverFeatures, run.tuned, trunk, modules_left(model, trunk[-1]) if rests else [])
    if not is_reused:
        return make(0)
    n_tokens = int(run.train_rows.lengths.sum() + run.validation_rows.lengths.sum())
    n_bytes, n_weight_bytes = _n_bytes(run, n_tokens), sum(each.nbytes for each in model.parameters())
    why_not = None
    if n_bytes > SHARE * n_weight_bytes:
        why_not = f"to keep it would take {_mb(n_bytes)}, more than the model's weights ({_mb(n_weight_bytes)})"
    elif not _agree(run, make(n_tokens), make(0)):
        why_not = "it is not the same each time in this model"
    if why_not and not rests:
        return None
    how = f"in every epoch: {why_not}" if why_not else f"once and kept, {_mb(n_bytes)}"
    note = f"what the {len(trunk)} frozen layers make of a row was computed {how}"
    if note not in run.outcome.notes:  # where a training that was cut goes on
        run.outcome.notes.append(note)
    return make(0 if why_not else n_tokens)


def feature_bytes(run: "Run") -> int:
    """What a run that has not begun is going to keep."""
    run.seed_draws()
    features = features_for(run)
    return 0 if features is None else _n_bytes(run, features.n_tokens)


def _n_bytes(run: "Run", n_tokens: int) -> int:
    """What the features of so many tokens take, in fp32."""
    return 4 * n_tokens * next(site.d_out for site in run.tuned.backbone.all_sites if site.role == "layer")


def _mb(n: int) -> str:
    return f"{n / 1e6:.3g} MB"


def _agree(run: "Run", keeping: OverFeatures, whole: OverFeatures) -> bool:
    """Whether four rows, the shortest to the longest, are kept when each goes alone, and have then, together in a batch
    of another width, the loss and gradient of a whole pass."""
    lengths = run.train_rows.lengths
    rows = np.argsort(lengths, kind="stable")[np.linspace(0, len(lengths) - 1, 4).astype(int)]
    try:
        run.model = keeping
        for row in rows:
            _loss_and_gradient(run, np.array([row]))
            if keeping.n_not_kept:
                return False
        kept = _loss_and_gradient(run, rows)
        run.model = whole
        wanted = _loss_and_gradient(run, rows)
    finally:
        run.model = run.tuned
    return all(bool((one - other).norm() <= TOLERANCE * other.norm()) for one, other in zip(kept, wanted, strict=True))


def _loss_and_gradient(run: "Run", rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Of a batch in training and in fp32, penalties included, drawn from where the run's random numbers stand.

    The gradient is that of everything that is trained, in one vector; what takes no part in the pass is left out.
    """
    device, forward = run.accelerator.device, Alone()
    run.tuned.train()
    forward.take_up([run])
    batch = collate(run.train_rows, rows, run.tuned.backbone.tokenizer.pad_token_id)
    targets = torch.as_tensor(run.train_rows.targets[rows], dtype=torch.float32, device=device)
    ((_, (logits,)),) = forward([run], [{key: value.to(device) for key, value in batch.items()}])
    loss = run.task.loss(logits, targets) + penalty(run.tuned)
    found = torch.autograd.grad(loss, list(run.trained.values()), allow_unused=True)
    return loss.detach(), torch.cat([each.flatten().float() for each in found if each is not None])
