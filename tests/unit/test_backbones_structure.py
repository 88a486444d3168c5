"""Families that the table does not know: found by structure, or an error that says what to write."""

import pytest
import torch

from deltaproof.backbones import (
    FAMILIES,
    FFN,
    QKV,
    TINY_FAMILIES,
    Family,
    as_backbone,
    backbone_of,
    load_backbone,
    tiny_backbone,
)
from deltaproof.backbones.structure import discover_family
from deltaproof.backbones.tiny import tiny_tokenizer
from deltaproof.errors import BackboneError, ConfigError
from deltaproof.methods.tuned import attach

FUSED = ("modernbert", "gpt2", "phi3", "gpt_neox")
AMBIGUOUS = ("deberta", "albert", "qwen3_5_text")  # two maps for one role, or a list of lists
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
         "max_position_embeddings": 64, "vocab_size": 320, "pad_token_id": None, "bos_token_id": 0,
         "eos_token_id": 0}  # fmt: skip


def config_of(model_type, **fields):
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type, **{**SMALL, **fields})


def write(model_type, folder):
    from transformers import AutoModel

    AutoModel.from_config(config_of(model_type)).save_pretrained(folder)
    tiny_tokenizer("gpt2").save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", [name for name in TINY_FAMILIES if name not in (*FUSED, *AMBIGUOUS)])
def test_structure_finds_what_the_table_says(family):
    found, table = discover_family(tiny_backbone(family).model), FAMILIES[family]
    assert (found.layers, dict(found.names), found.stack) == (table.layers, dict(table.names), table.stack)


@pytest.mark.parametrize("family", FUSED)
def test_a_fused_weight_whose_rows_are_unknown_is_left_out_and_said(family):
    found, table = discover_family(tiny_backbone(family).model), FAMILIES[family]
    has_fused_gate = family in ("modernbert", "phi3")
    assert set(found.unreachable) == set(QKV) | ({"ffn_in", "ffn_gate"} if has_fused_gate else set())
    assert found.names["attention_out"] == table.names["attention_out"]
    assert found.names["ffn_out"] == table.names["ffn_out"]


@pytest.mark.parametrize("model_type", ["phi", "biogpt", "stablelm", "olmo2"])
def test_an_unknown_family_loads_with_a_notice(model_type, tmp_path):
    assert model_type not in FAMILIES
    backbone = load_backbone(write(model_type, tmp_path), "classification", 2)
    assert f"family `{model_type}` is not in the tables: roles were found by structure: query = " in backbone.notes[0]
    assert len(backbone.sites(QKV)) == 6
    assert {site.role for site in backbone.sites(FFN)} >= {"ffn_in", "ffn_out"}
    assert {site.stack for site in backbone.all_sites} == {"decoder"}


def test_a_family_that_structure_cannot_read_says_what_to_write_and_then_loads(tmp_path, monkeypatch):
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config_of("convbert", embedding_size=32))
    with pytest.raises(BackboneError, match=r"of family `convbert` both .*FAMILIES.add\(.convbert.\).*maps here"):
        as_backbone(model, tiny_tokenizer("bert"), "mine", ["classifier"], "", "", ())
    monkeypatch.setattr(FAMILIES, "_entries", dict(FAMILIES.items()))
    FAMILIES.add("convbert")(Family("encoder.layer", {"query": "attention.self.query", "ffn_out": "output.dense"}))
    backbone = as_backbone(model, tiny_tokenizer("bert"), "mine", ["classifier"], "", "", ())
    assert [site.path for site in backbone.sites(["query"])] == [
        f"convbert.encoder.layer.{layer}.attention.self.query" for layer in (0, 1)
    ]


def test_a_model_without_repeated_layers_or_with_scattered_ones_is_an_error():
    from transformers import AutoModelForSequenceClassification

    flat = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(BackboneError, match="has no list of equal layers"):
        discover_family(flat)
    scattered = AutoModelForSequenceClassification.from_config(
        config_of("xlm", emb_dim=32, n_layers=2, n_heads=4, n_words=320)
    )
    with pytest.raises(BackboneError, match="the layers are spread over several lists"):
        discover_family(scattered)


def test_a_table_entry_that_does_not_fit_the_model_names_the_module(monkeypatch):
    monkeypatch.setitem(FAMILIES._entries, "bert", Family("encoder.layer", {"query": "attention.self.q"}))
    with pytest.raises(BackboneError, match=r"`bert.encoder.layer.0.attention.self.q` must be a module of the model"):
        tiny_backbone("bert")
    monkeypatch.setitem(FAMILIES._entries, "gpt2", Family("h", {"query": "attn.c_attn", "key": "attn.c_attn"}))
    with pytest.raises(BackboneError, match=r"the roles that share .* must cover its 96 rows, got 64"):
        tiny_backbone("gpt2")


def xlnet(summary_type):
    from transformers import XLNetConfig, XLNetForSequenceClassification

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer("bert")
    config = XLNetConfig(
        vocab_size=len(tokenizer), d_model=32, n_layer=2, n_head=4, d_inner=48, initializer_range=0.2, dropout=0.0,
        pad_token_id=tokenizer.pad_token_id, summary_type=summary_type,
    )  # fmt: skip
    return XLNetForSequenceClassification(config).eval(), tokenizer


@torch.no_grad()
def is_same_alone_and_padded(model, tokenizer):
    both = ["a film", "a good long film"]
    batches = (tokenizer(texts, padding=True, return_tensors="pt") for texts in (both[:1], both))
    alone, padded = (model(**batch).logits[0] for batch in batches)
    return torch.allclose(alone, padded, atol=1e-5)


def test_a_head_that_would_read_padding_is_refused():
    model, tokenizer = xlnet("last")
    assert not is_same_alone_and_padded(model, tokenizer)
    with pytest.raises(BackboneError, match="reads padding, by `summary_type = last`; take a model whose head reads"):
        backbone_of(model, tokenizer, "mine")


@pytest.mark.parametrize("method", ["loreft", "density_penalty(lora)"])
def test_what_acts_at_tokens_says_where_layers_have_the_tokens_first(method):
    model, tokenizer = xlnet("first")
    assert is_same_alone_and_padded(model, tokenizer)
    tuned = attach(backbone_of(model, tokenizer, "mine"), method).train()
    for texts in (["a film"], ["a film", "a good long film"]):
        with pytest.raises(ConfigError, match=r"\(batch, tokens, width\), got .* the tokens come first"):
            tuned(**tokenizer(texts, padding=True, return_tensors="pt"))
