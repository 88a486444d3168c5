"""Low-rank methods as PEFT adapters, so that they run wherever LoRA runs."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from deltaproof.backbones.sites import Site, weight_of
from deltaproof.methods.dora import Decomposed
from deltaproof.methods.edits import WeightEdit
from deltaproof.methods.peft_bridge import PeftEdit
from deltaproof.methods.tuned import Tuned
from deltaproof.records.store import write_atomically


def save_peft_adapter(tuned: Tuned, folder: Path) -> bool:
    """Write `adapter_config.json` and `adapter_model.safetensors`, the head included, if the method has that form.

    Every edit must be low-rank: delta = B A, with DoRA's lengths on top where it has them. Returns whether it was written.
    """
    edits = [edit for _, edit in tuned.placed()]
    if len(edits) == 1 and isinstance(edits[0], PeftEdit):
        tuned.model.save_pretrained(folder)  # type: ignore[operator]
        return True
    if not edits or any(not isinstance(edit, WeightEdit) or edit.factors() is None for edit in edits):
        return False
    by_path: dict[str, list[tuple[Site, WeightEdit]]] = defaultdict(list)
    for site, edit in tuned.placed():
        assert site is not None and isinstance(edit, WeightEdit), "a weight edit has a site"
        by_path[site.path].append((site, edit))
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for path, here in by_path.items():
        a, b = _stacked(here, _width(tuned, path))
        tensors[f"base_model.model.{path}.lora_A.weight"] = a
        tensors[f"base_model.model.{path}.lora_B.weight"] = b
        ranks[path] = a.shape[0]
        if any(isinstance(edit, Decomposed) for _, edit in here):
            tensors[f"base_model.model.{path}.lora_magnitude_vector"] = _lengths(tuned, path, here)
    for path in tuned.backbone.head:
        for name, value in tuned.backbone.module(path).state_dict().items():
            tensors[f"base_model.model.{path}.{name}"] = value
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(folder / "adapter_model.safetensors", safetensors.torch.save(stored, {"format": "pt"}))
    _config(tuned, ranks, any(isinstance(edit, Decomposed) for edit in edits)).save_pretrained(folder)
    return True


def _width(tuned: Tuned, path: str) -> int:
    """Outputs of the module, over all the roles that share it."""
    return max(site.rows[1] if site.rows else site.d_out for site in tuned.backbone.all_sites if site.path == path)


def _stacked(here: list[tuple[Site, WeightEdit]], width: int) -> tuple[Tensor, Tensor]:
    """One pair of factors for the whole module: those of its row ranges one below the other."""
    factors = [edit.factors() for _, edit in here]
    pairs = [pair for pair in factors if pair is not None]
    a = torch.cat([pair[0] for pair in pairs])
    b = a.new_zeros(width, a.shape[0])
    column = 0
    for (site, _), (_, part) in zip(here, pairs, strict=True):
        rows = slice(*site.rows) if site.rows else slice(None)
        b[rows, column : column + part.shape[1]] = part
        column += part.shape[1]
    return a, b


def _lengths(tuned: Tuned, path: str, here: list[tuple[Site, WeightEdit]]) -> Tensor:
    """DoRA's lengths of every row of the module; rows without an edit keep their own."""
    whole = Site(path, "", None, 0, 0, transposed=here[0][0].transposed)
    lengths = weight_of(tuned.backbone.module(path), whole).detach().norm(dim=1)
    for site, edit in here:
        if isinstance(edit, Decomposed):
            lengths[slice(*site.rows) if site.rows else slice(None)] = edit.magnitude.detach()
    return lengths


def _config(tuned: Tuned, ranks: dict[str, int], dora: bool) -> Any:
    import peft

    common = max(ranks.values(), key=lambda rank: sum(value == rank for value in ranks.values()))
    other = {path: rank for path, rank in ranks.items() if rank != common}
    return peft.LoraConfig(
        task_type="SEQ_CLS", r=common, lora_alpha=common, rank_pattern=other, alpha_pattern=dict(other), use_dora=dora,
        target_modules=sorted(ranks), modules_to_save=list(tuned.backbone.head), base_model_name_or_path=tuned.backbone.name,
        inference_mode=True,
    )  # fmt: skip
