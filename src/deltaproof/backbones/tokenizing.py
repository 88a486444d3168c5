"""A tokenizer fit for batches of classified texts: it pads, on the right, and gives the model only what it takes."""

import inspect
import math
from pathlib import Path
from typing import Any

from deltaproof.backbones.locate import token_embedding
from deltaproof.errors import BackboneError

DEFAULT_MAX_LENGTH = 512
_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "spm.model",
    "sentencepiece.bpe.model", "vocab.bpe",
)  # fmt: skip


def load_tokenizer(folder: Path, name: str, trust_remote_code: bool = False) -> Any:
    """The folder's tokenizer.

    Raises:
        BackboneError: the folder has none, or a package it needs is missing.
    """
    from transformers import AutoTokenizer

    # Without this check transformers would make an empty tokenizer and say nothing.
    if not trust_remote_code and not any((folder / file).is_file() for file in _FILES):
        raise BackboneError(
            f"a model's folder must hold its tokenizer, `{name}` has none of {', '.join(_FILES[:5])} …; "
            f"save it there with `tokenizer.save_pretrained`"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        remedy = "save it anew with `tokenizer.save_pretrained`"
        if _mentions_sentencepiece(error):
            remedy = "install `sentencepiece` (and `tiktoken`, if it asks for it), then try again"
        elif "trust_remote_code" in str(error):
            remedy = "read the code it brings, then allow it with `trust_remote_code`"
        raise BackboneError(f"the tokenizer of `{name}` must be readable: {_first(error)}; {remedy}") from error


def prepare_tokenizer(tokenizer: Any, model: Any, name: str) -> None:
    """Set padding in tokenizer and model alike, so that a text gets the same outputs alone and in a batch."""
    if tokenizer.pad_token is None:
        stand_in = tokenizer.eos_token or tokenizer.unk_token
        if stand_in is None:
            raise BackboneError(
                f"a tokenizer must have a token to pad with, that of `{name}` has neither padding, end nor unknown "
                f"token; set `pad_token` in tokenizer_config.json"
            )
        tokenizer.pad_token = stand_in
    tokenizer.padding_side = "right"
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = tokenizer.pad_token_id
    names = [key for key in tokenizer.model_input_names if key != "token_type_ids"]
    tokenizer.model_input_names = [*names, "token_type_ids"] if _tells_segments_apart(model) else names
    embedding = token_embedding(model)
    n_rows = math.inf if embedding is None else embedding.weight.shape[0]
    if len(tokenizer) == 0 or max(tokenizer.get_vocab().values()) >= n_rows:
        raise BackboneError(
            f"each token must have a row in the model's embedding, got {len(tokenizer)} tokens and {n_rows} rows in "
            f"`{name}`; use the tokenizer that belongs to the model"
        )


def _tells_segments_apart(model: Any) -> bool:
    """Whether the model wants to know which text of a pair a token is from, whatever its tokenizer's class says.

    RoBERTa-like models have a single segment, and GPT-2 would add word vectors for them.
    """
    n_segments = getattr(model.config, "type_vocab_size", 0) or 0
    return n_segments >= 2 and "token_type_ids" in inspect.signature(model.forward).parameters


def max_length_of(tokenizer: Any, model: Any) -> int:
    """Most tokens that both take, special ones included; 512 where neither says."""
    limits = [tokenizer.model_max_length, *_position_limits(model)]
    limits = [limit for limit in limits if limit and limit < 10**9]  # transformers writes 1e30 for "not said"
    return int(min(limits)) if limits else DEFAULT_MAX_LENGTH


def _position_limits(model: Any) -> list[int]:
    config = model.config.get_text_config()
    limits = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions")]
    for path, module in model.named_modules():
        # RoBERTa and its kin number positions from the padding index on, so that many rows are never used.
        if path.endswith("embeddings.position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    return [limit for limit in limits if isinstance(limit, int) and limit > 0]


def separates_pairs(tokenizer: Any) -> bool:
    """Whether something stands between the two texts of a pair once they are tokens."""
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("one text", "another"))
    pair, glued = tokenizer("one text", "another")["input_ids"], [*first, *second]
    return not any(pair[start : start + len(glued)] == glued for start in range(len(pair) - len(glued) + 1))


def pair_separator(tokenizer: Any) -> str:
    """What to put before the second text of a pair: nothing where the tokenizer parts them itself, else a line break.

    Where a line break is no token, the token that ends a text stands in for it.
    """
    if separates_pairs(tokenizer):
        return ""
    if tokenizer("\n", add_special_tokens=False)["input_ids"]:
        return "\n"
    return str(tokenizer.sep_token or tokenizer.eos_token or " ")


def _mentions_sentencepiece(error: Exception) -> bool:
    return "sentencepiece" in str(error).lower() or "tiktoken" in str(error).lower()


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
