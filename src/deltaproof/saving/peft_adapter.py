"""Our methods as PEFT adapters, where PEFT has a form for them, so that they run wherever that runs."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from deltaproof.backbones.sites import Site, weight_of
from deltaproof.methods.dora import Decomposed
from deltaproof.methods.edits import Watch, WeightEdit
from deltaproof.methods.ia3 import InputGain, OutputGain
from deltaproof.methods.peft_edit import PeftEdit
from deltaproof.methods.tuned import Tuned
from deltaproof.records.store import write_atomically

ByPath = dict[str, list[tuple[Site, WeightEdit]]]
"""The edits of each module: several where roles share a weight."""


def save_peft_adapter(tuned: Tuned, folder: Path) -> bool:
    """Write `adapter_config.json` and `adapter_model.safetensors`, the head included, if the method has that form.

    Low-rank changes become LoRA, or DoRA with its lengths; gains become IA3. Returns whether it was written.
    """
    edits = [edit for _, edit in tuned.placed() if not isinstance(edit, Watch)]
    if len(edits) == 1 and isinstance(edits[0], PeftEdit):
        return edits[0].save(str(folder))
    if edits and all(isinstance(edit, WeightEdit) and edit.factors() is not None for edit in edits):
        config, tensors = _as_lora(tuned, _by_path(tuned))
    elif edits and all(isinstance(edit, InputGain | OutputGain) for edit in edits):
        config, tensors = _as_ia3(tuned, _by_path(tuned))
    else:
        return False
    for path in tuned.backbone.head:
        for name, value in tuned.backbone.module(path).state_dict().items():
            tensors[f"{path}.{name}"] = value
    tensors = {f"base_model.model.{name}": tensor.detach().cpu() for name, tensor in tensors.items()}
    stored = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(folder / "adapter_model.safetensors", safetensors.torch.save(stored, {"format": "pt"}))
    config.save_pretrained(folder)
    return True


def _by_path(tuned: Tuned) -> ByPath:
    found: ByPath = defaultdict(list)
    for site, edit in tuned.placed():
        if isinstance(edit, Watch):
            continue
        assert site is not None, "a weight edit has a site"
        assert isinstance(edit, WeightEdit)
        found[site.path].append((site, edit))
    return found


def _as_lora(tuned: Tuned, by_path: ByPath) -> tuple[Any, dict[str, Tensor]]:
    """peft's LoRA with a scale of 1: ours stands in the factors already."""
    import peft

    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    is_dora = any(isinstance(edit, Decomposed) for here in by_path.values() for _, edit in here)
    for path, here in by_path.items():
        a, b = _stacked(here, _width(tuned, path))
        tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = a, b
        ranks[path] = a.shape[0]
        if is_dora:
            tensors[f"{path}.lora_magnitude_vector"] = _lengths(tuned, path, here)
    common = Counter(ranks.values()).most_common(1)[0][0]
    others = {path: rank for path, rank in ranks.items() if rank != common}
    config = peft.LoraConfig(
        r=common, lora_alpha=common, rank_pattern=others, alpha_pattern=dict(others), use_dora=is_dora,
        target_modules=sorted(ranks), fan_in_fan_out=_is_transposed(by_path), **_common_fields(tuned),
    )  # fmt: skip
    return config, tensors


def _as_ia3(tuned: Tuned, by_path: ByPath) -> tuple[Any, dict[str, Tensor]]:
    """peft's IA3: gains on the inputs of its `feedforward_modules` (1, d_in), on the outputs of others (d_out, 1)."""
    import peft

    tensors: dict[str, Tensor] = {}
    on_input: list[str] = []
    for path, here in by_path.items():
        site, edit = here[0]
        if isinstance(edit, InputGain):
            on_input.append(path)
            tensors[f"{path}.ia3_l"] = edit.gain[None, :]
            continue
        gains = torch.ones(_width(tuned, path), device=next(edit.parameters()).device)
        for site, edit in here:
            assert isinstance(edit, OutputGain)
            gains[_rows(site)] = edit.gain.detach()
        tensors[f"{path}.ia3_l"] = gains[:, None]
    targets, on_input = sorted(by_path), sorted(on_input)
    config = peft.IA3Config(
        target_modules=targets, feedforward_modules=on_input, fan_in_fan_out=_is_transposed(by_path),
        **_common_fields(tuned),
    )  # fmt: skip
    return config, tensors


def _is_transposed(by_path: ByPath) -> bool:
    return any(site.transposed for here in by_path.values() for site, _ in here)


def _common_fields(tuned: Tuned) -> dict[str, Any]:
    head, name = list(tuned.backbone.head), tuned.backbone.name
    return {"task_type": "SEQ_CLS", "modules_to_save": head, "base_model_name_or_path": name, "inference_mode": True}


def _width(tuned: Tuned, path: str) -> int:
    """Outputs of the module, over all the roles that share it."""
    return max(site.rows[1] if site.rows else site.d_out for site in tuned.backbone.all_sites if site.path == path)


def _rows(site: Site) -> slice:
    return slice(*site.rows) if site.rows else slice(None)


def _stacked(here: list[tuple[Site, WeightEdit]], width: int) -> tuple[Tensor, Tensor]:
    """One pair of factors for the whole module: those of its row ranges one below the other."""
    parts = [(site, factors) for site, edit in here if (factors := edit.factors()) is not None]
    a = torch.cat([factor_a for _, (factor_a, _) in parts])
    b = a.new_zeros(width, a.shape[0])
    column = 0
    for site, (_, factor_b) in parts:
        b[_rows(site), column : column + factor_b.shape[1]] = factor_b
        column += factor_b.shape[1]
    return a, b


def _lengths(tuned: Tuned, path: str, here: list[tuple[Site, WeightEdit]]) -> Tensor:
    """DoRA's lengths of every row of the module; rows without an edit keep their own."""
    whole = Site(path, "", None, 0, 0, transposed=here[0][0].transposed)
    lengths: Tensor = weight_of(tuned.backbone.module(path), whole).detach().norm(dim=1)
    for site, edit in here:
        if isinstance(edit, Decomposed):
            lengths[_rows(site)] = edit.magnitude.detach()
    return lengths
