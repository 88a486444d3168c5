"""From a LoRA of high rank to one of low rank: the nearest, by the singular values of its product."""

from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from deltaproof.errors import ConfigError
from deltaproof.records.store import write_atomically, write_json
from deltaproof.shipping.folders import kind_of, model_name, tensors_of
from deltaproof.shipping.low_rank import Cut, lost_in_all, squeezed_factors
from deltaproof.shipping.place import check_place, neighbour, put_in_place
from deltaproof.theory.adapters import CONFIG, TENSORS, lora_scale
from deltaproof.theory.checkpoints import Checkpoint, as_float, read_json_file

_PAIRS = {".lora_A.weight": ".lora_B.weight", ".lora_embedding_A": ".lora_embedding_B"}
_BY_HAND = ("README.md", "adapter_config.json", "adapter_model.safetensors", "deltaproof.json",
            "deltaproof.safetensors", "evidence.json", "report.html")  # fmt: skip
"""Files that are not copied: they speak of the adapter as it was."""


def squeeze(adapter: Path | str, rank: int, out: Path | str, overwrite: bool = False) -> dict[str, Any]:
    """Write the smaller adapter, and say what it loses; whatever is no factor, such as the head, is kept as it is.

    Returns:
        per matrix and in all the relative error in the Frobenius norm, and bytes before and after.
    Raises:
        ConfigError: it is no LoRA, or one with lengths (DoRA), or the folder is there.
    Source: what LoRA-Squeeze (arXiv:2602.10993) does after training, with the exact SVD.
    """
    adapter, out = Path(adapter), Path(out)
    check_place(out, overwrite)
    if rank < 1:
        raise ConfigError(f"`rank >= 1` must hold, got {rank}; give the rank that the adapter is to have")
    if kind_of(adapter) != "adapter":
        raise ConfigError(f"an adapter in PEFT's format can be squeezed, `{adapter}` is none; give its folder")
    config = read_json_file(adapter / CONFIG)
    _check(config, adapter)
    stored = tensors_of(adapter, "adapter")
    tensors, ranks, cuts = _squeezed(stored, config, rank)
    common = min(rank, max(ranks.values()))
    others = {path: own for path, own in ranks.items() if own != common}
    changed = {"r": common, "lora_alpha": common, "rank_pattern": others, "alpha_pattern": dict(others),
               "use_rslora": False, "init_lora_weights": True}  # fmt: skip
    with neighbour(out) as place:
        for file in adapter.iterdir():
            if file.is_file() and file.name not in _BY_HAND:
                (place / file.name).write_bytes(file.read_bytes())
        write_atomically(place / TENSORS, safetensors.torch.save(tensors, {"format": "pt"}))
        write_json(place / CONFIG, config | changed)
        put_in_place(place, out, overwrite)
    return {
        "rank": rank,
        "lost_fraction": lost_in_all(cuts),
        "matrices": [cut.to_json() for cut in cuts],
        "stored_bytes_before": (adapter / TENSORS).stat().st_size,
        "stored_bytes": (out / TENSORS).stat().st_size,
    }


def _check(config: dict[str, Any], folder: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise ConfigError(f"a rank is LoRA's, `{folder}` is {config.get('peft_type')}; it cannot be squeezed")
    if config.get("use_dora"):
        raise ConfigError(
            f"DoRA's lengths belong to the product as it is, `{folder}` has them; merge it and extract from that"
        )


def _squeezed(
    stored: Checkpoint, config: dict[str, Any], rank: int
) -> tuple[dict[str, Tensor], dict[str, int], list[Cut]]:
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    cuts: list[Cut] = []
    seconds = {name.removesuffix(a) + b for name in stored for a, b in _PAIRS.items() if name.endswith(a)}
    for name in stored:
        ending = next((a for a in _PAIRS if name.endswith(a)), None)
        if name in seconds:
            continue
        if ending is None:
            tensors[name] = stored[name]
            continue
        second = name.removesuffix(ending) + _PAIRS[ending]
        a, b = stored[name], stored[second]
        path = model_name(name.removesuffix(ending))
        scaled = as_float(b).flatten(1) * lora_scale(config, path, len(a))
        small_a, small_b, cut = squeezed_factors(path, as_float(a).flatten(1), scaled, rank)
        if a.ndim > 2:
            raise ConfigError(f"convolutions cannot be squeezed yet, `{path}` is one; leave it out of the adapter")
        tensors[name], tensors[second] = small_a.to(a.dtype).contiguous(), small_b.to(b.dtype).contiguous()
        ranks[path] = cut.rank
        cuts.append(cut)
    if not cuts:
        raise ConfigError(f"a LoRA must have factors, `{stored.folder}` has none; give another adapter")
    return tensors, ranks, cuts
