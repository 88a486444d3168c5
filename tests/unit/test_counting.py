"""What methods train of models of billions, counted from their configurations alone, against the papers' counts."""

import json
import math

import pytest
import torch

from deltaproof.backbones import save_tiny, tiny_backbone
from deltaproof.cli.main import app
from deltaproof.errors import BackboneError, ConfigError
from deltaproof.methods import METHODS, method_from
from deltaproof.methods.counting import Count, backbone_without_weights, count_trainable
from deltaproof.methods.tuned import attach

GEMMA_2B = {
    "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
    "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000,
}  # fmt: skip
GEMMA_7B = {
    "model_type": "gemma", "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "vocab_size": 256000,
}  # fmt: skip
LLAMA_3_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
DEBERTA_V3_BASE = {
    "model_type": "deberta-v2", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "vocab_size": 128100, "relative_attention": True, "position_buckets": 256,
    "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
FIVE = ["query", "key", "value", "ffn_in", "ffn_out"]
SEVEN = ["query", "key", "value", "attention_out", "ffn_in", "ffn_gate", "ffn_out"]
PICA = [
    (GEMMA_2B, 32, FIVE, 671_744),
    (GEMMA_2B, 256, FIVE, 5_373_952),
    (GEMMA_7B, 16, FIVE, 638_976),  # which the paper's table gives as rank 32
    (GEMMA_7B, 128, FIVE, 5_111_808),
    (GEMMA_7B, 256, FIVE, 10_223_616),
    (LLAMA_3_8B, 32, SEVEN, 1_376_256),
    (LLAMA_3_8B, 256, SEVEN, 11_010_048),
    (DEBERTA_V3_BASE, 16, ["query", "key", "value", "attention_out", "ffn_in", "ffn_out"], 110_592),
]
IN_MILLIONS = [
    ("lora(rank=1, roles={})", GEMMA_2B, "0.82"),
    ("lora(rank=32, roles={})", GEMMA_2B, "26.2"),
    ("lora(rank=32, roles={})", GEMMA_7B, "68.8"),
    ("lora(rank=1, roles={})", LLAMA_3_8B, "1.77"),
    ("lora(rank=32, roles={})", LLAMA_3_8B, "56.6"),
    ("dora(rank=1, roles={})", GEMMA_2B, "1.19"),
    ("dora(rank=16, roles={})", GEMMA_2B, "13.5"),
    ("dora(rank=1, roles={})", GEMMA_7B, "3.26"),
    ("dora(rank=16, roles={})", GEMMA_7B, "35.5"),
    ("dora(rank=1, roles={})", LLAMA_3_8B, "2.55"),
    ("dora(rank=16, roles={})", LLAMA_3_8B, "29.1"),
]
"""Rows of the main table of Hwang et al., 2025, arXiv:2505.20211: LoRA and DoRA on the same five maps. Its digits are
cut in some rows and rounded in others."""


@pytest.mark.parametrize(("config", "rank", "roles", "wanted"), PICA)
def test_pica_trains_what_its_paper_counts(config, rank, roles, wanted):
    assert count_trainable(method_from(f"pica(rank={rank}, roles={roles})"), config).n_method == wanted


def test_without_sharing_pica_trains_as_much_again_for_each_layer():
    """35.78 million at rank 32 on Gemma-7B is the paper's ablation without sharing."""
    count = count_trainable(method_from("pica(rank=32, share=False)"), GEMMA_7B)
    assert count.n_method == 28 * count_trainable(method_from("pica(rank=32)"), GEMMA_7B).n_method == 35_782_656


def test_picas_frozen_directions_are_as_many_as_the_paper_counts():
    """113.25 million on Gemma-2B: r d_in per map, which settles that the directions are those of the input."""
    backbone = backbone_without_weights(GEMMA_2B)
    with torch.device("meta"):
        edits = [edit for _, edit in method_from("pica(rank=256)").edits(backbone)]
    assert sum(edit.p.numel() for edit in edits) == 113_246_208


@pytest.mark.parametrize(("text", "config", "millions"), IN_MILLIONS)
def test_lora_and_dora_train_what_a_published_table_counts(text, config, millions):
    n = count_trainable(method_from(text.format(FIVE)), config).n_method / 1e6
    digits = len(millions.partition(".")[2])
    assert millions in (f"{n:.{digits}f}", f"{math.floor(n * 10**digits) / 10**digits:.{digits}f}")


@pytest.mark.parametrize(("rank", "wanted"), [(1, 24 * (768 + 1)), (256, 24 * (768 + 256)), (1024, 24 * (768 + 1024))])
def test_vera_trains_its_formula_of_queries_and_values(rank, wanted):
    """L (d_model + r) with two maps in each of twelve layers: Kopiczko et al., 2023, arXiv:2310.11454, sec. 3.2."""
    roberta_base = {"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
    assert count_trainable(method_from(f"vera(rank={rank}, roles=['query', 'value'])"), roberta_base).n_method == wanted


def test_the_whole_model_is_counted_too():
    count = count_trainable(method_from("full"), GEMMA_7B, n_outputs=3)
    assert count == Count(n_method=8_537_680_896, n_head=3 * 3072, n_model=8_537_680_896 + 3 * 3072)


def test_a_count_allocates_nothing():
    backbone = backbone_without_weights(LLAMA_3_8B)
    assert {parameter.device.type for parameter in backbone.model.parameters()} == {"meta"}


FIELDS = {"pica": "pica(rank=4)", "peft": "peft_lora(r=4)"}


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("name", [*METHODS, "peft_vera(r=4)", "prompt_tuning(num_virtual_tokens=4)"])
def test_a_count_is_that_of_the_model_itself(name, family):
    try:
        method = method_from(FIELDS.get(name, name))
    except ConfigError:
        pytest.skip("is made of other methods")
    backbone = tiny_backbone(family)
    config = backbone.model.config
    before = config.to_dict()
    wanted = attach(backbone, method).n_trainable
    try:
        count = count_trainable(method, config)
    except ConfigError as error:
        if "looks at the model's weights first" not in str(error):
            raise
        pytest.skip("refuses to be counted, as the next test shows")
    assert count.n_method + count.n_head == wanted
    assert config.to_dict() == before


def test_a_method_that_runs_the_model_to_learn_its_shapes_is_refused():
    with pytest.raises(ConfigError, match=r"`deep_prompt` looks at the model's weights first; attach it to the model"):
        count_trainable(method_from("deep_prompt"), tiny_backbone("bert").model.config)


def test_show_counts_on_a_folder_with_nothing_but_a_configuration(tmp_path):
    from typer.testing import CliRunner

    config = save_tiny("bert", tmp_path / "whole") / "config.json"
    (tmp_path / "bare").mkdir()
    config.rename(tmp_path / "bare" / "config.json")
    arguments = ["show", "lora(rank=2, roles=['query'])", "--model", str(tmp_path / "bare")]
    facts = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert facts["count"]["n_method"] == 2 * 2 * (32 + 32)
    assert facts["count"]["n_head"] == 2 * 32 + 2
    text = " ".join(CliRunner().invoke(app, arguments).stdout.split())
    assert "count 256 parameters of lora(roles=['query'], rank=2) on" in text
    assert "and 66 of a head for two labels; the whole model has" in text


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BackboneError, match="a model's folder must exist, got"):
        count_trainable(method_from("lora"), str(tmp_path / "nowhere"))


def test_a_rank_that_does_not_fit_is_refused_without_weights_too():
    with pytest.raises(ConfigError, match=r"`rank <= min\(d_in, d_out\)` must hold at model\.layers\.0\.self_attn"):
        count_trainable(method_from("pica(rank=512)"), GEMMA_2B)
