"""An expert as it is held in memory: compressed where it was compressed, and what tells which seat it takes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from deltaproof.compression.container import read_compressed
from deltaproof.compression.restore import check_facts
from deltaproof.errors import BackboneError, ConfigError, CorruptFileError
from deltaproof.records.store import read_json
from deltaproof.saving.folder import TENSORS, check_base, facts_of
from deltaproof.serving.listing import Kind, kind_of
from deltaproof.serving.packed import Packed
from deltaproof.serving.shared import SharedBase
from deltaproof.shipping.folders import EVIDENCE, model_name
from deltaproof.tasks.text import TextTask
from deltaproof.theory.adapters import CONFIG
from deltaproof.theory.adapters import TENSORS as ADAPTER
from deltaproof.theory.checkpoints import open_model, read_json_file

_PLACELESS = ("base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping")
"""Fields of a PEFT configuration that say nothing of the form."""


@dataclass(frozen=True)
class Form:
    """What two experts must have in common to take the same seat: all but the values of their tensors."""

    kind: Kind
    settings: str
    """The method or PEFT's configuration, as JSON."""
    n_outputs: int


@dataclass(frozen=True, eq=False)
class Held:
    """One expert."""

    what: str
    """As an error calls it."""
    form: Form
    task: TextTask
    spec: dict[str, Any]
    """Of a tuned model that `train` or `compare` saved; empty otherwise."""
    stored: Mapping[str, Tensor] | Packed

    @property
    def n_bytes(self) -> int:
        if isinstance(self.stored, Packed):
            return self.stored.n_bytes
        return sum(tensor.nbytes for tensor in self.stored.values())

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of its tensors."""
        if isinstance(self.stored, Packed):
            return self.stored.shapes
        return {name: tuple(tensor.shape) for name, tensor in self.stored.items()}

    @property
    def seed(self) -> int:
        return int(self.spec.get("seed", 0))


def read_expert(path: Path, base: SharedBase) -> Held:
    """Read an expert whole and check what can be checked before it takes its seat.

    Raises:
        CorruptFileError: a file is damaged. RecordError: it is of another base, or no expert.
        ConfigError: it is of a kind that cannot be served.
    """
    kind = kind_of(path)
    if kind == "dpz":
        return _from_file(path, base)
    if kind == "tuned":
        return _from_tuned(path, base)
    return _from_peft(path, base) if kind == "peft" else _from_model(path, base)


def _from_file(path: Path, base: SharedBase) -> Held:
    compressed = read_compressed(path)
    facts, what = compressed.facts, f"`{path}`"
    check_facts(facts, path)
    packed = Packed.of(compressed)
    if facts["holds"] == "peft":
        if facts.get("start") == "init":
            raise ConfigError(
                f"an adapter that was compressed against its start needs that start, which {what} does not hold; write "
                f"it as a folder with `deltaproof decompress … --initial` and serve that"
            )
        base.check_names_its_base(facts["base"]["name"], facts["base"].get("fingerprint"), what)
        return _of_peft(what, facts["config"], packed.shapes, packed, None, base)
    base.check_names_its_base(facts["base"]["name"], facts["base"].get("fingerprint"), what)
    if facts.get("spec") is None:
        return _of_model(what, facts["config"], packed, base)
    task, spec = TextTask.from_json(facts["task"]), dict(facts["spec"])
    return _of_tuned(what, "model" if facts["holds"] == "model" else "tuned", task, spec, packed)


def _from_tuned(path: Path, base: SharedBase) -> Held:
    task, spec = facts_of(path)
    check_base(base.fingerprint, spec, f"`{path}`")
    is_full = spec["method"]["name"] == "full"
    stored = _tensors_of_model(path) if is_full else _tensors(path / TENSORS)
    return _of_tuned(f"`{path}`", "model" if is_full else "tuned", task, spec, stored)


def _of_tuned(
    what: str, kind: Kind, task: TextTask, spec: dict[str, Any], stored: Mapping[str, Tensor] | Packed
) -> Held:
    settings = "" if kind == "model" else json.dumps(spec["method"], sort_keys=True)
    return Held(what, Form(kind, settings, task.n_outputs), task, spec, stored)


def _from_peft(path: Path, base: SharedBase) -> Held:
    config, what = read_json_file(path / CONFIG), f"`{path}`"
    if not (path / ADAPTER).is_file():
        raise ConfigError(
            f"an adapter's weights must be safetensors, {what} has no {ADAPTER} (pickled weights can run code and are "
            f"never opened); save it anew with `save_pretrained` where you trust it"
        )
    evidence = read_json(path / EVIDENCE) if (path / EVIDENCE).is_file() else {}
    recorded = evidence.get("base", {}).get("fingerprint")
    base.check_names_its_base(config.get("base_model_name_or_path"), recorded, what)
    tensors = _tensors(path / ADAPTER)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    task = TextTask.from_json(evidence["task"]) if "kind" in evidence.get("task", {}) else None
    return _of_peft(what, config, shapes, tensors, task, base)


def _of_peft(
    what: str, config: dict[str, Any], shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, Tensor] | Packed, task: TextTask | None, base: SharedBase,
) -> Held:  # fmt: skip
    if config.get("task_type") not in (None, "SEQ_CLS"):
        raise ConfigError(
            f"experts must classify sequences or tell numbers of them, {what} is for {config['task_type']}; load it "
            f"with peft"
        )
    rows = [shape[0] for name, shape in shapes.items() if plain_name(name) in base.output_names]
    n_outputs = rows[0] if rows else base.n_outputs
    settings = {name: value for name, value in config.items() if name not in _PLACELESS}
    form = Form("peft", json.dumps(settings, sort_keys=True), n_outputs)
    return Held(what, form, task or _task(n_outputs, {}, base), {}, stored)


def plain_name(stored: str) -> str:
    """A tensor's name in the model itself; kinds that learn prompts wrap the model once less.

    >>> plain_name("base_model.classifier.weight")
    'classifier.weight'
    """
    return model_name(stored).removeprefix("base_model.")


def _from_model(path: Path, base: SharedBase) -> Held:
    return _of_model(f"`{path}`", read_json_file(path / "config.json"), _tensors_of_model(path), base)


def _of_model(what: str, config: dict[str, Any], stored: Mapping[str, Tensor] | Packed, base: SharedBase) -> Held:
    named = (config.get("architectures") or [""])[0]
    if named != type(base.model).__name__:
        raise ConfigError(
            f"a whole model must be of the base's class to be served on it, {what} is a "
            f"{named or 'model of no class'}, the base a {type(base.model).__name__}; load it with transformers"
        )
    labels = config.get("id2label") or {}
    n_outputs = len(labels) or 2
    return Held(what, Form("model", "", n_outputs), _task(n_outputs, config, base), {}, stored)


def _task(n_outputs: int, config: dict[str, Any], base: SharedBase) -> TextTask:
    """What an expert of elsewhere answers, as far as its configuration, or else the base's, tells."""
    kinds = {"multi_label_classification": "multilabel", "regression": "regression"}
    kind = kinds.get(config.get("problem_type") or "", "regression" if n_outputs == 1 else "classification")
    names = config.get("id2label")
    if names is None and n_outputs == base.n_outputs:
        names = base.model.config.id2label
    ordered = {int(at): str(name) for at, name in (names or {}).items()}
    labels = tuple(ordered.get(at, f"LABEL_{at}") for at in range(n_outputs)) if kind != "regression" else None
    return TextTask(kind, labels, ("accuracy",), min(base.max_length, 512))


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, read into memory: what is mapped only would change with the file."""
    try:
        return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from None


def _tensors_of_model(folder: Path) -> dict[str, Tensor]:
    try:
        files = open_model(str(folder))
        return {name: files[name].clone() for name in files}
    except (OSError, BackboneError, safetensors.SafetensorError) as error:
        raise _damaged(folder, error) from None


def _damaged(path: Path, error: Exception) -> CorruptFileError:
    return CorruptFileError(f"`{path}` must be whole safetensors, got: {error}; copy the expert again, or save it anew")
