"""Methods: each is one file, registered under its name when this package is imported."""

from deltaproof.methods import attn_scale, bitfit, combine, dora, full, head, ia3, ln_tune, lora, peft_bridge, prefix
from deltaproof.methods.base import METHODS, Method, method, method_from

__all__ = [
    "METHODS", "Method", "attn_scale", "bitfit", "combine", "dora", "full", "head", "ia3", "ln_tune", "lora", "method",
    "method_from", "peft_bridge", "prefix",
]  # fmt: skip
