"""Load a pretrained model as a sequence classifier: one call, the same bits for the same seed."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.families import FAMILIES, Family
from deltaproof.backbones.head import (
    check_base_was_loaded,
    check_head_skips_padding,
    head_paths,
    modules_on_top,
    output_parameters,
    start_afresh,
)
from deltaproof.backbones.locate import find_sites, layer_paths
from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.reading import read_config, read_model
from deltaproof.backbones.roles import ATTENTION, FFN
from deltaproof.backbones.sites import Site
from deltaproof.backbones.source import find_source
from deltaproof.backbones.structure import discover_family
from deltaproof.backbones.tokenizing import load_tokenizer, max_length_of, prepare_tokenizer, separates_pairs
from deltaproof.errors import ConfigError, nearest

PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "regression": "regression",
    "multilabel": "multi_label_classification",
}


def load_backbone(
    name_or_path: str,
    kind: str,
    n_outputs: int,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
    revision: str | None = None,
    attention: Literal["eager", "sdpa"] | None = None,
    fingerprint: str | None = None,
) -> Backbone:
    """A pretrained model with a head for this task, in fp32, and its tokenizer.

    Args:
        name_or_path: a folder, a hub id, or `minilm`, the model of the demo.
        kind: classification, regression or multilabel.
        n_outputs: classes, labels, or 1 for regression.
        labels: their names, written into the configuration; a checkpoint that is a classifier for the same names
            keeps its head.
        seed: the head's start depends on it and on nothing else.
        trust_remote_code: run Python code that comes with the model.
        attention: `eager` where attention maps must be seen; None leaves the choice to transformers.
        fingerprint: of the model, where it is known; its files are read once more for it otherwise.
    Raises:
        BackboneError: the model cannot be found, read, or taken apart.
        ConfigError: kind, outputs and labels do not fit each other.
    """
    _check_task(kind, n_outputs, labels)
    labels = None if kind == "regression" else labels
    source = find_source(name_or_path, revision)
    with quiet():
        config = read_config(source, name_or_path, trust_remote_code)
        is_classifier = any("ForSequenceClassification" in name for name in config.architectures or ())
        keeps_labels = _same_labels(config, kind, labels)
        _describe_task(config, kind, n_outputs, labels)
        model, lacked = read_model(source, config, name_or_path, trust_remote_code, attention)
        tokenizer = load_tokenizer(source.folder, name_or_path, trust_remote_code)
    check_base_was_loaded(model, name_or_path, lacked)
    if not keeps_labels:
        lacked |= output_parameters(model, n_outputs)
    lacked &= {name for name, _ in model.named_parameters()}
    start_afresh(model, lacked, seed)
    head = head_paths(model, lacked, is_classifier)
    notes = _notes(model, lacked, is_classifier, n_outputs)
    fingerprint = fingerprint or source.fingerprint()
    found = as_backbone(model, tokenizer, name_or_path, head, source.revision, fingerprint, notes)
    brings_head = is_classifier and not lacked & output_parameters(model, n_outputs)
    return replace(found, brings_head=brings_head, lacked=frozenset(lacked))


def as_backbone(
    model: Any, tokenizer: Any, name: str, head: Sequence[str], revision: str, fingerprint: str, notes: Sequence[str]
) -> Backbone:
    """Take a sequence classifier apart into sites and make its tokenizer pad."""
    check_head_skips_padding(model, name)
    prepare_tokenizer(tokenizer, model, name)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # nothing is generated, and the cache would hold memory
    family, family_notes = family_of(model)
    n_layers, sites = len(layer_paths(model, family)), find_sites(model, family, head)
    return Backbone(
        model=model,
        tokenizer=tokenizer,
        family=model.config.model_type,
        head=tuple(head),
        n_layers=n_layers,
        name=name,
        revision=revision,
        fingerprint=fingerprint,
        max_length=max_length_of(tokenizer, model),
        separates_pairs=separates_pairs(tokenizer),
        all_sites=sites,
        unreachable=dict(family.unreachable or {}),
        notes=[*notes, *family_notes, *_layer_notes(model, sites, n_layers)],
    )


def backbone_of(model: Any, tokenizer: Any, name: str = "a model in memory") -> Backbone:
    """A `transformers` model in memory, ready for `attach`: a sequence classifier, or a causal language model.

    A classifier's head is trained by every method; a language model has none, its output layer stays as it is.
    The model itself is used, not a copy of it.
    """
    is_classifier = hasattr(model, "num_labels") and "ForSequenceClassification" in type(model).__name__
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode() + tensor.detach().cpu().float().numpy().tobytes())
    head = modules_on_top(model) if is_classifier else ()
    return as_backbone(model, tokenizer, name, head, "", digest.hexdigest()[:16], ())


def family_of(model: Any) -> tuple[Family, list[str]]:
    """The model's entry in the table, or one found by structure, with what a reader should know about it."""
    model_type = model.config.model_type
    notes = []
    if model_type in FAMILIES:
        family = FAMILIES[model_type]
    else:
        family = discover_family(model)
        names = ", ".join(f"{role} = {name}" for role, name in family.names.items())
        notes.append(f"family `{model_type}` is not in the tables: roles were found by structure: {names}")
    if family.unreachable:
        reasons = sorted(set(family.unreachable.values()))
        notes.append(f"no sites for {', '.join(family.unreachable)}: {'; '.join(reasons)}")
    return family, notes


def _layer_notes(model: Any, sites: Sequence[Site], n_layers: int) -> list[str]:
    """Say where layers are not as many, or not as alike, as one would think."""
    notes = []
    n_passes = getattr(model.config.get_text_config(), "num_hidden_layers", n_layers)
    if n_passes > n_layers:
        notes.append(f"{n_passes} passes share the weights of {n_layers} layer(s): an edit acts in every pass")
    for role in (*ATTENTION, *FFN):
        layers = [site.layer for site in sites if site.role == role]
        if 0 < len(layers) < n_layers:
            notes.append(f"`{role}` exists in {len(layers)} of {n_layers} layers only: {', '.join(map(str, layers))}")
    return notes


def _check_task(kind: str, n_outputs: int, labels: Sequence[str] | None) -> None:
    if kind not in PROBLEM_TYPES:
        raise ConfigError(f"`kind` must be a kind of task, got `{kind}`; {nearest(kind, PROBLEM_TYPES)}")
    least, most = {"classification": (2, None), "regression": (1, 1), "multilabel": (1, None)}[kind]
    if n_outputs < least or (most is not None and n_outputs > most):
        rule = f"`n_outputs == {least}`" if most == least else f"`n_outputs >= {least}`"
        raise ConfigError(f"{rule} must hold for {kind}, got {n_outputs}; check the labels")
    if labels is not None and len(labels) != n_outputs and kind != "regression":
        raise ConfigError(f"`len(labels) == n_outputs` must hold, got {len(labels)} and {n_outputs}; name each output")


def _same_labels(config: Any, kind: str, labels: Sequence[str] | None) -> bool:
    """Whether a head that the checkpoint may have would answer the same question."""
    if config.problem_type not in (None, PROBLEM_TYPES[kind]):
        return False
    return labels is None or [str(name).lower() for name in labels] == [
        str(name).lower() for _, name in sorted(config.id2label.items())
    ]


def _describe_task(config: Any, kind: str, n_outputs: int, labels: Sequence[str] | None) -> None:
    names = list(labels) if labels is not None else [f"LABEL_{index}" for index in range(n_outputs)]
    if labels is None and len(config.id2label) == n_outputs:
        names = [config.id2label[index] for index in sorted(config.id2label)]
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    config.problem_type = PROBLEM_TYPES[kind]


def _notes(model: Any, lacked: set[str], is_classifier: bool, n_outputs: int) -> list[str]:
    notes = []
    if is_classifier and lacked & output_parameters(model, n_outputs):
        notes.append("the checkpoint is a classifier for other labels: its last layer starts afresh")
    elif is_classifier:
        notes.append("the checkpoint is a classifier with these outputs: its head is kept as a start")
    in_base = sorted(name for name in lacked if name.split(".")[0] not in modules_on_top(model))
    if in_base:
        some = ", ".join(in_base[:4]) + (" …" if in_base[4:] else "")
        notes.append(f"the checkpoint lacks {some}: trained from scratch, by every method")
    return notes
