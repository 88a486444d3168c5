"""Tensors that are no rows of anybody, yet go from layer to layer, such as DeBERTa's table of relative positions."""

from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.training.lanes.rows import over_tensors
from deltaproof.training.lanes.trunk import layers_in_order


@torch.no_grad()
def hands_on_tables(backbone: Backbone) -> bool:
    """Whether a layer gets a tensor that has several places on its first side, and as many for any number of rows.

    Lanes know their rows by the length of the first side. Such a tensor may be as long as these by chance, and what is
    dropped of it is every row's.
    """
    model: Any = backbone.model
    inside = dict.fromkeys(module for layer in layers_in_order(backbone) for module in layer.modules())
    two, three = (_lengths(model, list(inside), n_rows) for n_rows in (2, 3))
    return any(one == other > 1 for one, other in zip(two, three, strict=True))


def _lengths(model: Any, modules: list[nn.Module], n_rows: int) -> list[int]:
    """Of the first side of every tensor that goes into these modules, for so many rows of seven tokens."""
    found: list[int] = []

    def look(module: nn.Module, inputs: Any, options: Any) -> None:
        def of(tensor: Tensor) -> Tensor:
            found.extend(tensor.shape[:1])
            return tensor

        over_tensors((inputs, options), of)

    handles = [module.register_forward_pre_hook(look, with_kwargs=True) for module in modules]
    was_training = model.training
    tokens = torch.ones(n_rows, 7, dtype=torch.long, device=next(model.parameters()).device)
    try:
        model.eval()(input_ids=tokens, attention_mask=tokens)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return found
