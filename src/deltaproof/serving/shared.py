"""A base model that is read once. Trees of modules stand on it, which share the storage of its weights."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.head import (
    check_base_was_loaded,
    head_paths,
    modules_on_top,
    output_parameters,
    start_afresh,
)
from deltaproof.backbones.load import as_backbone
from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.reading import read_config, read_model
from deltaproof.backbones.source import find_source
from deltaproof.backbones.tokenizing import load_tokenizer
from deltaproof.errors import BackboneError, RecordError
from deltaproof.theory.checkpoints import Checkpoint, open_model


class SharedBase:
    """The base in fp32 and in evaluation mode. Nothing writes into its weights: what an expert changes lies beside."""

    def __init__(self, name: str, device: torch.device, trust_remote_code: bool = False) -> None:
        self.name, self.device = name, device
        source = find_source(name)
        self.folder, self.revision, self.fingerprint = source.folder, source.revision, source.fingerprint()
        with quiet():
            config = read_config(source, name, trust_remote_code)
            self.is_classifier = any("ForSequenceClassification" in kind for kind in config.architectures or ())
            model, lacked = read_model(source, config, name, trust_remote_code, None)
            self.tokenizer = load_tokenizer(source.folder, name, trust_remote_code)
        check_base_was_loaded(model, name, lacked)
        self.lacked = lacked & {key for key, _ in model.named_parameters()}
        start_afresh(model, self.lacked, 0)
        self.model: Any = model.requires_grad_(False).eval().to(device)
        self.n_outputs = int(self.model.config.num_labels)
        self.output_names = output_parameters(self.model, self.n_outputs)
        """Parameters whose rows are the outputs."""
        self.max_length = self.backbone(self.model, self.n_outputs).max_length
        self._files: Checkpoint | None = None

    @property
    def files(self) -> Checkpoint:
        """The base's tensors as they are stored."""
        if self._files is None:
            self._files = open_model(str(self.folder))
        return self._files

    @property
    def n_bytes(self) -> int:
        """Of the weights in memory."""
        return sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())

    def tree(self, n_outputs: int) -> tuple[Any, set[str]]:
        """The model's modules once more, with parameters of their own whose storage is the base's.

        Whoever puts another tensor into such a parameter (`parameter.data = …`) leaves the base as it is.

        Returns:
            the model, and the names of its parameters that no file of the base holds: an expert must bring them.
        """
        memo: dict[int, Any] = {
            id(parameter): nn.Parameter(parameter.data, requires_grad=False) for parameter in self.model.parameters()
        }
        memo |= {id(buffer): buffer.detach() for buffer in self.model.buffers()}
        tree: Any = copy.deepcopy(self.model, memo)
        if n_outputs == self.n_outputs:
            return tree, set(self.lacked)
        return tree, set(self.lacked) | self._resize(tree, n_outputs)

    def backbone(self, tree: Any, n_outputs: int) -> Backbone:
        """A tree taken apart into sites, as `load_backbone` would give it."""
        lacked = self.lacked | output_parameters(tree, n_outputs)
        head = head_paths(tree, lacked, self.is_classifier)
        return as_backbone(tree, self.tokenizer, self.name, head, self.revision, self.fingerprint, ())

    def _resize(self, tree: Any, n_outputs: int) -> set[str]:
        """Give a tree a head of so many outputs; returns the names of what is new in it."""
        tree.config.id2label = {at: f"LABEL_{at}" for at in range(n_outputs)}
        with torch.device("meta"), quiet():
            shell: Any = type(tree)(tree.config)
        own, new = dict(self.model.named_parameters()), set()
        for path in modules_on_top(shell):
            top = shell.get_submodule(path).to_empty(device=self.device).requires_grad_(False).eval()
            for name, parameter in top.named_parameters():
                known = own.get(f"{path}.{name}")
                if known is not None and known.shape == parameter.shape:
                    parameter.data = known.data
                else:
                    parameter.data.zero_()
                    new.add(f"{path}.{name}")
            tree.set_submodule(path, top)
        tree.num_labels = n_outputs
        return new

    def check_names_its_base(self, named: object, fingerprint: object, what: str) -> None:
        """Whether an expert that records its base, or names one that lies here, is of this one.

        Raises:
            RecordError: it is of another.
        """
        said = f"fingerprint {fingerprint}"
        if fingerprint is None and isinstance(named, str) and Path(named).expanduser().is_dir():
            try:
                fingerprint, said = self._fingerprint_at(named), f"`{named}`, which has other weights"
            except BackboneError:
                return
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise RecordError(
                f"an expert must be of the base that it is served on, {what} is of {said}, the base `{self.name}` has "
                f"fingerprint {self.fingerprint}; serve it on its own base"
            )

    def _fingerprint_at(self, folder: str) -> str:
        """Of another folder; each is read once."""
        known: dict[str, str] = vars(self).setdefault("_fingerprints", {str(self.folder): self.fingerprint})
        place = str(Path(folder).expanduser())
        if place not in known:
            known[place] = find_source(place).fingerprint()
        return known[place]


def move(tensor: Tensor, like: Tensor) -> Tensor:
    """On the device and in the type of another."""
    return tensor.to(like.device, like.dtype)
