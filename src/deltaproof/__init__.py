"""The experiment that decides between full fine-tuning and parameter-efficient methods, and proves it."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltaproof.experiments.compare import compare
    from deltaproof.experiments.table import Table
    from deltaproof.methods.attn_scale import AttnScale
    from deltaproof.methods.base import Method, method
    from deltaproof.methods.bitfit import BitFit
    from deltaproof.methods.combine import OnLayers, Only, Together
    from deltaproof.methods.deep_prompt import DeepPromptTuning
    from deltaproof.methods.density import DensityPenalty
    from deltaproof.methods.difffit import DiffFit
    from deltaproof.methods.direft import DiReFT
    from deltaproof.methods.domain_residual import DomainResidual
    from deltaproof.methods.dora import DoRA
    from deltaproof.methods.full import Full
    from deltaproof.methods.head import Head
    from deltaproof.methods.ia3 import IA3
    from deltaproof.methods.ln_tune import LNTune
    from deltaproof.methods.lora import LoRA
    from deltaproof.methods.loreft import LoReFT
    from deltaproof.methods.parallel import Parallel
    from deltaproof.methods.peft_bridge import Peft
    from deltaproof.methods.pica import PiCa
    from deltaproof.methods.prefix import PrefixTuning
    from deltaproof.methods.serial import Serial
    from deltaproof.methods.ssf import SSF
    from deltaproof.methods.tuned import attach
    from deltaproof.methods.vera import VeRA
    from deltaproof.serving.experts import Experts

try:
    __version__ = version("deltaproof")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0+unknown"

_HOMES = {
    "compare": "experiments.compare",
    "Table": "experiments.table",
    "Experts": "serving.experts",
    "Method": "methods.base",
    "method": "methods.base",
    "attach": "methods.tuned",
    "AttnScale": "methods.attn_scale",
    "BitFit": "methods.bitfit",
    "DensityPenalty": "methods.density",
    "DiReFT": "methods.direft",
    "DiffFit": "methods.difffit",
    "DeepPromptTuning": "methods.deep_prompt",
    "DomainResidual": "methods.domain_residual",
    "DoRA": "methods.dora",
    "Full": "methods.full",
    "Head": "methods.head",
    "IA3": "methods.ia3",
    "LNTune": "methods.ln_tune",
    "LoRA": "methods.lora",
    "LoReFT": "methods.loreft",
    "OnLayers": "methods.combine",
    "Only": "methods.combine",
    "Parallel": "methods.parallel",
    "Peft": "methods.peft_bridge",
    "PiCa": "methods.pica",
    "PrefixTuning": "methods.prefix",
    "Serial": "methods.serial",
    "SSF": "methods.ssf",
    "Together": "methods.combine",
    "VeRA": "methods.vera",
}
"""Where each public name lives. It is imported when first used, so that `import deltaproof` costs nothing."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"deltaproof.{_HOMES[name]}"), name)
    raise AttributeError(f"module `deltaproof` has no `{name}`")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


__all__ = [
    "IA3",
    "SSF",
    "AttnScale",
    "BitFit",
    "DeepPromptTuning",
    "DensityPenalty",
    "DiReFT",
    "DiffFit",
    "DoRA",
    "DomainResidual",
    "Experts",
    "Full",
    "Head",
    "LNTune",
    "LoRA",
    "LoReFT",
    "Method",
    "OnLayers",
    "Only",
    "Parallel",
    "Peft",
    "PiCa",
    "PrefixTuning",
    "Serial",
    "Table",
    "Together",
    "VeRA",
    "attach",
    "compare",
    "method",
]
