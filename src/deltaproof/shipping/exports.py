"""The forms in which a tuned model is shipped, each written to an empty folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from deltaproof.backbones.quiet import quiet
from deltaproof.errors import ConfigError, nearest
from deltaproof.methods.tuned import Tuned
from deltaproof.saving.peft_adapter import save_peft_adapter
from deltaproof.saving.transformers_folder import save_model_folder
from deltaproof.shipping.onnx_graph import export_onnx, runtime
from deltaproof.tasks.text import TextTask


def merged(tuned: Tuned, task: TextTask, folder: Path) -> nn.Module:
    """The update folded into the weights, a `transformers` folder; returns the model that was written.

    Raises:
        ConfigError: the method is no change of weights.
    """
    model = tuned.merge()
    with quiet():
        save_model_folder(replace(tuned.backbone, model=model), task.labels, folder)
    _save_tokenizer(tuned, folder)
    return model


def adapter(tuned: Tuned, task: TextTask, folder: Path) -> nn.Module:
    """A PEFT adapter with the head, and the tokenizer.

    Raises:
        ConfigError: PEFT has no form for the method.
    """
    name = tuned.method.label
    if tuned.method.name == "full":
        raise ConfigError(
            "an adapter is a change beside a base, full fine-tuning is a whole model; use `--to merged`, or take its "
            "best low-rank adapter with `deltaproof extract`"
        )
    with quiet():
        if not save_peft_adapter(tuned, folder):
            raise ConfigError(
                f"an adapter in PEFT's format needs a method that PEFT has, `{name}` is none; use `--to merged` where "
                f"the method is a change of weights, or keep the tuned folder, which `deltaproof predict` reads"
            )
    _save_tokenizer(tuned, folder)
    return tuned


def onnx(tuned: Tuned, task: TextTask, folder: Path) -> nn.Module:
    """An ONNX graph with the tokenizer and config.json; merged first where the method can be."""
    model = tuned.merge() if tuned.mergeable else tuned
    export_onnx(model, tuned.backbone, task, folder)
    _save_tokenizer(tuned, folder)
    return model


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""In which a merged model can be stored, by the names of `--dtype`."""


@torch.no_grad()
def store_in(model: nn.Module, dtype: str, folder: Path) -> nn.Module:
    """Write a merged model's weights anew in another type.

    Returns:
        the model with the rounded weights, in fp32.
    """
    with quiet():
        model.to(DTYPES[dtype]).save_pretrained(folder)  # type: ignore[operator]
    return model.float()


def _save_tokenizer(tuned: Tuned, folder: Path) -> None:
    """With the inputs that training gave the model: what a tokenizer is told after it was made it does not save."""
    tokenizer = tuned.backbone.tokenizer
    tokenizer.init_kwargs["model_input_names"] = list(tokenizer.model_input_names)
    with quiet():
        tokenizer.save_pretrained(folder)


EXPORTS: dict[str, Callable[[Tuned, TextTask, Path], nn.Module]] = {
    "merged": merged,
    "adapter": adapter,
    "onnx": onnx,
}


def check_form(to: str) -> None:
    """Refuse what cannot be written here, before a model is read.

    Raises:
        ConfigError: there is no such form, or no maintained package that writes it.
        MissingExtraError: the form needs an extra that is not installed.
    """
    if to == "gguf":
        raise ConfigError(
            "GGUF needs a converter for the architecture: the maintained one is `convert_hf_to_gguf.py` of llama.cpp, "
            "a script of that repository and no package, and what it writes can be gated by llama.cpp's own programs "
            "alone, got `--to gguf`; ship `--to merged`, run that script on the folder where llama.cpp has this "
            "architecture with its head, and compare its answers on your texts"
        )
    if to not in EXPORTS:
        raise ConfigError(f"`to` must be one of {', '.join(EXPORTS)}, got `{to}`; {nearest(to, EXPORTS)}")
    if to == "onnx":
        runtime()
