"""The changes that a PEFT adapter on disk makes to a base: LoRA, DoRA and IA3, from its two files alone."""

import math
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from deltaproof.backbones.sites import Site
from deltaproof.errors import BackboneError
from deltaproof.theory.checkpoints import Checkpoint, as_float, read_json_file
from deltaproof.theory.deltas import Delta, Deltas, common_prefix, part, parts_of
from deltaproof.theory.skeleton import Skeleton

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_KINDS = ("LORA", "IA3")
_PIECE = re.compile(r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|ia3_l)(\.\w+)?$")
_MOVE_THE_BASE = ("pissa", "olora", "corda", "loftq")
"""Start values for which the base is changed too, so that the adapter alone is not the whole update."""


def adapter_deltas(base: Checkpoint, folder: Path, skeleton: Skeleton | None = None) -> Deltas:
    """What an adapter adds to each weight of the base; a whole tensor in it, such as a trained head, is compared.

    Raises:
        BackboneError: it is of another kind, lies on another model, or is not all of the update.
    """
    config = read_json_file(folder / CONFIG)
    _check(config, folder)
    adapter = Checkpoint(folder, [folder / TENSORS])
    names = {name: plain_name(name) for name in adapter}
    if skeleton is None:
        modules = {found[1] for name in names.values() if (found := _PIECE.match(name))}
        skeleton = Skeleton(common_prefix(base, [f"{path}.weight" for path in modules]))
    before = {skeleton.short(name): name for name in base if base.is_float(name)}
    pieces: dict[str, dict[str, str]] = defaultdict(dict)
    whole: dict[str, str] = {}
    for stored, name in names.items():
        found = _PIECE.match(name)
        if found and found[3] != ".bias":
            pieces[skeleton.short(found[1])][found[2]] = stored
        elif found is None:
            whole[skeleton.short(name)] = stored
    loaders: dict[str, Callable[[], Delta]] = {}
    for path, here in pieces.items():
        name = f"{path}.weight"
        if name not in before:
            raise BackboneError(
                f"an adapter must lie on modules of the base, `{folder}` changes `{path}`, which `{base.folder}` "
                f"lacks; name the model that it was trained on"
            )
        change = _Change(config, path, {what: adapter[stored] for what, stored in here.items()})
        change.check(base.shape(before[name]), folder, base.folder)
        for own, site in parts_of(name, skeleton):
            loaders[own] = _loader(base, before[name], change, own, site)
    notes = []
    for name, stored in whole.items():
        if name not in before or base.shape(before[name]) != adapter.shape(stored):
            notes.append(f"`{name}` is whole in the adapter and new or resized against the base")
            continue
        for own, site in parts_of(name, skeleton):
            loaders[own] = _whole_loader(base, before[name], adapter, stored, own, site)
    return Deltas(loaders, notes)


class _Change:
    """The change of one module, (d_out, d_in), from the adapter's pieces for it."""

    def __init__(self, config: dict[str, Any], path: str, pieces: dict[str, Tensor]) -> None:
        self.pieces = {what: as_float(piece) for what, piece in pieces.items()}
        self.path = path
        self.is_embedding = "lora_embedding_A" in pieces
        self.is_transposed = bool(config.get("fan_in_fan_out")) or self.is_embedding
        self.scale = lora_scale(config, path, len(self._a)) if "ia3_l" not in pieces else 1.0

    @property
    def _a(self) -> Tensor:
        return self.pieces["lora_embedding_A" if self.is_embedding else "lora_A"].flatten(1)

    @property
    def _b(self) -> Tensor:
        return self.pieces["lora_embedding_B" if self.is_embedding else "lora_B"].flatten(1)

    def check(self, shape: tuple[int, ...], folder: Path, base_folder: Path) -> None:
        """Refuse an adapter of a model with other widths."""
        if "ia3_l" in self.pieces:
            return
        rows, columns = shape[0], math.prod(shape[1:])
        if (len(self._b), self._a.shape[1]) not in ((rows, columns), (columns, rows)):
            raise BackboneError(
                f"an adapter must fit the base, `{folder}` changes `{self.path}` by {len(self._b)} x "
                f"{self._a.shape[1]}, the weight in `{base_folder}` is {rows} x {columns}; name the model that it was "
                f"trained on"
            )

    def of(self, weight: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """D, and its factors A and B where it is their product.

        Args:
            weight: the whole W0, (d_out, d_in).
        """
        if "ia3_l" in self.pieces:
            return weight * (self._gain(weight) - 1), None
        a, b = self._a, self.scale * self._b
        if "lora_magnitude_vector" not in self.pieces:
            return b @ a, (a, b)
        direction = weight + b @ a
        length = self.pieces["lora_magnitude_vector"].flatten()[:, None]
        return length * direction / direction.norm(dim=1, keepdim=True) - weight, None

    def _gain(self, weight: Tensor) -> Tensor:
        """IA3's gains: (1, d_in) on inputs or (d_out, 1) on outputs."""
        return self.pieces["ia3_l"].reshape(self.pieces["ia3_l"].shape[:2])


def _loader(base: Checkpoint, name: str, change: _Change, own: str, site: Site | None) -> Callable[[], Delta]:
    def load() -> Delta:
        stored = as_float(base[name])
        is_transposed = site.transposed if site else change.is_transposed
        weight = stored.mT if is_transposed else stored.flatten(1)
        rows = slice(*site.rows) if site and site.rows else slice(None)
        delta, factors = change.of(weight)
        if factors is not None:
            factors = factors[0], factors[1][rows]
        role, layer = (site.role, site.layer) if site else (None, None)
        return Delta(own, role, layer, weight[rows], delta[rows], factors)

    return load


def _whole_loader(
    base: Checkpoint, name: str, adapter: Checkpoint, stored: str, own: str, site: Site | None
) -> Callable[[], Delta]:
    def load() -> Delta:
        first, second = part(as_float(base[name]), site), part(as_float(adapter[stored]), site)
        role, layer = (site.role, site.layer) if site else (None, None)
        return Delta(own, role, layer, first, second - first)

    return load


def _check(config: dict[str, Any], folder: Path) -> None:
    kind = config.get("peft_type")
    if kind not in _KINDS:
        raise BackboneError(
            f"an adapter must be LoRA, DoRA or IA3 to be read from its files, `{folder}` is {kind}; fold it into the "
            f"model (peft's `merge_and_unload`), save that, and give its folder"
        )
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(_MOVE_THE_BASE):
        raise BackboneError(
            f"an adapter must be the whole update, `{folder}` started with `{start}`, which changed the base too; save "
            f"it with peft's `path_initial_model_for_weight_conversion`, or give the merged model"
        )
    if not (folder / TENSORS).is_file():
        raise BackboneError(
            f"an adapter's weights must be safetensors, `{folder}` has no {TENSORS} (pickled weights can run code and "
            f"are never opened); save it anew with `save_pretrained` where you trust it"
        )


def plain_name(name: str) -> str:
    """A tensor's name in the model itself, peft's wrappers taken off."""
    name = name.removeprefix("base_model.model.")
    return name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")


def lora_scale(config: dict[str, Any], path: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r); patterns name modules by the ends of their paths, as regular expressions."""
    alpha = float(config.get("lora_alpha") or 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", path) or path.endswith(pattern) or pattern.endswith(f".{path}"):
            alpha = float(value)
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
