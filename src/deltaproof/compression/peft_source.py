"""An adapter that PEFT saved, LoRA or IA3, as an update to compress; the base model is not needed."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from deltaproof.compression.source import Part, Source
from deltaproof.errors import CompressionError
from deltaproof.theory.checkpoints import Checkpoint, read_json_file

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_FACTOR = re.compile(r"(?P<module>.+)\.(?P<kind>lora_A|lora_B|ia3_l)(\.weight)?$")
_FACTORS = {"lora_A": "A", "lora_B": "B", "ia3_l": "gain"}
_OTHER_STARTS = ("pissa", "olora", "corda", "loftq", "eva", "orthogonal", "lora_ga")
"""Starts of LoRA in which the factors are anything but small changes from zero, or the base is moved too."""


class PeftSource(Source):
    """Factors of LoRA and gains of IA3; heads, biases, embeddings and DoRA's lengths stay whole."""

    def __init__(self, folder: Path, initial: Path | None = None) -> None:
        self.config = read_adapter_config(folder)
        self._tensors = _checkpoint(folder)
        self._initial = None if initial is None else _checkpoint(initial)
        self.parts = [self._part(name) for name in sorted(self._tensors)]
        if not any(part.start for part in self.parts):
            raise CompressionError(f"an adapter must have factors of LoRA or gains of IA3, `{folder}` has none")
        name = str(self.config.get("base_model_name_or_path") or "")
        self.facts = {
            "holds": "peft", "start": "zero" if initial is None else "init", "config": self.config,
            "base": {"name": name, "fingerprint": None},
        }  # fmt: skip

    def tensor(self, part: Part) -> Tensor:
        return self._tensors[part.name]

    def start(self, part: Part) -> Tensor | None:
        if part.start != "init":
            return None
        assert self._initial is not None
        return self._initial[part.name]

    def _part(self, name: str) -> Part:
        shape = self._tensors.shape(name)
        dtype = self._tensors[name].dtype
        found = _FACTOR.match(name)
        if found is None or not dtype.is_floating_point:
            return Part(name, shape, dtype, None)
        factor = _FACTORS[found["kind"]]
        start = "one" if factor == "gain" else "zero"
        if factor == "A" and self._initial is not None:
            if name not in self._initial or self._initial.shape(name) != shape:
                raise CompressionError(
                    f"the start of an adapter must hold what the adapter holds, `{self._initial.folder}` has no "
                    f"`{name}` of "
                    f"shape {list(shape)}; save the very model before its training with `save_pretrained`"
                )
            start = "init"
        return Part(name, shape, dtype, start, factor, found["module"])


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The adapter's configuration.

    Raises:
        BackboneError: it cannot be read.
        CompressionError: the adapter is of a kind that does not survive.
    """
    config = read_json_file(folder / CONFIG)
    kind, start = config.get("peft_type"), str(config.get("init_lora_weights", "")).lower()
    if kind not in ("LORA", "IA3"):
        raise CompressionError(
            f"an adapter must be LoRA or IA3 to be compressed, `{folder}` is {kind}: other kinds start at random or "
            f"act by "
            f"the size of their values; ship it as it is"
        )
    if start.startswith(_OTHER_STARTS):
        raise CompressionError(
            f"LoRA must have started with B at zero, `{folder}` started with `{start}`; save it with peft's "
            f"`path_initial_model_for_weight_conversion`, then compress that"
        )
    return config


def _checkpoint(folder: Path) -> Checkpoint:
    if not (folder / TENSORS).is_file():
        raise CompressionError(
            f"an adapter's weights must be safetensors, `{folder}` has no {TENSORS} (pickles are never opened); save "
            f"it "
            f"anew with `save_pretrained`"
        )
    return Checkpoint(folder, [folder / TENSORS])
