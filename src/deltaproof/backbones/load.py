"""Load a pretrained model as a sequence classifier: one call, the same bits for the same seed."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.families import FAMILIES, Family
from deltaproof.backbones.head import check_base_was_loaded, head_paths, modules_on_top, output_layers, start_afresh
from deltaproof.backbones.locate import find_sites, layer_paths
from deltaproof.backbones.source import Source, find_source
from deltaproof.backbones.structure import discover_family
from deltaproof.backbones.tokenizing import load_tokenizer, max_length_of, prepare_tokenizer, separates_pairs
from deltaproof.errors import BackboneError, ConfigError, nearest

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
    Raises:
        BackboneError: the model cannot be found, read, or taken apart.
        ConfigError: kind, outputs and labels do not fit each other.
    """
    _check_task(kind, n_outputs, labels)
    source = find_source(name_or_path, revision)
    with _quiet():
        config = _read_config(source, name_or_path, trust_remote_code)
        keeps_labels = _same_labels(config, kind, labels)
        _describe_task(config, kind, n_outputs, labels)
        model, lacked = _read_model(source, config, name_or_path, trust_remote_code, attention)
        tokenizer = load_tokenizer(source.folder, name_or_path, trust_remote_code)
    check_base_was_loaded(model, name_or_path, lacked)
    notes = _head_notes(model, lacked, keeps_labels, n_outputs)
    if not keeps_labels:
        lacked |= {f"{path}.{name}" for path in output_layers(model, n_outputs) for name in ("weight", "bias")}
    lacked &= {name for name, _ in model.named_parameters()}
    start_afresh(model, lacked, seed)
    head = head_paths(model, lacked)
    return as_backbone(model, tokenizer, name_or_path, head, source.revision, source.fingerprint(), notes)


def as_backbone(
    model: Any, tokenizer: Any, name: str, head: Sequence[str], revision: str, fingerprint: str, notes: Sequence[str]
) -> Backbone:
    """Take a sequence classifier apart into sites and make its tokenizer pad."""
    prepare_tokenizer(tokenizer, model, name)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # nothing is generated, and the cache would hold memory
    family, family_notes = family_of(model)
    return Backbone(
        model=model,
        tokenizer=tokenizer,
        family=model.config.model_type,
        head=tuple(head),
        n_layers=len(layer_paths(model, family)),
        name=name,
        revision=revision,
        fingerprint=fingerprint,
        max_length=max_length_of(tokenizer, model),
        separates_pairs=separates_pairs(tokenizer),
        all_sites=find_sites(model, family, head),
        unreachable=dict(family.unreachable or {}),
        notes=[*notes, *family_notes],
    )


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


def _check_task(kind: str, n_outputs: int, labels: Sequence[str] | None) -> None:
    if kind not in PROBLEM_TYPES:
        raise ConfigError(f"`kind` must be a kind of task, got `{kind}`; {nearest(kind, PROBLEM_TYPES)}")
    least, most = {"classification": (2, None), "regression": (1, 1), "multilabel": (1, None)}[kind]
    if n_outputs < least or (most is not None and n_outputs > most):
        rule = f"`n_outputs == {least}`" if most == least else f"`n_outputs >= {least}`"
        raise ConfigError(f"{rule} must hold for {kind}, got {n_outputs}; check the labels")
    if labels is not None and len(labels) != n_outputs and kind != "regression":
        raise ConfigError(f"`len(labels) == n_outputs` must hold, got {len(labels)} and {n_outputs}; name each output")


def _read_config(source: Source, name: str, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    with _translated(name):
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=trust_remote_code)
    if getattr(config, "is_encoder_decoder", False):
        raise BackboneError(
            f"a model must be an encoder or a decoder, `{name}` ({config.model_type}) is both; "
            f"use an encoder such as RoBERTa, or a decoder such as Qwen"
        )
    return config


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


def _read_model(
    source: Source, config: Any, name: str, trust_remote_code: bool, attention: str | None
) -> tuple[Any, set[str]]:
    """The model, and the names of the parameters that its checkpoint did not hold in this shape."""
    from transformers import AutoModelForSequenceClassification

    options = {} if attention is None else {"attn_implementation": attention}
    with _translated(name), torch.random.fork_rng(devices=[]):
        model, information = AutoModelForSequenceClassification.from_pretrained(
            source.folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **options,
        )
    mismatched = {entry[0] for entry in information["mismatched_keys"]}
    _check_mismatches(model, name, mismatched)
    return model, set(information["missing_keys"]) | mismatched


def _check_mismatches(model: Any, name: str, mismatched: set[str]) -> None:
    on_top = modules_on_top(model)
    wrong = sorted(key for key in mismatched if key.split(".")[0] not in on_top)
    if wrong:
        raise BackboneError(
            f"the checkpoint's shapes must be those of config.json, `{name}` differs at `{wrong[0]}`; "
            f"check that config.json and the weights belong together"
        )


def _head_notes(model: Any, lacked: set[str], keeps_labels: bool, n_outputs: int) -> list[str]:
    out = output_layers(model, n_outputs)
    if not out or any(name.startswith(out[0] + ".") for name in lacked):
        return []
    if keeps_labels:
        return [f"the checkpoint is a classifier with these outputs: its head (`{out[0]}`) is kept as a start"]
    return [f"the checkpoint is a classifier for other labels: its last layer (`{out[0]}`) starts afresh"]


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Turn what transformers raises into an error with a remedy."""
    try:
        yield
    except BackboneError:
        raise
    except Exception as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = "check that the folder holds what `save_pretrained` wrote and that transformers is recent enough"
        if "trust_remote_code" in str(error):
            text, remedy = "it brings Python code of its own, which is never run unasked", "read that code, then allow it"
            remedy += " with `trust_remote_code`"
        elif "Unrecognized configuration class" in str(error):
            text = "transformers has no sequence classifier for this kind of model"
            remedy = "choose a text encoder or decoder"
        raise BackboneError(f"`{name}` must load as a sequence classifier: {text}; {remedy}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' reports and bars off the screen; what matters of them stands in `Backbone.notes`."""
    from transformers.utils import logging

    before, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        if had_bar:
            logging.enable_progress_bar()
