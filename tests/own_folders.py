"""Tuned models as `train` leaves them, made in a moment: noise in the place of training, and no run around them."""

import torch

from deltaproof.backbones import load_backbone
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.records.spec import Spec
from deltaproof.saving.folder import save_tuned
from deltaproof.tasks.text import TextTask

PAIR = TextTask("classification", ("neg", "pos"), ("accuracy",), 16)


def save_own(method, base, folder, task=PAIR, seed=0, noise=0.1):
    """What `train` leaves, with noise in the place of training."""
    labels = list(task.labels) if task.labels else None
    backbone = load_backbone(str(base), task.kind, task.n_outputs, labels=labels, seed=seed)
    tuned = attach(backbone, method_from(method), seed)
    draw = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in tuned.trained().values():
            parameter += noise * torch.randn(parameter.shape, generator=draw)
    model = {"name": str(base), "fingerprint": backbone.fingerprint, "revision": ""}
    spec = Spec(tuned.method.label, tuned.method.to_dict(), model, task.to_json(), {}, {}, seed=seed, stage="final")
    save_tuned(tuned, task, spec, folder)
    return folder
