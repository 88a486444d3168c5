"""Read configuration and weights with transformers, and turn what it raises into errors with a remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from deltaproof.backbones.head import modules_on_top
from deltaproof.backbones.source import Source
from deltaproof.errors import BackboneError


def read_config(source: Source, name: str, trust_remote_code: bool) -> Any:
    """The model's configuration.

    Raises:
        BackboneError: transformers cannot read it, or the model is no encoder or decoder.
    """
    from transformers import AutoConfig

    with _translated(name):
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=trust_remote_code)
    if getattr(config, "is_encoder_decoder", False):
        raise BackboneError(
            f"a model must be an encoder or a decoder, `{name}` ({config.model_type}) is both; "
            f"use an encoder such as RoBERTa, or a decoder such as Qwen"
        )
    return config


def read_model(
    source: Source, config: Any, name: str, trust_remote_code: bool, attention: str | None
) -> tuple[Any, set[str]]:
    """The model, and the names of the parameters that its checkpoint did not hold in this shape."""
    from transformers import AutoModelForSequenceClassification

    options = {} if attention is None else {"attn_implementation": attention}
    with _translated(name), torch.random.fork_rng(devices=[]):
        model, information = AutoModelForSequenceClassification.from_pretrained(
            source.folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **options,
        )
    mismatched = {entry[0] for entry in information["mismatched_keys"]}
    _check_mismatches(model, name, mismatched)
    return model, set(information["missing_keys"]) | mismatched


def _check_mismatches(model: Any, name: str, mismatched: set[str]) -> None:
    on_top = modules_on_top(model)
    wrong = sorted(key for key in mismatched if key.split(".")[0] not in on_top)
    if wrong:
        raise BackboneError(
            f"the checkpoint's shapes must be those of config.json, `{name}` differs at `{wrong[0]}`; "
            f"check that config.json and the weights belong together"
        )


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Turn what transformers raises into an error with a remedy."""
    try:
        yield
    except (BackboneError, MemoryError):
        raise
    except Exception as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = "check that the folder holds what `save_pretrained` wrote and that transformers is recent enough"
        if "trust_remote_code" in str(error):
            text = "it brings Python code of its own, which is never run unasked"
            remedy = "read that code, then allow it with `trust_remote_code`"
        elif "Unrecognized configuration class" in str(error):
            text = "transformers has no sequence classifier for this kind of model"
            remedy = "choose a text encoder or decoder"
        raise BackboneError(f"`{name}` must load as a sequence classifier: {text}; {remedy}") from error
