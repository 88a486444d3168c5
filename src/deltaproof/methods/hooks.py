"""How an edit acts in the forward pass: hooks on the modules at its sites. The model's own code stays as it is."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.backbones.sites import Site, bias_of, weight_of
from deltaproof.methods.edits import Context, Edit, OutputEdit, WeightEdit

Placed = list[tuple[Site, Edit]]


def hook_up(module: nn.Module, here: Placed, context: Context) -> Any:
    """Make a module answer as its edits say; returns the handle that takes the hook off."""
    if len(here) == 1 and isinstance(here[0][1], WeightEdit) and here[0][1].changes_input:
        return module.register_forward_pre_hook(_input_hook(here[0][1]))
    return module.register_forward_hook(_output_hook(here, context))


def _input_hook(edit: WeightEdit) -> Callable[..., Any]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (edit.changed_input(inputs[0]), *inputs[1:])

    return hook


def _output_hook(here: Placed, context: Context) -> Callable[..., Any]:
    """Weight edits all see the site's frozen input, weight and output, and add up; output edits follow in order."""
    here = sorted(here, key=lambda placed: isinstance(placed[1], OutputEdit))  # stable

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
        frozen, rest = (output[0], output[1:]) if isinstance(output, tuple) else (output, None)
        changed = frozen
        for site, edit in here:
            rows = slice(*site.rows) if site.rows else slice(None)
            if isinstance(edit, WeightEdit):
                change = _contribution(module, site, edit, inputs[0], frozen[..., rows]).to(frozen.dtype)
            else:
                before = changed[..., rows]
                change = edit(before, context).to(frozen.dtype) - before
            changed = changed + (change if site.rows is None else _embed(change, site.rows, frozen.shape[-1]))
        return changed if rest is None else (changed, *rest)

    return hook


def _contribution(module: nn.Module, site: Site, edit: WeightEdit, x: Tensor, output: Tensor) -> Tensor:
    """The edit's contribution, reckoned in the precision of its parameters unless autocast takes care of that."""
    weight, bias = weight_of(module, site), bias_of(module, site)
    if not torch.is_autocast_enabled(x.device.type):
        dtype = next((parameter.dtype for parameter in edit.parameters()), x.dtype)
        x, output, weight = x.to(dtype), output.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return edit.contribution(x, output, weight, bias)


def _embed(change: Tensor, rows: tuple[int, int], width: int) -> Tensor:
    return nn.functional.pad(change, (rows[0], width - rows[1]))
