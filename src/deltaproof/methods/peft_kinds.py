"""What the installed `peft` has: its methods by name, and what is known of them that its own code does not say."""

import functools
import importlib.util
from pathlib import Path
from typing import Any

LEARNING_RATES = {
    "prompt_tuning": 1e-2, "p_tuning": 1e-3, "prefix_tuning": 5e-3, "ia3": 1e-2, "ln_tuning": 2e-3, "vera": 5e-3,
    "pvera": 5e-3, "c3a": 1e-1, "fourierft": 1e-2, "waveft": 1e-2, "osf": 1e-4, "trainable_tokens": 1e-2,
    "vblora": 5e-3, "road": 3e-3,
}  # fmt: skip
"""Where the tuning grid is centred, 1e-3 for the rest: starting points from peft's own comparison and examples, from
which the grid moves on."""

REFUSED = {
    "adaption_prompt": "it puts prompts into the attention of causal language models and leaves a head out",
    "cartridge": "it distils a text into the cache of a causal language model",
    "cpt": "it optimises the context of a causal language model",
    "multitask_prompt_tuning": "it needs the number of a task with every example",
    "poly": "it needs the number of a task with every example",
    "xlora": "it mixes adapters that were trained before",
}
"""Methods that cannot be contestants on one classification or regression task, and why."""

UNMERGEABLE = frozenset({"lily", "shadow"})
"""Methods that change more than weights, beside the prompts."""


@functools.cache
def names() -> frozenset[str]:
    """Names of all of peft's methods, in lower case.

    Read from the one small file of peft that lists them: importing peft takes seconds, and a list is wanted at once.
    """
    found = importlib.util.find_spec("peft")
    assert found is not None, "peft is a dependency"
    assert found.origin is not None
    listing = importlib.util.spec_from_file_location(
        "peft_types", Path(found.origin).parent / "utils" / "peft_types.py"
    )
    assert listing is not None
    assert listing.loader is not None
    module = importlib.util.module_from_spec(listing)
    listing.loader.exec_module(module)
    return frozenset(str(kind.value).lower() for kind in module.PeftType)


@functools.cache
def config_kinds() -> dict[str, Any]:
    """The configuration class of each of peft's methods, by its name in lower case."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {str(kind.value).lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def config_kind(name: str) -> Any:
    """The configuration class of one of peft's methods."""
    return config_kinds()[name.removeprefix("peft_")]


def is_peft_type(name: str) -> bool:
    """Whether the installed `peft` has a method of this name, such as `loha`, or `peft_lora` beside our own `lora`."""
    return name.removeprefix("peft_") in names()


def peft_types() -> list[str]:
    """Names of those methods of the installed `peft` that can be contestants."""
    return sorted(names() - set(REFUSED))


def known_targets(name: str) -> dict[str, Any] | None:
    """The modules that peft changes by itself, by the model's type; None where the method chooses in another way."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    tuners = {str(kind.value).lower(): tuner for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items()}
    mapping = getattr(tuners.get(name), "target_module_mapping", None)
    return dict(mapping) if mapping else None
