"""Seats: module trees on the shared base where experts of one form sit, one at a time."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.sites import weight_of
from deltaproof.compression.restore import Starts, base_starts
from deltaproof.errors import ConfigError, RecordError
from deltaproof.methods import method_from
from deltaproof.methods.edits import ModelEdit
from deltaproof.methods.tuned import Tuned, attach, place
from deltaproof.seeding import generator
from deltaproof.serving.held import Held, plain_name
from deltaproof.serving.listing import Signature
from deltaproof.serving.packed import Packed
from deltaproof.serving.shared import SharedBase, move
from deltaproof.tasks.text import TextTask


class Seat(ABC):
    """One tree. An expert sits down by pointing the tree's parameters at its tensors: nothing is copied."""

    model: nn.Module
    """What answers."""
    sitting: tuple[str, Signature, Held] | None = None
    """Who sits here, by name and files."""

    def __init__(self, base: SharedBase, held: Held) -> None:
        self.base = base
        self.tree, self.missing = base.tree(held.form.n_outputs)
        self._described: TextTask | None = None
        self.places: dict[str, Tensor] = {}
        """The tree's parameters and buffers by the names under which experts store their values."""

    def fits(self, held: Held) -> bool:
        """Whether an expert of the same form can sit here."""
        return True

    def tensors(self, held: Held) -> dict[str, Tensor]:
        """The expert's tensors, decoded, in the types and on the device of their places.

        Raises:
            RecordError: they are not those that this form has. CorruptFileError: a code is damaged.
        """
        self._check(held)
        stored = held.stored
        found = stored.tensors(self.starts(held, stored)) if isinstance(stored, Packed) else stored
        return {name: move(tensor, self.places[name]) for name, tensor in found.items()}

    def _check(self, held: Held) -> None:
        own = self.shapes
        if held.shapes == own:
            return
        if different := sorted(held.shapes.keys() ^ own.keys()):
            raise RecordError(
                f"an expert must hold the tensors of its kind, no more and no fewer, in {held.what} these differ: "
                f"{different[:4]}; save it anew with the versions that are installed"
            )
        name = next(name for name in own if held.shapes[name] != own[name])
        raise RecordError(
            f"`{name}` must have the shape {list(own[name])} on the base `{self.base.name}`, {held.what} has "
            f"{list(held.shapes[name])}; serve it on the base that it was tuned on"
        )

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the places; whoever sits has the same."""
        return {name: tuple(tensor.shape) for name, tensor in self.places.items()}

    @abstractmethod
    def starts(self, held: Held, packed: Packed) -> Starts:
        """What the compressed changes are counted from."""

    def sit(self, tensors: Mapping[str, Tensor], task: TextTask) -> None:
        """Let an expert take the seat; nothing here can fail."""
        for name, tensor in tensors.items():
            self.places[name].data = tensor
        self._describe(task)

    def _describe(self, task: TextTask) -> None:
        """Let the tree say what its outputs are."""
        if task.labels and task is not self._described:
            self.tree.config.id2label = dict(enumerate(task.labels))
            self.tree.config.label2id = {label: at for at, label in enumerate(task.labels)}
        self._described = task

    def check_filled(self, names: set[str], held: Held) -> None:
        """Refuse an expert whose head would be whatever lay in memory."""
        if lacking := sorted(self.missing - names):
            raise RecordError(
                f"an expert must bring what its base lacks, such as the head, {held.what} has no `{lacking[0]}`; save "
                f'it with its head (`task_type="SEQ_CLS"` or `modules_to_save` in peft)'
            )


class OwnSeat(Seat):
    """For tuned models that `train` or `compare` saved, by any method but full fine-tuning."""

    def __init__(self, base: SharedBase, held: Held) -> None:
        super().__init__(base, held)
        self.backbone = base.backbone(self.tree, held.form.n_outputs)
        self.method, self.seed = method_from(held.spec["method"]), held.seed
        self.tuned = attach(self.backbone, self.method, self.seed)
        buffers = {
            f"{where}.{name}": tensor
            for where, (_, edit) in zip(self.tuned.places(), self.tuned.placed(), strict=True)
            for name, tensor in edit.stored_buffers().items()
        }
        self.places = {**self.tuned.trained(), **buffers}
        self.model = self.tuned.requires_grad_(False).eval()
        self._fresh: Tuned | None = None

    def fits(self, held: Held) -> bool:
        """What peft draws from the seed and stores nowhere lies in the seat."""
        return held.seed == self.seed or not any(isinstance(edit, ModelEdit) for edit in self.tuned.edits)

    def tensors(self, held: Held) -> dict[str, Tensor]:
        found = super().tensors(held)
        for where, (_, edit) in zip(self.tuned.places(), self.tuned.placed(), strict=True):
            start = f"{where}."
            edit.verify({name.removeprefix(start): here for name, here in found.items() if name.startswith(start)})
        return found

    def starts(self, held: Held, packed: Packed) -> Starts:
        """Start values from the expert's own seed, drawn in edits where nobody sits."""
        wanted = packed.drawn
        if self._fresh is None:
            self._fresh = place(self.backbone, self.method)
            self._fresh.edits.to(self.base.device)
            self.tree.requires_grad_(False)
        drawn: dict[str, Tensor] = {}
        for where, (site, edit) in zip(self._fresh.places(), self._fresh.placed(), strict=True):
            names = {f"{where}.{name}": tensor for name, tensor in edit.named_parameters()}
            if wanted & names.keys():
                weight = weight_of(self.backbone.module(site), site) if site is not None and site.has_weight else None
                edit.start(weight, generator(held.seed, "method", where))
                drawn |= names
        return drawn.__getitem__


class PeftSeat(Seat):
    """For adapters that peft saved, of every kind of peft's that classifies sequences."""

    def __init__(self, base: SharedBase, held: Held) -> None:
        import peft

        super().__init__(base, held)
        settings = {**json.loads(held.form.settings), "inference_mode": True}
        try:
            with quiet(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                config = peft.PeftConfig.from_peft_type(**settings)
                self.wrapped: Any = peft.get_peft_model(self.tree, config)
                stored = peft.get_peft_model_state_dict(self.wrapped, save_embedding_layers=False)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise ConfigError(
                f"an adapter must fit the base that it is served on, peft says of {held.what}: {reason}; serve it on "
                f"its own base"
            ) from error
        self.model = self.wrapped.requires_grad_(False).eval()
        at = {value.data_ptr(): value for value in (*self.wrapped.parameters(), *self.wrapped.buffers())}
        self.places = {name: at.get(value.data_ptr(), value) for name, value in stored.items()}
        self._by_peft = any(value.data_ptr() not in at for value in stored.values())
        if self._by_peft:  # peft then copies into the tree's tensors, which must not be the base's
            for parameter in self.wrapped.parameters():
                parameter.data = parameter.data.clone()
        self.check_filled({plain_name(name) for name in self.places}, held)

    def starts(self, held: Held, packed: Packed) -> Starts:
        return _no_starts

    def sit(self, tensors: Mapping[str, Tensor], task: TextTask) -> None:
        if not self._by_peft:
            super().sit(tensors, task)
            return
        import peft

        peft.set_peft_model_state_dict(self.wrapped, dict(tensors))
        self._describe(task)


def _no_starts(name: str) -> Tensor:
    raise RecordError(
        f"`{name}` of an adapter must be counted from zeros or ones to be served; write the adapter as a folder with "
        f"`deltaproof decompress` and serve that"
    )


class ModelSeat(Seat):
    """For whole models: every parameter is the expert's own while it sits here."""

    def __init__(self, base: SharedBase, held: Held) -> None:
        super().__init__(base, held)
        self.places = dict(self.tree.state_dict(keep_vars=True))
        self.model = self.tree

    def starts(self, held: Held, packed: Packed) -> Starts:
        return base_starts(self.base.files, packed.shapes, held.what)


_SEATS: dict[str, type[Seat]] = {"tuned": OwnSeat, "peft": PeftSeat, "model": ModelSeat}


def seat_for(base: SharedBase, held: Held) -> Seat:
    """A new seat for experts of this one's form.

    Raises:
        ConfigError: the method or adapter does not go with the base.
        RecordError: the expert lacks what the base lacks too.
    """
    return _SEATS[held.form.kind](base, held)
