"""Random models of each family, a few thousand weights each, with real tokenizers made on the spot: for tests."""

import re
from pathlib import Path
from typing import Any

import torch

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.load import PROBLEM_TYPES, backbone_of
from deltaproof.backbones.quiet import quiet
from deltaproof.errors import ConfigError, nearest
from deltaproof.seeding import sub_seed

_SENTENCES = (
    "the quick brown fox jumps over the lazy dog",
    "a good film with a good story and good actors",
    "a bad film with a bad story and bad actors",
    "does this text describe that function or another one",
    "numbers 0 1 2 3 4 5 6 7 8 9 and signs . , ; : ! ? ( ) ' are here",
)
_COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,  # wide, so that every weight moves the logits measurably
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
_WIDE_HEADS = {**_GROUPED, "head_dim": 16}  # heads need not add up to the width
_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _COMMON,
    "roberta": {**_COMMON, "max_position_embeddings": 130, "type_vocab_size": 1},
    "xlm-roberta": {**_COMMON, "max_position_embeddings": 130, "type_vocab_size": 1},
    "camembert": {**_COMMON, "max_position_embeddings": 130, "type_vocab_size": 1},
    "electra": {**_COMMON, "embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 128,
                   "initializer_range": 0.2},
    "deberta": {**_COMMON, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0},
    "deberta-v2": {**_COMMON, "relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm",
                   "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
                   "type_vocab_size": 0},
    "mpnet": {**_COMMON, "max_position_embeddings": 130},
    "albert": {**_COMMON, "embedding_size": 16},
    "modernbert": {**_COMMON, "local_attention": 8, "global_attn_every_n_layers": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 128, "initializer_range": 0.2},
    "llama": _GROUPED,
    "mistral": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": _WIDE_HEADS,
    "gemma": _WIDE_HEADS,
    "gemma2": _WIDE_HEADS,
    "gemma3_text": _WIDE_HEADS,
    "smollm3": _GROUPED,
    "qwen3_5_text": {**_WIDE_HEADS, "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
                     "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "phi3": _GROUPED,
    "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "init_std": 0.2,
            "max_position_embeddings": 128, "word_embed_proj_dim": 32},
    "gpt_neox": _COMMON,
}  # fmt: skip
TINY_FAMILIES = tuple(_CONFIGS)
_BERT_LIKE = ("bert", "electra", "distilbert", "deberta", "deberta-v2", "albert", "modernbert")
_ROBERTA_LIKE = ("roberta", "xlm-roberta", "camembert", "mpnet")


def tiny_backbone(
    family: str, kind: str = "classification", n_outputs: int = 2, seed: int = 0, dropout: float = 0.0
) -> Backbone:
    """A random model of this family: width 32, two layers; nothing is downloaded.

    The same seed gives the same weights. `dropout` sets every dropout that the family has.
    """
    from transformers import AutoModelForSequenceClassification

    tokenizer = tiny_tokenizer(family)
    config = _config(family, tokenizer, dropout)
    config.id2label = {index: f"LABEL_{index}" for index in range(n_outputs)}
    config.label2id = {label: index for index, label in config.id2label.items()}
    config.problem_type = PROBLEM_TYPES[kind]
    return backbone_of(_seeded(AutoModelForSequenceClassification, config, seed), tokenizer, f"tiny-{family}")


def tiny_language_model(family: str, seed: int = 0, dropout: float = 0.0) -> Backbone:
    """A random causal language model of this family, which can `generate`: width 32, two layers."""
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer(family)
    model = _seeded(AutoModelForCausalLM, _config(family, tokenizer, dropout), seed)
    return backbone_of(model, tokenizer, f"tiny-{family}")


def save_tiny(family: str, folder: str | Path, seed: int = 0, dropout: float = 0.0) -> Path:
    """Write a random base model, without a head, as a `transformers` folder that `load_backbone` reads."""
    from transformers import AutoModel

    tokenizer = tiny_tokenizer(family)
    model = _seeded(AutoModel, _config(family, tokenizer, dropout), seed)
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def tiny_tokenizer(family: str) -> Any:
    """A byte-level BPE tokenizer with the family's special tokens, learnt from a handful of sentences.

    As real ones do, GPT-2's and Llama's have no padding token, and GPT-2's puts nothing between two texts.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special, single, pair = _special_tokens(family)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(dict.fromkeys(special.values())),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    numbers = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(special.values())]
    tokenizer.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=numbers)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special)


def _special_tokens(family: str) -> tuple[dict[str, str], str, str]:
    """Special tokens by what they are for, in the order of their ids, and the shapes of one text and of two."""
    if family in _BERT_LIKE:
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        return special, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
    if family in _ROBERTA_LIKE:
        special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        special |= {"cls_token": "<s>", "sep_token": "</s>"}
        return special, "<s> $A </s>", "<s> $A </s> </s> $B </s>"
    if family in ("gpt2", "gpt_neox", "phi3"):
        return {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}, "$A", "$A $B"
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    if family in ("qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "opt", "qwen3_5_text"):
        special["pad_token"] = "<pad>"
    return special, "<s> $A", "<s> $A <s> $B"


def _config(family: str, tokenizer: Any, dropout: float) -> Any:
    from transformers import AutoConfig

    if family not in _CONFIGS:
        raise ConfigError(f"`family` must be one that has tiny models, got `{family}`; {nearest(family, _CONFIGS)}")
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        **_CONFIGS[family],
    )
    for key, value in config.to_dict().items():
        if re.search(r"(dropout|dropout_prob|_pdrop|layerdrop)$", key) and isinstance(value, float | int):
            setattr(config, key, 0.0 if key == "layerdrop" else dropout)
    return config


def _seeded(kind: Any, config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sub_seed(seed, "tiny"))
        return kind.from_config(config).eval()
