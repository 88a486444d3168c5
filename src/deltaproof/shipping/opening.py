"""A folder opened as its user would open it, by transformers and peft, with what those libraries left to chance."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.source import find_source
from deltaproof.errors import BackboneError, ConfigError, DeltaproofError
from deltaproof.records.store import read_json
from deltaproof.saving.folder import FACTS, load_tuned
from deltaproof.shipping.folders import EVIDENCE, Kind, kind_of, model_name, tensors_of
from deltaproof.theory.adapters import CONFIG
from deltaproof.theory.checkpoints import Checkpoint

_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
"""Of peft's kinds of task; encoder-decoder models are not opened."""
_NO_NAME = re.compile(r"LABEL_\d+")
_MARK = 1013
"""A number of labels that no width of a model equals."""


@dataclass
class Opened:
    """A model in fp32, ready to answer."""

    folder: Path
    kind: Kind
    model: nn.Module
    missing: tuple[str, ...] = ()
    """Parameters that no file holds, so that they were drawn at random on opening."""
    labels: tuple[str, ...] | None = None
    """Names of the outputs, where the folder tells them."""
    n_outputs: int | None = None
    """Of a classifier."""
    class_name: str = ""
    parameter_names: frozenset[str] = field(default_factory=frozenset)
    """Of the plain model, without an adapter's."""

    def answers(self, rows: Sequence[dict[str, Tensor]]) -> list[np.ndarray]:
        return answers_of(self.model, rows)


@torch.inference_mode()
def answers_of(model: nn.Module, rows: Sequence[dict[str, Tensor]]) -> list[np.ndarray]:
    """What a model puts out for each row: logits (n,), or (tokens, n) where it answers at every token.

    Each row goes through alone, so that no padding enters.
    """
    model.eval()
    device = next(model.parameters()).device
    found = []
    for row in rows:
        output = model(**{name: value.to(device) for name, value in row.items()})
        logits = output.logits if getattr(output, "logits", None) is not None else output[0]
        found.append(logits[0].double().cpu().numpy())
    return found


def open_model_folder(folder: Path, as_stored: bool = False) -> Opened:
    """A folder that `save_pretrained` wrote, by the class that its configuration names.

    Args:
        as_stored: reckon in the type of its weights, as transformers does unless it is told otherwise.

    Raises:
        BackboneError: transformers cannot open it.
    """
    import transformers

    config = _config(folder)
    name = (config.architectures or ["AutoModel"])[0]
    kind = getattr(transformers, name, None)
    if kind is None:
        raise BackboneError(f"config.json must name a class of transformers, `{folder}` has `{name}`; save it again")
    model, missing = _from_pretrained(kind, folder, config, "auto" if as_stored else torch.float32)
    return _opened(folder, "model", model, missing, _labels_of(config))


def open_on_base(base: str, folder: Path, like: Path | None = None) -> Opened:
    """An adapter of peft's, or what `train` or `compare` saved, put on a base.

    Args:
        like: a whole model of the same class and head, for what the adapter itself does not tell.
    Raises:
        BackboneError: the two do not go together.
    """
    if kind_of(folder) == "tuned":
        return _open_own(base, folder)
    import peft
    import transformers

    settings = read_json(folder / CONFIG)
    tensors = tensors_of(folder, "adapter")
    source = find_source(base).folder
    config = _config(source)
    name = _CLASSES.get(settings.get("task_type") or "", "")
    if not name:
        if settings.get("task_type"):
            raise BackboneError(
                f"an adapter must be for a task that can be opened here ({', '.join(_CLASSES)}), `{folder}` is for "
                f"{settings['task_type']}; gate the merged model alone"
            )
        name = ((config if like is None else _config(like)).architectures or ["AutoModel"])[0]
    kind = getattr(transformers, name)
    if name.endswith("ForSequenceClassification"):
        own = _config(like).num_labels if like is not None else config.num_labels
        config.num_labels = _n_outputs(config, kind, tensors) or own
    model, missing = _from_pretrained(kind, source, config)
    from_base = {name for name, _ in model.named_parameters()} - set(missing)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            wrapped: Any = peft.PeftModel.from_pretrained(model, str(folder))
            expected = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    except DeltaproofError:
        raise
    except Exception as error:
        raise BackboneError(_why_it_does_not_open(folder, settings, tensors, error)) from error
    held = {model_name(stored) for stored in tensors}
    # peft's copies of what a trained module replaces (`original_module`) are never used
    wanted = {model_name(stored) for stored in expected if stored not in tensors and ".original_module." not in stored}
    lacking = sorted(wanted - from_base - held)
    unfilled = (*(name for name in missing if name not in held and name not in lacking), *lacking)
    opened = _opened(folder, "adapter", wrapped, unfilled, _own_labels(folder))
    opened.class_name = type(model).__name__
    opened.parameter_names = frozenset(model_name(name).replace(".default.", ".") for name, _ in _inner(wrapped))
    return opened


def _why_it_does_not_open(folder: Path, settings: dict[str, Any], tensors: Checkpoint, error: Exception) -> str:
    saved = settings.get("modules_to_save") or []
    if saved and not any(f".{module}." in name for module in saved for name in tensors):
        return (
            f"an adapter must hold its head, the configuration of `{folder}` says that {' or '.join(saved)} is saved "
            f"and no tensor is of it; save the adapter again with its head"
        )
    if isinstance(error, KeyError):
        return f"an adapter must hold all that its configuration says, `{folder}` lacks {_first(error)}; save it again"
    return f"an adapter must fit its base, peft says of `{folder}`: {_first(error)}"


def _inner(wrapped: Any) -> list[tuple[str, Tensor]]:
    return list(wrapped.base_model.model.named_parameters() if hasattr(wrapped.base_model, "model") else [])


def _open_own(base: str, folder: Path) -> Opened:
    tuned, task, _ = load_tuned(folder, base=base)
    opened = _opened(folder, "tuned", tuned, (), task.labels)
    opened.n_outputs, opened.class_name = task.n_outputs, type(tuned.backbone.model).__name__
    return opened


def _opened(
    folder: Path, kind: Kind, model: nn.Module, missing: Sequence[str], labels: tuple[str, ...] | None
) -> Opened:
    names = frozenset(name for name, _ in model.named_parameters())
    is_classifier = "ForSequenceClassification" in type(model).__name__ or kind == "adapter"
    n_outputs = getattr(model.config, "num_labels", None) if is_classifier and hasattr(model, "config") else None
    return Opened(folder, kind, model.eval(), tuple(missing), labels, n_outputs, type(model).__name__, names)


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder)
    except Exception as error:
        raise BackboneError(f"`{folder}` must have a config.json that transformers knows: {_first(error)}") from error
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(f"encoder-decoder models cannot be gated yet, `{folder}` is one; compare its outputs by hand")
    return config


def _from_pretrained(
    kind: Any, folder: Path, config: Any, dtype: torch.dtype | str = torch.float32
) -> tuple[Any, list[str]]:
    """The model, and what its files lack; one seed, so that what is drawn at random is at least drawn the same."""
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, information = kind.from_pretrained(
                folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True,
                ignore_mismatched_sizes=True,
            )  # fmt: skip
    except Exception as error:
        raise BackboneError(f"`{folder}` must open with transformers, it says: {_first(error)}") from error
    mismatched = [entry[0] for entry in information["mismatched_keys"]]
    return model, sorted({*information["missing_keys"], *mismatched})


def _n_outputs(config: Any, kind: Any, tensors: Checkpoint) -> int | None:
    """Labels of the head that an adapter holds: rows of those of its tensors whose rows are labels in the model."""
    config = copy.deepcopy(config)
    config.num_labels = _MARK
    with torch.device("meta"), quiet():
        model = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    names = {name for name, value in model.named_parameters() if value.shape[0] == _MARK}
    return next((tensors.shape(stored)[0] for stored in tensors if model_name(stored) in names), None)


def labels_in(folder: Path) -> tuple[str, ...] | None:
    """The names that a folder's config.json gives to the outputs; None where it has numbers only."""
    return _labels_of(_config(folder))


def _labels_of(config: Any) -> tuple[str, ...] | None:
    """The names that a configuration gives; None where it has numbers only."""
    names = tuple(str(config.id2label[at]) for at in sorted(config.id2label or {}))
    return None if not names or all(_NO_NAME.fullmatch(name) for name in names) else names


def _own_labels(folder: Path) -> tuple[str, ...] | None:
    """Of an adapter that this package wrote: peft's files have no place for them."""
    for name in (FACTS, EVIDENCE):
        if (folder / name).is_file():
            labels = read_json(folder / name).get("task", {}).get("labels")
            return tuple(labels) if labels else None
    return None


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
