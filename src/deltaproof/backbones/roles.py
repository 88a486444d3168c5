"""What a weight does in a transformer: methods name these roles, never a model's modules."""

ROLES: dict[str, str] = {
    "query": "the projection that attention asks with",
    "key": "the projection that attention is matched against",
    "value": "the projection that attention averages",
    "attention_out": "the projection of the attention's result back to the residual stream",
    "ffn_in": "the widening projection of the feed-forward block",
    "ffn_gate": "the second widening projection of a gated feed-forward block, where there is one",
    "ffn_out": "the narrowing projection of the feed-forward block",
    "norm": "every layer norm or RMS norm, those outside of layers included",
    "embedding": "the tables of tokens, positions and segments",
    "head": "the linear maps from the pooled state to the outputs",
    "layer": "a whole layer: its output is the residual stream",
    "attention": "where queries, keys and values meet",
    "activation": "the non-linearity of the feed-forward block",
    "attention_norm": "the norm behind the attention's residual sum, in models that norm there (BERT)",
    "ffn_norm": "the norm behind the feed-forward block's residual sum, in models that norm there (BERT)",
}

QKV = ("query", "key", "value")
ATTENTION = (*QKV, "attention_out")
FFN = ("ffn_in", "ffn_gate", "ffn_out")
