"""How many parameters a method trains on a model of which only the configuration is at hand: nothing is loaded."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.head import modules_on_top
from deltaproof.backbones.load import family_of
from deltaproof.backbones.locate import find_sites, layer_paths
from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.reading import read_config
from deltaproof.backbones.source import ALIASES, Source, find_source
from deltaproof.errors import ConfigError
from deltaproof.methods.base import Method
from deltaproof.methods.edits import ModelEdit
from deltaproof.methods.tuned import place
from deltaproof.seeding import generator


@dataclass(frozen=True)
class Count:
    """Numbers of parameters; one that several layers share counts once."""

    n_method: int
    """What the method trains beside the head."""
    n_head: int
    """What every method trains on top: the layers that put out the labels."""
    n_model: int
    """The whole model with its head, without what the method adds."""


def count_trainable(method: Method, config: Any, n_outputs: int = 2) -> Count:
    """Count on the meta device, where tensors have shapes and no memory.

    Args:
        config: a `transformers` configuration, the dict of one with its `model_type`, or the name of a model: a folder
            with config.json or a hub id, of which nothing else is fetched.
        n_outputs: labels of the head.
    Raises:
        BackboneError: the configuration is that of no sequence classifier.
        ConfigError: the method does not go with the model.
    """
    backbone = backbone_without_weights(config, n_outputs)
    n_model = sum(parameter.numel() for parameter in backbone.model.parameters())
    with torch.device("meta"), _explained(method):
        tuned = place(backbone, method)
    if any(isinstance(edit, ModelEdit) for edit in tuned.edits):  # only the wrapped model has its parameters
        for _, edit in tuned.placed():
            edit.start(None, generator(0, "count"))
        with torch.device("meta"), _explained(method):
            tuned.hook_up()
    n_head = sum(p.numel() for path in backbone.head for p in backbone.module(path).parameters() if p.requires_grad)
    return Count(tuned.n_trainable - n_head, n_head, n_model)


def backbone_without_weights(config: Any, n_outputs: int = 2) -> Backbone:
    """A sequence classifier on the meta device, with its sites; it has no tokenizer and no fingerprint.

    Args:
        config: as in `count_trainable`.
    """
    from transformers import AutoModelForSequenceClassification

    config = _config_of(config)
    config.num_labels = n_outputs
    with torch.device("meta"), quiet():
        model = AutoModelForSequenceClassification.from_config(config)
    family, notes = family_of(model)
    head = tuple(modules_on_top(model))
    return Backbone(
        model=model,
        tokenizer=None,
        family=config.model_type,
        head=head,
        n_layers=len(layer_paths(model, family)),
        name=f"a {config.model_type} without weights",
        revision="",
        fingerprint="",
        max_length=int(getattr(config, "max_position_embeddings", 0) or 0),
        separates_pairs=False,
        all_sites=find_sites(model, family, head),
        unreachable=dict(family.unreachable or {}),
        notes=notes,
    )


@contextmanager
def _explained(method: Method) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
        raise ConfigError(
            f"a method must be able to tell its parameters from shapes alone, `{method.label}` looks at the model's "
            f"weights first; attach it to the model itself and ask for `n_trainable`"
        ) from error


def _config_of(source: Any) -> Any:
    if isinstance(source, dict):
        from transformers import AutoConfig

        return AutoConfig.for_model(**source)
    if isinstance(source, str | Path):
        folder, name = Path(source).expanduser(), str(source)
        if name in ALIASES or (name.startswith((".", "~", "/")) and not folder.is_dir()):
            folder = find_source(name).folder  # which says what is wrong with a path
        return read_config(Source(folder, ""), name, trust_remote_code=False)
    return copy.deepcopy(source)
