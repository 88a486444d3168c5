"""Methods: each is one file, registered under its name when this package is imported."""

from deltaproof.methods import (
    attn_scale,
    bitfit,
    combine,
    deep_prompt,
    density,
    difffit,
    domain_residual,
    dora,
    full,
    head,
    ia3,
    ln_tune,
    lora,
    parallel,
    peft_bridge,
    prefix,
    serial,
    ssf,
)
from deltaproof.methods.base import METHODS, Method, method, method_from

__all__ = [
    "METHODS", "Method", "attn_scale", "bitfit", "combine", "deep_prompt", "density", "difffit", "domain_residual",
    "dora", "full", "head", "ia3", "ln_tune", "lora", "method", "method_from", "parallel", "peft_bridge", "prefix",
    "serial", "ssf",
]  # fmt: skip
