"""How an edit acts in the forward pass: hooks on the modules at its sites. The model's own code stays as it is."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.backbones.sites import Site, bias_of, weight_of
from deltaproof.methods.edits import BranchEdit, Context, Edit, OutputEdit, WeightEdit
from deltaproof.methods.low_rank import add_low_rank

Placed = list[tuple[Site, Edit]]
ModuleOf = Callable[[Site], nn.Module]


def hook_up(module: nn.Module, here: Placed, context: Context, module_of: ModuleOf) -> list[Any]:
    """Make a module answer as its edits say; returns the handles that take the hooks off."""
    handles: list[Any] = []
    taps = {edit: Tap() for _, edit in here if isinstance(edit, BranchEdit) and edit.reads is not None}
    for edit, tap in taps.items():
        handles.append(module_of(edit.reads).register_forward_pre_hook(tap))  # type: ignore[arg-type]
    entering = [edit for _, edit in here if isinstance(edit, BranchEdit) and edit.side == "input"]
    if entering:
        handles.append(module.register_forward_pre_hook(_branch_in_hook(entering, taps, context)))
    leaving = [(site, edit) for site, edit in here if edit not in entering]
    if len(leaving) == 1 and isinstance(leaving[0][1], WeightEdit) and leaving[0][1].changes_input:
        handles.append(module.register_forward_pre_hook(_input_hook(leaving[0][1])))
    elif leaving:
        handles.append(module.register_forward_hook(OutputHook(leaving, taps, context)))
    return handles


class Tap:
    """Keeps what goes into a module until the branch that reads it takes it."""

    def __init__(self) -> None:
        self.x: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.x = inputs[0]

    def take(self) -> Tensor:
        x, self.x = self.x, None
        assert x is not None, "what a branch reads is computed before what it is added to"
        return x


def _input_hook(edit: WeightEdit) -> Callable[..., Any]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (edit.changed_input(inputs[0]), *inputs[1:])

    return hook


def _branch_in_hook(edits: list[BranchEdit], taps: dict[BranchEdit, Tap], context: Context) -> Callable[..., Any]:
    """Branches that are added to what goes into a module; all see the same input, and they add up."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h = inputs[0]
        changed = h
        for edit in edits:
            # `forward` itself, which no hook watches: the hook we are in would call itself without end
            x = taps[edit].take() if edit in taps else module.forward(h) if edit.through_site else h
            changed = changed + _branch(edit, x, context).to(h.dtype)
        return (changed, *inputs[1:])

    return hook


class OutputHook:
    """Changes of weights and branches see the site's frozen input and output and add up; output edits follow."""

    def __init__(self, here: Placed, taps: dict[BranchEdit, Tap], context: Context) -> None:
        self.here = sorted(here, key=lambda placed: isinstance(placed[1], OutputEdit))  # stable
        self.taps, self.context = taps, context

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
        frozen, rest = (output[0], output[1:]) if isinstance(output, tuple) else (output, None)
        changed = frozen
        for site, edit in self.here:
            rows = slice(*site.rows) if site.rows else slice(None)
            if isinstance(edit, OutputEdit) and site.rows is None:
                changed = edit(changed, self.context).to(frozen.dtype)
                continue
            if isinstance(edit, WeightEdit):
                read = _in_its_precision(module, site, edit, inputs[0], frozen[..., rows])
                if site.rows is None and (factors := added_factors(edit)) is not None:
                    changed = add_low_rank(changed, read[0], [factors], module if changed is output else None)
                    continue
                change = edit.contribution(*read)
            elif isinstance(edit, BranchEdit):
                x = self.taps[edit].take() if edit in self.taps else frozen[..., rows]
                change = _branch(edit, x, self.context)
            else:
                before = changed[..., rows]
                change = edit(before, self.context).to(frozen.dtype) - before
            change = change.to(frozen.dtype)
            changed = changed + (change if site.rows is None else _embed(change, site.rows, frozen.shape[-1]))
        return changed if rest is None else (changed, *rest)

    def alone(self) -> Edit | None:
        """The edit that acts here on the whole output, where it is the only one."""
        site, edit = self.here[0]
        return edit if len(self.here) == 1 and site.rows is None else None


def added_factors(edit: Edit | None) -> tuple[Tensor, Tensor] | None:
    """A and B of an edit that adds x A^T B^T to its site's output, and nothing else."""
    if isinstance(edit, WeightEdit) and edit.adds_factors and not edit.draws:
        return edit.factors()
    return None


def _branch(edit: BranchEdit, x: Tensor, context: Context) -> Tensor:
    """What the branch adds, reckoned in the precision of its parameters unless autocast takes care of that."""
    return edit.branch(x if torch.is_autocast_enabled(x.device.type) else x.to(_dtype(edit, x)), context)


def _in_its_precision(
    module: nn.Module, site: Site, edit: WeightEdit, x: Tensor, output: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What an edit reads, its site's input, output, weight and bias, in the precision of its parameters unless autocast
    takes care of that."""
    weight, bias = weight_of(module, site), bias_of(module, site)
    if not torch.is_autocast_enabled(x.device.type):
        dtype = _dtype(edit, x)
        x, output, weight = x.to(dtype), output.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return x, output, weight, bias


def _dtype(edit: Edit, x: Tensor) -> torch.dtype:
    return next((parameter.dtype for parameter in edit.parameters()), x.dtype)


def _embed(change: Tensor, rows: tuple[int, int], width: int) -> Tensor:
    return nn.functional.pad(change, (rows[0], width - rows[1]))
