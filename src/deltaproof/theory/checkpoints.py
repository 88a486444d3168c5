"""A checkpoint's tensors, one at a time: nothing is read until it is asked for, and nothing is kept."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from deltaproof.backbones.source import find_source
from deltaproof.errors import BackboneError

INDEX = "model.safetensors.index.json"


class Checkpoint(Mapping[str, Tensor]):
    """Tensors of safetensors files by name; `checkpoint[name]` reads that one."""

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self.folder = folder
        self._where: dict[str, Any] = {}
        for path in files:
            opened = _open(path)
            self._where |= dict.fromkeys(opened.keys(), opened)

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._where[name].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        """From the file's header: the tensor is not read."""
        return tuple(self._where[name].get_slice(name).get_shape())

    def stored_type(self, name: str) -> str:
        """In the words of safetensors, such as `BF16`, from the header."""
        return str(self._where[name].get_slice(name).get_dtype())

    def is_float(self, name: str) -> bool:
        """Whether it is a weight in a floating type that can be reckoned with, told from the header."""
        return self.stored_type(name) in ("F64", "F32", "F16", "BF16")


def open_model(name_or_path: str, revision: str | None = None) -> Checkpoint:
    """A model's weights by folder, alias or hub id: one file or shards.

    Raises:
        BackboneError: nothing is there, a shard is missing, or a file is no safetensors.
    """
    source = find_source(name_or_path, revision)
    _check_shards(source.folder)
    return Checkpoint(source.folder, source.weight_files)


def read_json_file(path: Path) -> dict[str, Any]:
    """One of a model's JSON files.

    Raises:
        BackboneError: it is not there, or no JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(f"`{path}` must be a JSON file, got: {error}; save the model again") from None
    if not isinstance(data, dict):
        raise BackboneError(f"`{path}` must hold one JSON object, got {type(data).__name__}; save the model again")
    return data


def _check_shards(folder: Path) -> None:
    if not (folder / INDEX).is_file():
        return
    files = set(read_json_file(folder / INDEX).get("weight_map", {}).values())
    if missing := sorted(name for name in files if not (folder / name).is_file()):
        raise BackboneError(
            f"every shard that {INDEX} names must be there, `{folder}` lacks {missing[0]} ({len(missing)} of "
            f"{len(files)}); copy or download it again"
        )


def _open(path: Path) -> Any:
    try:
        return safetensors.safe_open(path, framework="pt", device="cpu")
    except (OSError, safetensors.SafetensorError) as error:
        raise BackboneError(f"`{path}` must be a whole safetensors file, got: {error}; save the model again") from None


def as_float(tensor: Tensor) -> Tensor:
    """In a type whose differences are exact enough: float64 stays, all else becomes float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
