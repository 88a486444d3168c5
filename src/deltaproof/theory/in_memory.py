"""The changes that a tuned model in memory makes to its base's weights, whatever the method."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from deltaproof.backbones.sites import Site, bias_of
from deltaproof.errors import ConfigError
from deltaproof.methods.edits import Unfreeze, WeightEdit
from deltaproof.methods.peft_edit import PeftEdit
from deltaproof.methods.tuned import Tuned
from deltaproof.saving.folder import load_tuned
from deltaproof.theory.checkpoints import as_float, open_model
from deltaproof.theory.deltas import Delta, Deltas, part, parts_of
from deltaproof.theory.skeleton import Skeleton, skeleton_of_model

SAME_FACTORS = 1e-5
"""Relative difference up to which an edit's factors are its change: DoRA has factors too, but more than they say."""


def deltas_of(tuned: Tuned, reference: Mapping[str, Tensor] | None = None) -> Deltas:
    """The changes of weights and biases, base = what the method started from.

    Args:
        reference: for methods that train weights in place: their values before training, by the parameters' names. A
            parameter that it lacks, such as that of a new head, is left out.
    Raises:
        ConfigError: weights were trained in place and there is no reference, or the method changes no weight at all.
    """
    model, skeleton = tuned.backbone.model, skeleton_of_model(tuned.backbone.model, tuned.backbone.all_sites)
    peft_edits = [edit for _, edit in tuned.placed() if isinstance(edit, PeftEdit)]
    if peft_edits:
        return _of_peft(model, skeleton)
    edits: dict[tuple[str, tuple[int, int] | None], list[WeightEdit]] = defaultdict(list)
    changed = set(_trained_in_place(tuned, reference))
    for site, edit in tuned.placed():
        if isinstance(edit, WeightEdit) and site is not None:
            edits[site.path, site.rows].append(edit)
            changed.add(f"{site.path}.weight")
            bias = bias_of(tuned.backbone.module(site), site)
            if bias is not None and edit.delta_bias(bias) is not None:
                changed.add(f"{site.path}.bias")
    before = {skeleton.short(name): value for name, value in _lazy(reference)}
    for path in changed:  # a head may start afresh for other labels
        start = before.get(skeleton.short(path))
        if start is not None and start().shape != model.get_parameter(path).shape:
            del before[skeleton.short(path)]
    loaders: dict[str, Callable[[], Delta]] = {}
    for path in changed:
        name = skeleton.short(path)
        for own, site in parts_of(name, skeleton):
            here = edits.get((site.path, site.rows), []) if site else []
            if here or name in before:
                loaders[own] = _loader(model, path, before.get(name), own, site, here)
    if not loaders:
        raise ConfigError(
            f"a spectrum needs a change of weights that the base has, `{tuned.method.label}` makes none; compare what "
            f"such methods do to the outputs instead"
        )
    return Deltas(loaders, _notes(tuned, before, skeleton))


def saved_deltas(base: str, folder: Path) -> Deltas:
    """The changes of a tuned model that `train` or `compare` saved, against its base: the base must be the same one."""
    tuned, _, _ = load_tuned(folder, base=base)
    return deltas_of(tuned, open_model(base))


def _trained_in_place(tuned: Tuned, reference: Mapping[str, Tensor] | None) -> list[str]:
    names = [name for name, parameter in tuned.backbone.model.named_parameters() if parameter.requires_grad]
    if reference is None and any(isinstance(edit, Unfreeze) for _, edit in tuned.placed()):
        raise ConfigError(
            f"`{tuned.method.label}` trains weights in place, so that their start is gone; give `reference`, their "
            f"values before training"
        )
    return names if reference is not None else []


def _lazy(reference: Mapping[str, Tensor] | None) -> Iterable[tuple[str, Callable[[], Tensor]]]:
    if reference is None:
        return []
    return [(name, lambda name=name: reference[name]) for name in reference]  # type: ignore[misc]


def _loader(
    model: nn.Module, path: str, before: Callable[[], Tensor] | None, own: str, site: Site | None,
    edits: list[WeightEdit],
) -> Callable[[], Delta]:  # fmt: skip
    """One weight's or bias's change: what training in place did to it, and what the edits add."""

    @torch.no_grad()
    def load() -> Delta:
        parameter = model.get_parameter(path)
        is_bias = path.endswith("bias")
        now = part(parameter.detach(), site)
        start = now if before is None or not parameter.requires_grad else part(before().to(now), site)
        change = as_float(now) - as_float(start)
        for edit in edits:
            more = edit.delta_bias(now) if is_bias else edit.delta(now)
            change = change if more is None else change + more
        factors = None if is_bias or start is not now else _factors(edits, change)
        role, layer = (site.role, site.layer) if site else (None, None)
        stored_as = parameter.dtype if start is not now else None
        return Delta(own, role, layer, as_float(start), change, factors, stored_as)

    return load


def _factors(edits: list[WeightEdit], change: Tensor) -> tuple[Tensor, Tensor] | None:
    """The factors of the change where it is their product."""
    found = edits[0].factors() if len(edits) == 1 else None
    if found is None:
        return None
    a, b = found
    return (a, b) if (b @ a - change).norm() <= SAME_FACTORS * change.norm() else None


def _of_peft(model: nn.Module, skeleton: Skeleton) -> Deltas:
    """Layer by layer: folded in, read, and taken out again, to the last bit."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    loaders: dict[str, Callable[[], Delta]] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer) and isinstance(getattr(layer.get_base_layer(), "weight", None), Tensor):
            name = skeleton.short(f"{path}.weight")
            for own, site in parts_of(name, skeleton):
                loaders[own] = _peft_loader(layer, own, site)
    if not loaders:
        raise ConfigError("a spectrum needs a change of weights, this method of peft's makes none")
    return Deltas(loaders, ["the head that peft trains beside its layers is left out"])


def _peft_loader(layer: nn.Module, own: str, site: Site | None) -> Callable[[], Delta]:
    @torch.no_grad()
    def load() -> Delta:
        weight = layer.get_base_layer().weight  # type: ignore[operator]
        before = weight.detach().clone()
        layer.merge()  # type: ignore[operator]
        after = layer.get_base_layer().weight.detach().clone()  # type: ignore[operator]
        layer.unmerge()  # type: ignore[operator]
        layer.get_base_layer().weight.copy_(before)  # type: ignore[operator]
        role, number = (site.role, site.layer) if site else (None, None)
        first, second = part(before, site), part(after, site)
        return Delta(own, role, number, as_float(first), as_float(second) - as_float(first))

    return load


def _notes(tuned: Tuned, known: Iterable[str], skeleton: Skeleton) -> list[str]:
    others = {type(edit).__name__ for _, edit in tuned.placed() if not isinstance(edit, WeightEdit | Unfreeze)}
    notes = [f"`{name}` adds what no change of weights expresses: it is left out" for name in sorted(others)]
    known = set(known)
    of_head = [f"{path}.{name}" for path in tuned.backbone.head for name in tuned.backbone.module(path).state_dict()]
    if any(skeleton.short(name) not in known for name in of_head):
        notes.append(f"the head ({', '.join(tuned.backbone.head)}) is trained too and left out: the base has none")
    return notes
