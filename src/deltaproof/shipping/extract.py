"""From full fine-tuning to the best low-rank adapter in PEFT's format, two tensors in memory at a time."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from deltaproof.backbones.head import modules_on_top
from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.source import find_source
from deltaproof.backbones.tokenizing import load_tokenizer
from deltaproof.errors import ConfigError
from deltaproof.records.store import write_atomically, write_json
from deltaproof.shipping.changed import shared_names
from deltaproof.shipping.folders import EVIDENCE, kind_of
from deltaproof.shipping.low_rank import Cut, best_factors, lost_in_all
from deltaproof.shipping.opening import labels_in, open_model_folder, open_on_base
from deltaproof.shipping.place import check_place, neighbour, put_in_place
from deltaproof.shipping.probes import TEXTS, as_rows
from deltaproof.theory.adapters import TENSORS
from deltaproof.theory.checkpoints import Checkpoint, as_float, open_model

_TASKS = {"ForSequenceClassification": "SEQ_CLS", "ForCausalLM": "CAUSAL_LM", "ForTokenClassification": "TOKEN_CLS"}
_CLASSIFIERS = "ForSequenceClassification", "ForTokenClassification"
_PEFT_HEADS = "classifier", "score"
"""Modules of a classifier that peft awaits in every adapter, also where they are the base's own."""


@dataclass
class _Parts:
    """What becomes of each changed parameter."""

    factors: dict[str, Tensor] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    cuts: list[Cut] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def extract(base: str, tuned: Path | str, rank: int, out: Path | str, overwrite: bool = False) -> dict[str, Any]:
    """Write the adapter, and say what it loses.

    Weights of linear maps and embeddings are cut to the rank; the head, norms and whatever else changed are kept whole.

    Args:
        base: what was tuned.
        tuned: the fully tuned model's folder.
    Returns:
        per matrix and in all the relative error in the Frobenius norm; how far logits move; what has no place in PEFT's
        format.
    Raises:
        ConfigError: the tuned folder is no whole model, nothing changed, or the folder is there.
    """
    tuned, out = Path(tuned), Path(out)
    check_place(out, overwrite)
    if rank < 1:
        raise ConfigError(f"`rank >= 1` must hold, got {rank}; give the rank that the adapter is to have")
    if kind_of(tuned) != "model":
        raise ConfigError(
            f"an adapter is extracted from a whole model, `{tuned}` is none; `deltaproof squeeze` makes one smaller"
        )
    before, after = open_model(base), open_model(str(tuned))
    model = _skeleton(tuned)
    parts = _take_apart(before, after, model, rank)
    if not parts.factors and not parts.whole:
        raise ConfigError(f"something must have changed to be extracted, `{tuned}` is `{base}`; check the two names")
    with neighbour(out) as place:
        _write(place, base, tuned, model, parts, rank)
        facts = {
            "format": 1,
            "made_by": "deltaproof extract",
            "base": {"name": base, "fingerprint": find_source(base).fingerprint()},
            "task": {"labels": list(labels_in(tuned) or [])},
            "rank": rank,
            "lost_fraction": lost_in_all(parts.cuts),
            "matrices": [cut.to_json() for cut in parts.cuts],
            "whole": sorted(parts.whole),
            "not_representable": parts.left_out,
            **_distance(base, tuned, place),
            "stored_bytes": (place / TENSORS).stat().st_size,
        }
        write_json(place / EVIDENCE, facts)
        put_in_place(place, out, overwrite)
    return facts


def _skeleton(folder: Path) -> nn.Module:
    import transformers

    with quiet(), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder)
        kind = getattr(transformers, (config.architectures or ["AutoModel"])[0])
        model: nn.Module = kind(config)
    return model


def _take_apart(before: Checkpoint, after: Checkpoint, model: nn.Module, rank: int) -> _Parts:
    from transformers.pytorch_utils import Conv1D

    names, parts = shared_names(before, after), _Parts()
    parameters = dict(model.named_parameters())
    head = _head(model)
    for name in after:
        if not after.is_float(name):
            continue
        value = after[name]
        known = name in names and before.shape(names[name]) == tuple(value.shape)
        if known and torch.equal(as_float(value), as_float(before[names[name]])):
            continue
        path, _, last = name.rpartition(".")
        if name not in parameters:
            parts.left_out.append(name)
            continue
        module = model.get_submodule(path)
        if not known or name.split(".")[0] in head:  # a head stays whole, be it new or the base's own, tuned on
            parts.modules.add(path)
        elif last == "weight" and isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            change = as_float(value) - as_float(before[names[name]])
            _cut(parts, path, change if not isinstance(module, Conv1D) else change.mT, module, rank)
        elif last == "bias" and isinstance(module, nn.Linear | Conv1D):
            parts.whole[name] = value
        else:
            parts.modules.add(path)
    if parts.factors or parts.whole or parts.modules:
        parts.modules |= {path for path in head if path in _PEFT_HEADS}
    return _with_modules(parts, after, model)


def _head(model: nn.Module) -> list[str]:
    """Of a classifier what lies on top; a language model's output map is a matrix like others."""
    return modules_on_top(model) if type(model).__name__.endswith(_CLASSIFIERS) else []


def _cut(parts: _Parts, path: str, change: Tensor, module: nn.Module, rank: int) -> None:
    a, b, cut = best_factors(f"{path}.weight", change, rank)
    parts.cuts.append(cut)
    if cut.rank == 0:
        return
    parts.ranks[path] = cut.rank
    if isinstance(module, nn.Embedding):  # peft's factors of an embedding are those of its transpose
        parts.factors[f"{path}.lora_embedding_A"], parts.factors[f"{path}.lora_embedding_B"] = b.mT, a.mT
    else:
        parts.factors[f"{path}.lora_A.weight"], parts.factors[f"{path}.lora_B.weight"] = a, b


def _with_modules(parts: _Parts, after: Checkpoint, model: nn.Module) -> _Parts:
    """Modules that are kept whole, with all of their parameters; none of them is cut too."""
    tops = {path for path in parts.modules if not any(path.startswith(f"{other}.") for other in parts.modules)}
    for path in tops:
        for name, _ in model.get_submodule(path).named_parameters():
            parts.whole[f"{path}.{name}"] = after[f"{path}.{name}"]
    parts.modules = tops
    for path in [path for path in parts.ranks if path in tops]:
        del parts.ranks[path]
        parts.factors = {name: value for name, value in parts.factors.items() if not name.startswith(f"{path}.lora_")}
        parts.cuts = [cut for cut in parts.cuts if cut.name != f"{path}.weight"]
    return parts


def _write(place: Path, base: str, tuned: Path, model: nn.Module, parts: _Parts, rank: int) -> None:
    import peft

    common = Counter(parts.ranks.values()).most_common(1)[0][0] if parts.ranks else rank
    others = {path: own for path, own in parts.ranks.items() if own != common}
    kind = type(model).__name__
    config = peft.LoraConfig(
        r=common, lora_alpha=common, rank_pattern=others, alpha_pattern=dict(others),
        target_modules=sorted(parts.ranks), modules_to_save=sorted(parts.modules) or None,
        bias="all" if any(name.rpartition(".")[0] not in parts.modules for name in parts.whole) else "none",
        task_type=next((task for ending, task in _TASKS.items() if kind.endswith(ending)), None),
        base_model_name_or_path=base, inference_mode=True,
    )  # fmt: skip
    tensors = dict(parts.factors)
    for name, value in parts.whole.items():
        path, _, last = name.rpartition(".")
        tensors[f"{path}.base_layer.{last}" if path in parts.ranks else name] = value
    stored = {f"base_model.model.{name}": value.contiguous().clone() for name, value in tensors.items()}
    write_atomically(place / TENSORS, safetensors.torch.save(stored, {"format": "pt"}))
    config.save_pretrained(place)
    with quiet():
        load_tokenizer(tuned, str(tuned)).save_pretrained(place)


def _distance(base: str, tuned: Path, adapter: Path) -> dict[str, Any]:
    rows = as_rows(load_tokenizer(tuned, str(tuned)), TEXTS)
    wanted = open_model_folder(tuned).answers(rows)
    found = open_on_base(base, adapter).answers(rows)
    return {
        "largest_logit_difference": max(
            float(np.abs(one - other).max()) for one, other in zip(wanted, found, strict=True)
        ),
        "largest_logit": max(float(np.abs(one).max()) for one in wanted),
        "n_texts": len(rows),
    }
