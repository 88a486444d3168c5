"""Settings of every method that fit models of width 32, such as the tiny ones of the tests."""

from typing import Any

from deltaproof.methods import METHODS, Method
from deltaproof.methods.peft_kinds import REFUSED, names

OURS: dict[str, dict[str, Any]] = {
    "density_penalty": {"inner": "lora(rank=2)"},
    "on_layers": {"inner": "together(lora(rank=2), bitfit)", "layers": [1]},
    "only": {"inner": "dora(rank=2)", "roles": ["value", "ffn_out"]},
    "peft": {"type": "vera", "config": {"r": 4}},
    "pica": {"rank": 4},
    "together": {"methods": ["lora(rank=2)", "ln_tune"]},
}
"""Of our methods that have no defaults, or whose defaults suit larger models."""

PEFTS: dict[str, dict[str, Any]] = {
    "c3a": {"block_size": 16},
    "fourierft": {"n_frequency": 50},
    "miss": {"r": 2},
    "p_tuning": {"num_virtual_tokens": 4},
    "prefix_tuning": {"num_virtual_tokens": 4},
    "prompt_tuning": {"num_virtual_tokens": 4},
    "psoft": {"r": 8},
    "road": {"group_size": 16},
    "shira": {"r": 2},
    "trainable_tokens": {"token_indices": [0, 1, 2, 3], "target_modules": r".*\.(word_embeddings|wte|embed_tokens)"},
    "vblora": {"vector_length": 16},
    "waveft": {"n_frequency": 50},
}
"""Of peft's methods, the same."""


def every_name() -> list[str]:
    """Our methods, then all that the installed peft has, those included that cannot be contestants."""
    ours = sorted(name for name in METHODS if name != "peft")
    return [*ours, *(f"peft_{name}" if name in METHODS else name for name in sorted(names()))]


def example(name: str) -> Method:
    """The method of this name with settings that fit a tiny model; the plain ones where they do."""
    if name in METHODS:
        return METHODS[name](**OURS.get(name, {}))
    kind = name.removeprefix("peft_")
    return METHODS["peft"](**{"type": kind, "config": PEFTS.get(kind, {})})


def refusal(name: str) -> str | None:
    """Why this method of peft cannot be a contestant, where it cannot."""
    return REFUSED.get(name.removeprefix("peft_")) if name not in METHODS else None
