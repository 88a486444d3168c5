"""How each family of models calls its parts: one table, the only place that knows module names.

A family of your own is one entry more:

    FAMILIES.add("my_model_type")(Family(layers="encoder.blocks", names={"query": "attn.q", ...}))
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from deltaproof.backbones.roles import QKV
from deltaproof.registry import Registry


@dataclass(frozen=True)
class Family:
    """Names of the linear maps by role. Norms, embeddings and heads are found by what they are.

    Roles that name the same module share its weight: their rows follow each other in the order of `names`.
    """

    layers: str
    """Path of the list of layers inside the base model."""
    names: Mapping[str, str]
    """Role to module path inside a layer. Hybrid models have it in some of their layers only."""
    stack: Literal["encoder", "decoder"] = "encoder"
    norms: Mapping[str, str] | None = None
    """Of a post-norm family: `attention_norm` and `ffn_norm`, the norms behind the residual sums."""
    unreachable: Mapping[str, str] | None = None
    """Roles the model has but that no site can stand for, with the reason."""


FAMILIES: Registry[Family] = Registry("model family")


def _enter(family: Family, *model_types: str) -> None:
    for model_type in model_types:
        FAMILIES.add(model_type)(family)


_BERT_REST = {
    "attention_out": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
}
_BERT_NORMS = {"attention_norm": "attention.output.LayerNorm", "ffn_norm": "output.LayerNorm"}
_BERT = Family(
    "encoder.layer",
    {"query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value", **_BERT_REST},
    norms=_BERT_NORMS,
)
_enter(_BERT, "bert", "roberta", "xlm-roberta", "camembert", "electra")

_DEBERTA_V2 = Family(
    "encoder.layer",
    {
        "query": "attention.self.query_proj",
        "key": "attention.self.key_proj",
        "value": "attention.self.value_proj",
        **_BERT_REST,
    },
    norms=_BERT_NORMS,
)
_enter(_DEBERTA_V2, "deberta-v2")  # DeBERTa-v3 checkpoints carry this model type too

_INTERLEAVED = "their rows alternate head by head in one fused weight, so none of them is a range of rows"
_DEBERTA = Family("encoder.layer", _BERT_REST, norms=_BERT_NORMS, unreachable=dict.fromkeys(QKV, _INTERLEAVED))
_enter(_DEBERTA, "deberta")

_MPNET = Family(
    "encoder.layer",
    {
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "attention_out": "attention.attn.o",
        "ffn_in": "intermediate.dense",
        "ffn_out": "output.dense",
    },
    norms={"attention_norm": "attention.LayerNorm", "ffn_norm": "output.LayerNorm"},
)
_enter(_MPNET, "mpnet")

_DISTILBERT = Family(
    "transformer.layer",
    {
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_out": "attention.out_lin",
        "ffn_in": "ffn.lin1",
        "ffn_out": "ffn.lin2",
    },
    norms={"attention_norm": "sa_layer_norm", "ffn_norm": "output_layer_norm"},
)
_enter(_DISTILBERT, "distilbert")

_ALBERT = Family(
    "encoder.albert_layer_groups.0.albert_layers",  # one layer, used again and again
    {
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "attention_out": "attention.dense",
        "ffn_in": "ffn",
        "ffn_out": "ffn_output",
    },
    norms={"attention_norm": "attention.LayerNorm", "ffn_norm": "full_layer_layer_norm"},
)
_enter(_ALBERT, "albert")

# Models disagree on which half is the gate: we keep each model's own words. Here `input` passes the activation.
_MODERNBERT = Family(
    "layers",
    {
        "query": "attn.Wqkv",
        "key": "attn.Wqkv",
        "value": "attn.Wqkv",
        "attention_out": "attn.Wo",
        "ffn_in": "mlp.Wi",
        "ffn_gate": "mlp.Wi",
        "ffn_out": "mlp.Wo",
    },
)
_enter(_MODERNBERT, "modernbert")

_GPT2 = Family(
    "h",
    {
        "query": "attn.c_attn",
        "key": "attn.c_attn",
        "value": "attn.c_attn",
        "attention_out": "attn.c_proj",
        "ffn_in": "mlp.c_fc",
        "ffn_out": "mlp.c_proj",
    },
    stack="decoder",
)
_enter(_GPT2, "gpt2")

_SPLIT_QKV = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj"}
_LLAMA = Family(
    "layers",
    {
        **_SPLIT_QKV,
        "attention_out": "self_attn.o_proj",
        "ffn_in": "mlp.up_proj",
        "ffn_gate": "mlp.gate_proj",  # here the gate passes the activation
        "ffn_out": "mlp.down_proj",
    },
    stack="decoder",
)
_enter(_LLAMA, "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "qwen3_5_text")

_PHI3 = Family(
    "layers",
    {
        "query": "self_attn.qkv_proj",
        "key": "self_attn.qkv_proj",
        "value": "self_attn.qkv_proj",
        "attention_out": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_up_proj",
        "ffn_in": "mlp.gate_up_proj",
        "ffn_out": "mlp.down_proj",
    },
    stack="decoder",
)
_enter(_PHI3, "phi3")

_OPT = Family(
    "decoder.layers",
    {**_SPLIT_QKV, "attention_out": "self_attn.out_proj", "ffn_in": "fc1", "ffn_out": "fc2"},
    stack="decoder",
)
_enter(_OPT, "opt")

_GPT_NEOX = Family(
    "layers",
    {"attention_out": "attention.dense", "ffn_in": "mlp.dense_h_to_4h", "ffn_out": "mlp.dense_4h_to_h"},
    stack="decoder",
    unreachable=dict.fromkeys(QKV, _INTERLEAVED),
)
_enter(_GPT_NEOX, "gpt_neox")
