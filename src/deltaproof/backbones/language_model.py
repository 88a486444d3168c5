"""The same checkpoint with the head it was pretrained with: to ask what a tuned model still knows."""

from typing import Any

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.load import as_backbone
from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.reading import read_config
from deltaproof.backbones.source import find_source
from deltaproof.backbones.tokenizing import load_tokenizer
from deltaproof.errors import BackboneError


def load_language_model(name_or_path: str, trust_remote_code: bool = False, revision: str | None = None) -> Backbone:
    """A masked or a causal language model in fp32, as the checkpoint was pretrained; nothing of it is a head to train.

    Raises:
        BackboneError: the checkpoint does not hold a language model's output layer.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    source = find_source(name_or_path, revision)
    with quiet(), torch.random.fork_rng(devices=[]):
        config = read_config(source, name_or_path, trust_remote_code)
        tokenizer = load_tokenizer(source.folder, name_or_path, trust_remote_code)
        kind: Any = AutoModelForMaskedLM if is_masked(config, tokenizer) else AutoModelForCausalLM
        try:
            model, information = kind.from_pretrained(
                source.folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True,
                trust_remote_code=trust_remote_code,
            )  # fmt: skip
        except ValueError as error:
            raise _lacks(name_or_path, str(error).splitlines()[0]) from None
    if lacked := sorted(information["missing_keys"]):
        raise _lacks(name_or_path, f"its checkpoint lacks `{lacked[0]}`")
    return as_backbone(model, tokenizer, name_or_path, (), source.revision, source.fingerprint(), ())


def is_masked(config: Any, tokenizer: Any) -> bool:
    """Whether the model was pretrained to fill masks: it has a mask token, and its family is no decoder."""
    architectures = " ".join(config.architectures or ())
    if "CausalLM" in architectures or "MaskedLM" in architectures:
        return "MaskedLM" in architectures
    return tokenizer.mask_token is not None and not getattr(config, "is_decoder", False)


def _lacks(name: str, why: str) -> BackboneError:
    return BackboneError(
        f"a language model's output layer must be in the checkpoint, `{name}` has none: {why}; use the checkpoint as "
        f"it was pretrained, such as `bert-base-uncased`, or leave this study out"
    )
