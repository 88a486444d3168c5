"""Experts opened for merging: the change of each weight when it is asked for, and the head.

No expert is held as a whole dense model. Whole models and compressed files are read tensor by tensor; updates that
need their base in memory (LoRA, DoRA, IA3, BitFit, …) share the tensors of it that they leave as they are.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.compression.container import read_compressed
from deltaproof.compression.restore import decompress, load_compressed
from deltaproof.errors import ConfigError, RecordError
from deltaproof.merging.sources import ExpertSource
from deltaproof.merging.ternary_file import Signs, TernaryFile
from deltaproof.methods.edits import WeightEdit
from deltaproof.methods.peft_edit import PeftEdit
from deltaproof.methods.tuned import Tuned
from deltaproof.saving.folder import load_tuned
from deltaproof.theory.adapters import TENSORS, adapter_deltas, plain_name
from deltaproof.theory.checkpoints import Checkpoint, open_model
from deltaproof.theory.deltas import Deltas, between, part
from deltaproof.theory.in_memory import deltas_of
from deltaproof.theory.skeleton import Skeleton

Values = Callable[[str], Tensor | None]
"""A tensor of the tuned model by its name there, for those of the head; None where the expert holds no such tensor."""


@dataclass(frozen=True)
class Expert:
    """One expert, ready to be merged."""

    source: ExpertSource
    deltas: Deltas
    values: Values
    signs: Mapping[str, Callable[[], Signs]] = field(default_factory=dict)
    """Of changes that are ternary, by the names of `deltas`: signs and scale, without the dense change."""
    kept: Any = None
    """What must live as long as the expert does."""

    def head(self, names: list[str]) -> dict[str, Tensor]:
        """The expert's own values of the head's parameters.

        Raises:
            RecordError: it holds no head.
        """
        found = {name: self.values(name) for name in names}
        if lacking := [name for name, value in found.items() if value is None]:
            raise RecordError(
                f"an expert must bring its head, `{self.source.path}` has no `{lacking[0]}`; save it again with its "
                f"head (peft: `modules_to_save`)"
            )
        return {name: value for name, value in found.items() if value is not None}


class Opener:
    """Opens experts of one base, which share what they leave of it as it is."""

    def __init__(self, base: Checkpoint, skeleton: Skeleton | None, trust_remote_code: bool = False) -> None:
        self.base, self.skeleton, self.trust = base, skeleton, trust_remote_code
        self._shared: dict[str, Tensor] = {}

    def open(self, source: ExpertSource) -> Expert:
        """One expert.

        Raises:
            ConfigError: its method is no change of weights.
            RecordError, BackboneError, CorruptFileError: it cannot be read, or does not fit the base.
        """
        if source.kind == "file":
            return self._file(source)
        if source.kind == "model":
            tensors = open_model(str(source.path))
            return Expert(source, between(self.base, tensors, self.skeleton), lambda name: tensors.get(name))
        if source.kind == "adapter":
            return self._adapter(source, source.path)
        tuned, _, _ = load_tuned(source.path, self.trust, source.base)
        return self._in_memory(source, tuned)

    def _file(self, source: ExpertSource) -> Expert:
        holds = read_compressed(source.path).facts["holds"]
        if holds == "tuned":
            tuned, _, _ = load_compressed(source.path, self.trust, source.base)
            return self._in_memory(source, tuned)
        if holds == "peft":
            place = tempfile.TemporaryDirectory(prefix="deltaproof-")  # factors alone: small beside the base
            decompress(source.path, Path(place.name) / "adapter", self.trust, source.base)
            return self._adapter(source, Path(place.name) / "adapter", place)
        file = TernaryFile(source.path, self.base, self.skeleton)
        return Expert(source, file.deltas(), file.value, file.signs())

    def _adapter(self, source: ExpertSource, folder: Path, kept: Any = None) -> Expert:
        deltas = adapter_deltas(self.base, folder, self.skeleton)
        tensors = Checkpoint(folder, [folder / TENSORS])
        stored = {plain_name(name): name for name in tensors}
        return Expert(source, deltas, lambda name: tensors[stored[name]] if name in stored else None, kept=kept)

    def _in_memory(self, source: ExpertSource, tuned: Tuned) -> Expert:
        if not tuned.mergeable:
            raise ConfigError(
                f"only changes of weights and biases can be merged, `{tuned.method.label}` of `{source.path}` is more; "
                f"leave this expert out"
            )
        try:
            deltas = deltas_of(tuned, self.base)
        except ConfigError:
            raise ConfigError(
                f"an expert must change weights below its head, `{tuned.method.label}` of `{source.path}` changes "
                f"none; leave it out"
            ) from None
        self._share(tuned.backbone.model)
        return Expert(source, deltas, _values_of(tuned), kept=tuned)

    def _share(self, model: nn.Module) -> None:
        """Let go of tensors that another expert's model holds too, to the last bit."""
        for name, parameter in model.named_parameters():
            known = self._shared.setdefault(name, parameter.data)
            if known is not parameter.data and torch.equal(known, parameter.data):
                parameter.data = known


def _values_of(tuned: Tuned) -> Values:
    """Parameters of a tuned model by name, edits at them folded in."""
    peft_edits = [edit for _, edit in tuned.placed() if isinstance(edit, PeftEdit)]
    if peft_edits:
        import peft

        wrapped: Any = tuned.model
        stored = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        state = {plain_name(name): value for name, value in stored.items()}
        return state.get
    parameters = dict(tuned.backbone.model.named_parameters())
    sites = [(site, edit) for site, edit in tuned.placed() if site is not None and isinstance(edit, WeightEdit)]

    @torch.no_grad()
    def value(name: str) -> Tensor | None:
        if name not in parameters:
            return None
        trained = parameters[name].detach()
        found = trained.clone()
        path, _, last = name.rpartition(".")
        for site, edit in sites:  # `part` is a view: adding to it changes `found`
            if site.path == path and last == "weight":
                part(found, site).add_(edit.delta(part(trained, site)))
            elif site.path == path and (change := edit.delta_bias(part(trained, site))) is not None:
                part(found, site).add_(change)
        return found

    return value
