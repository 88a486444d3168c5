"""One base under several methods: models of their own over weights that lie in memory once."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.head import start_afresh


def sharing_copy(backbone: Backbone) -> Backbone:
    """The same model once more, with modules of its own, whose weights lie in the same storage.

    Each copy says for itself which of them want a gradient. Whoever trains some takes them with `own`.
    """
    memo: dict[int, object] = {id(buffer): buffer for buffer in backbone.model.buffers()}
    for parameter in backbone.model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.data, requires_grad=False)
    return replace(backbone, model=copy.deepcopy(backbone.model, memo), notes=list(backbone.notes))


def started_from(backbone: Backbone, seed: int) -> Backbone:
    """A sharing copy whose head starts as it does where the model is loaded with this seed."""
    found = sharing_copy(backbone)
    own(parameter for name, parameter in found.model.named_parameters() if name in backbone.lacked)
    start_afresh(found.model, backbone.lacked, seed)
    return found


def own(parameters: Iterable[nn.Parameter]) -> None:
    """Give parameters a storage of their own, with the same values: what one changes, no other sees."""
    for parameter in parameters:
        parameter.data = parameter.data.clone()


def move_together(base: nn.Module, models: Sequence[nn.Module], device: torch.device) -> None:
    """Move a base and the models over it, so that what lay in memory once does so there."""
    here = {_place(parameter): parameter for parameter in base.parameters()}
    base.to(device)
    for model in models:
        for parameter in model.parameters():
            if (shared := here.get(_place(parameter))) is not None and shared.device != parameter.device:
                parameter.data = shared.data
        model.to(device)


def _place(parameter: nn.Parameter) -> tuple[str, int, torch.Size]:
    return str(parameter.device), parameter.data_ptr(), parameter.shape
