"""Sites: every role of every family is found, and writing through a site is writing into the model."""

import pytest
import torch
from torch.testing import assert_close

from deltaproof.backbones import (
    ATTENTION,
    FAMILIES,
    FFN,
    QKV,
    ROLES,
    TINY_FAMILIES,
    bias_of,
    tiny_backbone,
    weight_of,
)
from deltaproof.backbones.locate import is_linear, layer_paths
from deltaproof.errors import ConfigError

TEXTS = ["a good film with a good story", "the lazy dog", "numbers 1 2 3 and signs ? !"]
INTERLEAVED = ("deberta", "gpt_neox")
POST_NORM = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "deberta", "deberta-v2", "mpnet",
             "albert")  # fmt: skip
GATED = ("modernbert", "llama", "mistral", "qwen2", "qwen3", "qwen3_5_text", "gemma", "gemma2", "gemma3_text",
         "smollm3", "phi3")  # fmt: skip


@torch.no_grad()
def logits(backbone, texts=TEXTS):
    batch = backbone.tokenizer(texts, padding=True, return_tensors="pt")
    return backbone.model(**batch).logits


def test_every_family_of_the_table_has_a_tiny_model():
    assert set(FAMILIES) == set(TINY_FAMILIES)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_each_role_is_found_in_each_layer(family):
    backbone = tiny_backbone(family)
    expected = {"attention_out", "ffn_in", "ffn_out", "norm", "embedding", "head"}
    expected |= {"layer", "activation"} | (set() if family in INTERLEAVED else {*QKV, "attention"})
    expected |= {"attention_norm", "ffn_norm"} if family in POST_NORM else set()
    expected |= {"ffn_gate"} if family in GATED else set()
    assert {site.role for site in backbone.all_sites} == expected
    assert backbone.n_layers == (1 if family == "albert" else 2)
    for role in expected - {"embedding", "head"}:
        layers = {site.layer for site in backbone.sites([role])} - {None}
        is_hybrid = family == "qwen3_5_text" and role in (*ATTENTION, "attention")
        assert layers == ({1} if is_hybrid else set(range(backbone.n_layers)))


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_no_linear_map_of_a_layer_is_left_without_a_role(family):
    backbone = tiny_backbone(family)
    known = {site.path for site in backbone.all_sites}
    left = [
        path
        for layer in layer_paths(backbone.model, FAMILIES[family])
        for path, module in backbone.model.named_modules()
        if path.startswith(layer + ".") and is_linear(module) and path not in known
    ]
    allowed = {"deberta": ("in_proj", "pos_proj", "pos_q_proj"), "gpt_neox": ("query_key_value",)}
    if family == "qwen3_5_text":  # its linear attention has roles of its own
        left = [path for path in left if ".linear_attn." not in path]
    assert [path for path in left if path.rpartition(".")[2] not in allowed.get(family, ())] == []


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_names_are_unique_and_shapes_are_those_of_the_sites(family):
    backbone = tiny_backbone(family)
    assert len({(site.name, site.role) for site in backbone.all_sites}) == len(backbone.all_sites)
    for site in backbone.all_sites:
        if not site.has_weight:
            assert not list(backbone.module(site).parameters()) or site.role in ("layer", "attention")
            continue
        weight, bias = weight_of(backbone.module(site), site), bias_of(backbone.module(site), site)
        assert tuple(weight.shape) == ((site.d_out,) if site.role.endswith("norm") else (site.d_out, site.d_in)), site
        assert bias is None or tuple(bias.shape) == (site.d_out,), site


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_writing_through_a_site_changes_the_output_and_only_its_own_rows(family):
    backbone = tiny_backbone(family)
    before = logits(backbone)
    for site in (site for site in backbone.all_sites if site.has_weight):
        module = backbone.module(site)
        original = module.weight.detach().clone()
        with torch.no_grad():
            view = weight_of(module, site)
            kept = view.clone()
            view.add_(torch.randn(view.shape, generator=torch.Generator().manual_seed(0)))
        assert (logits(backbone) - before).abs().max() > 1e-5, f"{site.name} is not used"
        assert (module.weight.detach() != original).sum() == kept.numel(), f"{site.name} touched other rows"
        with torch.no_grad():
            view.copy_(kept)
    assert_close(logits(backbone), before, rtol=0, atol=0)


def _record_attention(backbone):
    """Run the model with an attention function of ours that keeps what it is given: queries, keys and values."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    seen = []

    def recorder(module, query, key, value, *arguments, **options):
        seen.append([part.transpose(1, 2).flatten(2) for part in (query, key, value)])
        return sdpa_attention_forward(module, query, key, value, *arguments, **options)

    AttentionInterface.register("recorder", recorder)
    AttentionMaskInterface.register("recorder", sdpa_mask)
    backbone.model.set_attn_implementation("recorder")
    return seen


@pytest.mark.parametrize("family", ["gpt2", "modernbert", "phi3", "llama", "qwen2", "bert", "opt"])
def test_query_key_and_value_rows_give_what_the_models_own_attention_receives(family):
    backbone = tiny_backbone(family)
    with torch.no_grad():  # biases start at zero and would hide a wrong slice
        for name, parameter in backbone.model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    seen, inputs = _record_attention(backbone), []
    sites = {site.role: site for site in backbone.sites(QKV, layers=[1])}
    backbone.module(sites["query"]).register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    logits(backbone, TEXTS[:1])
    for role, actual in zip(QKV, seen[1], strict=True):
        module, site = backbone.module(sites[role]), sites[role]
        bias = bias_of(module, site)
        ours = inputs[0] @ weight_of(module, site).T + (0 if bias is None else bias)
        if family == "opt" and role == "query":
            ours = ours * (32 // 4) ** -0.5  # OPT scales its queries first
        # Rotary embeddings turn queries and keys by their position, so position 0 is left as it is.
        upto = 1 if role != "value" and family in ("modernbert", "phi3", "llama", "qwen2") else None
        assert_close(ours[:, :upto], actual[:, :upto])


@pytest.mark.parametrize("family", ["modernbert", "phi3"])
def test_the_halves_of_a_fused_gate_give_the_models_own_feed_forward(family):
    backbone = tiny_backbone(family)
    sites = {site.role: site for site in backbone.sites(FFN, layers=[0])}
    weights = {role: weight_of(backbone.module(site), site) for role, site in sites.items()}
    mlp = backbone.module(sites["ffn_out"].path.rpartition(".")[0])
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    passed, linear = (x @ weights["ffn_in"].T, x @ weights["ffn_gate"].T)
    if family == "phi3":  # there the gate passes the activation, in ModernBERT the input
        passed, linear = linear, passed
    act = torch.nn.functional.silu if family == "phi3" else torch.nn.functional.gelu
    assert_close((act(passed) * linear) @ weights["ffn_out"].T, mlp(x))


def test_grouped_query_attention_gives_keys_and_values_fewer_rows():
    for family in ("llama", "phi3"):
        sites = {site.role: site for site in tiny_backbone(family).sites(QKV, layers=[0])}
        assert [sites[role].d_out for role in QKV] == [32, 16, 16]
    assert [site.rows for site in tiny_backbone("phi3").sites(QKV, layers=[0])] == [(0, 32), (32, 48), (48, 64)]


def test_a_fused_site_is_named_by_its_role_and_transposed_weights_are_turned():
    query, key = tiny_backbone("gpt2").sites(["query", "key"], layers=[0])
    assert (query.name, key.name) == ("transformer.h.0.attn.c_attn[query]", "transformer.h.0.attn.c_attn[key]")
    assert (query.rows, key.rows, key.transposed, key.stack) == ((0, 32), (32, 64), True, "decoder")


def test_layers_select_sites_and_one_that_does_not_exist_is_an_error():
    backbone = tiny_backbone("bert")
    assert [site.layer for site in backbone.sites(["query", "norm"], layers=[1])] == [1, 1, 1]
    with pytest.raises(ConfigError, match=r"`0 <= layer < n_layers` must hold .* got layer 2 .* from 0 to 1"):
        backbone.sites(["query"], layers=[0, 2])


def test_an_unknown_role_suggests_the_near_one():
    with pytest.raises(ConfigError, match=r"got `querry`; did you mean `query`\?"):
        tiny_backbone("bert").sites(["querry"])


def test_roles_that_match_nothing_name_what_the_model_has():
    with pytest.raises(ConfigError, match="this model has query, key, value, attention_out, ffn_in, ffn_out, norm"):
        tiny_backbone("bert").sites(["ffn_gate"])
    with pytest.raises(ConfigError, match=r"alternate head by head.*this model has attention_out, ffn_in"):
        tiny_backbone("gpt_neox").sites(["query", "value"])


def test_notes_say_what_is_special_about_a_model():
    assert tiny_backbone("bert").notes == []
    assert any("alternate head by head" in note for note in tiny_backbone("gpt_neox").notes)
    assert any("2 passes share" in note for note in tiny_backbone("albert").notes)
    assert "`query` exists in 1 of 2 layers only: 1" in tiny_backbone("qwen3_5_text").notes


def test_every_role_is_explained():
    places = {"layer", "attention", "activation", "attention_norm", "ffn_norm", "norm", "embedding", "head"}
    assert set(ATTENTION) | set(FFN) | places == set(ROLES)
    assert all(ROLES.values())
