"""Methods: each is one file, registered under its name when this package is imported."""

from deltaproof.methods import (
    attn_scale,
    bitfit,
    combine,
    deep_prompt,
    density,
    difffit,
    direft,
    domain_residual,
    dora,
    full,
    head,
    ia3,
    ln_tune,
    lora,
    loreft,
    parallel,
    peft_bridge,
    pica,
    prefix,
    serial,
    ssf,
    vera,
)
from deltaproof.methods.base import METHODS, Method, method, method_from

__all__ = [
    "METHODS", "Method", "attn_scale", "bitfit", "combine", "deep_prompt", "density", "difffit", "direft",
    "domain_residual", "dora", "full", "head", "ia3", "ln_tune", "lora", "loreft", "method", "method_from", "parallel",
    "peft_bridge", "pica", "prefix", "serial", "ssf", "vera",
]  # fmt: skip
