"""Changes of weights: between folders, of adapters, of tuned models in memory; checked against peft and merging."""

import json
import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from deltaproof.backbones import backbone_of, load_backbone, save_tiny, tiny_backbone
from deltaproof.backbones.tiny import tiny_tokenizer
from deltaproof.errors import BackboneError, ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.testing.bench import Bench
from deltaproof.theory.adapters import adapter_deltas
from deltaproof.theory.checkpoints import open_model
from deltaproof.theory.deltas import between, common_prefix, natural_order
from deltaproof.theory.in_memory import deltas_of
from deltaproof.theory.skeleton import skeleton_of
from deltaproof.theory.updates import read_update

WEIGHTS = "model.safetensors"
QUERY = "encoder.layer.1.attention.self.query.weight"


def edited(base, folder, change):
    """A copy of a model's folder whose tensors `change` has been at."""
    shutil.copytree(base, folder)
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    return folder


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_tiny("bert", tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return save_tiny("gpt2", tmp_path_factory.mktemp("base") / "gpt2")


def test_what_was_added_to_a_weight_is_what_comes_out_and_nothing_else_changed(bert, tmp_path):
    added = noise(32, 32)
    tuned = edited(bert, tmp_path / "tuned", lambda tensors: tensors[QUERY].add_(added))
    deltas = read_update(str(bert), str(tuned))
    delta = deltas[QUERY]
    assert (delta.role, delta.layer, delta.stored_as) == ("query", 1, torch.float32)
    assert torch.allclose(delta.change, added, atol=1e-6)
    assert torch.equal(delta.base, load_file(bert / WEIGHTS)[QUERY])
    assert [name for name in deltas if deltas[name].change.any()] == [QUERY]
    assert len(deltas) == len(load_file(bert / WEIGHTS))
    assert deltas.notes == []


def test_roles_that_share_a_weight_are_told_apart_and_transposed_ones_turned(gpt2, tmp_path):
    added = noise(32, 96)
    name = "h.0.attn.c_attn.weight"
    tuned = edited(gpt2, tmp_path / "tuned", lambda tensors: tensors[name].add_(added))
    deltas = read_update(str(gpt2), str(tuned))
    for at, role in enumerate(("query", "key", "value")):
        delta = deltas[f"{name}[{role}]"]
        assert (delta.role, delta.layer) == (role, 0)
        assert torch.allclose(delta.change, added.T[32 * at : 32 * (at + 1)], atol=1e-6)
        assert deltas[f"h.0.attn.c_attn.bias[{role}]"].change.shape == (32,)
    assert deltas["h.1.mlp.c_fc.weight"].base.shape == (48, 32)


def test_a_base_model_and_a_whole_one_name_the_same_tensors(bert, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=3)
    with torch.no_grad():
        model.bert.encoder.layer[1].attention.self.query.weight += 1
    model.save_pretrained(tmp_path / "whole")
    deltas = read_update(str(bert), str(tmp_path / "whole"))
    assert torch.allclose(deltas[QUERY].change, torch.ones(32, 32))
    assert deltas.notes == ["2 tensor(s) only in the tuned model, new there: `classifier.bias`, `classifier.weight`"]
    without_roles = between(open_model(str(bert)), open_model(str(tmp_path / "whole")))
    assert torch.allclose(without_roles[QUERY].change, torch.ones(32, 32))
    assert without_roles[QUERY].role is None
    assert common_prefix(["encoder.a"], ["bert.encoder.a", "classifier.w"]) == "bert"


def test_shards_are_read_as_one_and_a_missing_one_is_named(bert, tmp_path):
    model = AutoModel.from_pretrained(bert)
    with torch.no_grad():
        model.encoder.layer[1].attention.self.query.weight += 1
    model.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    shards = sorted((tmp_path / "sharded").glob("model-*.safetensors"))
    assert len(shards) > 2
    deltas = read_update(str(bert), str(tmp_path / "sharded"))
    assert [name for name in deltas if deltas[name].change.any()] == [QUERY]
    shards[1].unlink()
    with pytest.raises(BackboneError, match=f"lacks {shards[1].name}"):
        read_update(str(bert), str(tmp_path / "sharded"))


def test_a_file_in_another_precision_gives_the_exact_difference(bert, tmp_path):
    def lower(tensors):
        for name in tensors:
            tensors[name] = tensors[name].bfloat16()

    deltas = read_update(str(bert), str(edited(bert, tmp_path / "tuned", lower)))
    weight = load_file(bert / WEIGHTS)[QUERY]
    assert torch.equal(deltas[QUERY].change, weight.bfloat16().float() - weight)
    assert deltas[QUERY].stored_as == torch.bfloat16


def test_an_output_layer_that_repeats_the_embedding_counts_once(tmp_path):
    tokenizer = tiny_tokenizer("llama")
    folder = save_tiny("llama", tmp_path / "base")
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))

    def tie(seed):
        def change(tensors):
            tensors["embed_tokens.weight"] += seed * noise(*tensors["embed_tokens.weight"].shape)
            tensors["lm_head.weight"] = tensors["embed_tokens.weight"].clone()

        return change

    base, tuned = edited(folder, tmp_path / "a", tie(0)), edited(folder, tmp_path / "b", tie(1))
    deltas = read_update(str(base), str(tuned))
    assert "lm_head.weight" not in deltas
    assert deltas.notes == ["`lm_head.weight` is the token embedding once more, and counted once"]
    assert deltas["embed_tokens.weight"].role == "embedding"


def test_old_names_of_norms_are_the_new_ones(bert, tmp_path):
    def rename(tensors):
        for name in list(tensors):
            if "LayerNorm" in name:
                new = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
                tensors[new] = tensors.pop(name)

    deltas = read_update(str(edited(bert, tmp_path / "old", rename)), str(bert))
    assert deltas.notes == []
    assert deltas["encoder.layer.0.output.LayerNorm.weight"].role == "norm"


def test_a_larger_vocabulary_is_left_out_with_a_note(bert, tmp_path):
    name = "embeddings.word_embeddings.weight"

    def enlarge(tensors):
        tensors[name] = torch.cat([tensors[name], noise(2, 32)])

    deltas = read_update(str(bert), str(edited(bert, tmp_path / "tuned", enlarge)))
    assert name not in deltas
    assert deltas.notes == [
        f"`{name}` has another shape in the tuned model, [320, 32] against [322, 32], and is left out"
    ]


def test_two_architectures_are_refused_in_words(bert, gpt2, tmp_path):
    with pytest.raises(BackboneError, match=r"one architecture.*0 of \d+ and \d+ tensors"):
        read_update(str(bert), str(gpt2))

    def widen(tensors):
        tensors[QUERY] = noise(64, 32)

    with pytest.raises(BackboneError, match=rf"`{QUERY}` has the shapes \[32, 32\] and \[64, 32\]"):
        read_update(str(bert), str(edited(bert, tmp_path / "wide", widen)))
    with pytest.raises(BackboneError, match="folder must exist"):
        read_update(str(bert), str(tmp_path / "nowhere"))


def test_a_model_of_an_unknown_type_is_compared_by_names(bert, tmp_path):
    base = edited(bert, tmp_path / "base", lambda tensors: None)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "nobody_knows"}))
    deltas = read_update(str(base), str(bert))
    assert deltas[QUERY].role is None
    assert deltas.notes == ["of a model of type `nobody_knows` no roles are known: tensors go by their names"]


ADAPTERS = {
    "lora": ("bert", {"target_modules": ["query", "value", "output.dense"], "alpha_pattern": {"query": 5}}),
    "patterns": (
        "bert",
        {"target_modules": "all-linear", "rank_pattern": {"layer.0.attention.self.key": 2}, "use_rslora": True},
    ),
    "dora": ("bert", {"target_modules": ["query", "intermediate.dense"], "use_dora": True}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "conv1d dora": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}),
    "embedding": ("bert", {"target_modules": ["word_embeddings", "key"]}),
    "ia3": ("bert", {"target_modules": ["key", "output.dense"], "feedforward_modules": ["output.dense"]}),
    "with head": ("bert", {"target_modules": ["query"], "modules_to_save": ["classifier"], "task_type": "SEQ_CLS"}),
}


def saved_adapter(name, base, folder):
    """An adapter with random values in its folder, and the model with the adapter folded in."""
    fields = dict(ADAPTERS[name][1])
    config = peft.IA3Config(**fields) if name == "ia3" else peft.LoraConfig(r=3, lora_alpha=7, **fields)
    kind = AutoModelForSequenceClassification if name == "with head" else AutoModel
    model = peft.get_peft_model(kind.from_pretrained(base), config)
    with torch.no_grad():
        for at, (key, parameter) in enumerate(model.named_parameters()):
            if "lora_" in key or "ia3" in key:
                parameter += 0.3 * noise(*parameter.shape, seed=at)
    model.save_pretrained(folder)
    return model.merge_and_unload()


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("knows_roles", [True, False], ids=["roles", "names"])
def test_an_adapter_changes_weights_as_peft_folds_it_in(name, knows_roles, bert, gpt2, tmp_path):
    base = {"bert": bert, "gpt2": gpt2}[ADAPTERS[name][0]]
    merged = saved_adapter(name, base, tmp_path / "adapter")
    merged.save_pretrained(tmp_path / "merged")
    skeleton = skeleton_of(base) if knows_roles else None
    found = adapter_deltas(open_model(str(base)), tmp_path / "adapter", skeleton)
    expected = between(open_model(str(base)), open_model(str(tmp_path / "merged")), skeleton)
    changed = {name for name in expected if expected[name].change.any()}
    assert set(found) == changed
    for each in found:
        delta, other = found[each], expected[each]
        reference, start = other.change, other.base
        if not knows_roles and not torch.equal(delta.base, start):  # without roles a folder's tensors are as stored
            reference, start = reference.mT, start.mT
        assert torch.equal(delta.base, start)
        assert torch.allclose(delta.change, reference, atol=1e-5)
        assert (delta.role, delta.layer) == (other.role, other.layer)
        if delta.factors is not None:
            a, b = delta.factors
            assert torch.allclose(b @ a, delta.change, atol=1e-6)
    assert all((found[each].factors is None) == (name in ("ia3", "dora", "conv1d dora")) for each in found)
    assert bool(found.notes) == (name == "with head")


def test_an_adapter_that_is_not_the_whole_update_or_lies_elsewhere_is_refused(bert, gpt2, tmp_path):
    saved_adapter("lora", bert, tmp_path / "adapter")
    with pytest.raises(BackboneError, match=r"changes `.*`, which `.*gpt2` lacks"):
        read_update(str(gpt2), str(tmp_path / "adapter"))

    def with_field(**fields):
        folder = tmp_path / "_".join(fields)
        shutil.copytree(tmp_path / "adapter", folder)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **fields}))
        return str(folder)

    with pytest.raises(BackboneError, match="is LOHA; fold it into the model"):
        read_update(str(bert), with_field(peft_type="LOHA"))
    with pytest.raises(BackboneError, match="started with `pissa_niter_4`, which changed the base"):
        read_update(str(bert), with_field(init_lora_weights="pissa_niter_4"))
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"has no adapter_model\.safetensors"):
        read_update(str(bert), str(tmp_path / "adapter"))


def test_an_adapter_of_a_wider_model_is_refused(bert, tmp_path):
    saved_adapter("lora", bert, tmp_path / "adapter")

    def widen(tensors):
        tensors["encoder.layer.0.attention.self.query.weight"] = noise(32, 64)

    other = edited(bert, tmp_path / "other", widen)
    with pytest.raises(BackboneError, match=r"by 32 x 32, the weight in .* is 32 x 64"):
        adapter_deltas(open_model(str(other)), tmp_path / "adapter")


MERGEABLE = [
    "lora(rank=2)", "dora(rank=2)", "ia3", "together(lora(rank=2), ia3)", "full", "bitfit", "ln_tune", "head",
    "ssf", "difffit", "pica(rank=2)", "vera(rank=2)",
]  # fmt: skip


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("label", MERGEABLE)
def test_a_tuned_model_changes_weights_as_merging_does(label, family):
    bench = Bench(family)
    before = {name: value.detach().clone() for name, value in bench.backbone().model.state_dict().items()}
    tuned = bench.tuned(method_from(label))
    deltas = deltas_of(tuned, before)
    found = {name: deltas[name] for name in deltas}
    merged = tuned.merge()
    reference = backbone_of(merged, tuned.backbone.tokenizer)
    checked = 0
    for name, delta in found.items():
        path = name.partition("[")[0]
        full = next(key for key in before if key == path or key.endswith(f".{path}"))
        sites = [site for site in reference.all_sites if site.role == delta.role and full.startswith(f"{site.path}.")]
        rows = slice(*sites[0].rows) if sites and sites[0].rows else slice(None)
        change = merged.state_dict()[full] - before[full]
        change = change.mT if sites and sites[0].transposed and change.ndim == 2 else change
        assert torch.allclose(delta.change, change[rows], atol=1e-5), name
        checked += delta.change.numel()
    changed = sum(int(merged.state_dict()[key].ne(before[key]).any()) * before[key].numel() for key in before)
    assert checked >= changed > 0
    assert any(delta.factors is not None for delta in found.values()) == label.startswith(
        ("lora", "together", "pica", "vera")
    )


def test_weights_trained_in_place_need_their_start():
    tuned = Bench().tuned(method_from("bitfit"), n_steps=1)
    with pytest.raises(ConfigError, match="give `reference`, their values before training"):
        deltas_of(tuned)


@pytest.mark.parametrize("label", ["prompt_tuning(num_virtual_tokens=2)", "prefix"])
def test_a_method_that_changes_no_weight_has_no_spectrum(label):
    backbone = tiny_backbone("bert")
    before = {name: value.clone() for name, value in backbone.model.state_dict().items() if "classifier" not in name}
    tuned = attach(backbone, method_from(label))
    for reference in (None, before):
        with pytest.raises(ConfigError, match="needs a change of weights"):
            deltas_of(tuned, reference)


def test_a_head_for_other_labels_is_left_out():
    bench = Bench()
    before = {name: value.clone() for name, value in bench.backbone().model.state_dict().items()}
    before["classifier.weight"] = noise(3, 32)
    deltas = deltas_of(bench.tuned(method_from("bitfit")), before)
    assert "classifier.weight" not in deltas
    assert deltas.notes == ["the head (classifier) is trained too and left out: the base has none"]


def test_what_weights_do_not_express_is_noted():
    tuned = Bench().tuned(method_from("together(lora(rank=2), prefix)"))
    deltas = deltas_of(tuned)
    assert len(deltas) == 12
    assert any("adds what no change of weights expresses" in note for note in deltas.notes)
    assert any(note.startswith("the head (classifier) is trained too") for note in deltas.notes)


@pytest.mark.parametrize("label", ["loha(r=2)", "oft(oft_block_size=4)", "peft_lora(r=2, use_dora=True)"])
def test_a_method_of_pefts_is_read_layer_by_layer_and_left_as_it_was(label):
    bench = Bench()
    before = {name: value.clone() for name, value in bench.backbone().model.state_dict().items()}
    tuned = bench.tuned(method_from(label), n_steps=2)
    answers = bench.answers(tuned)
    deltas = deltas_of(tuned)
    found = {name: deltas[name].change for name in deltas}
    assert torch.equal(bench.answers(tuned), answers)
    merged = tuned.merge().state_dict()
    assert len(found) == 4  # peft's own choice for BERT: queries and values
    for name, change in found.items():
        assert torch.allclose(change, merged[f"bert.{name}"] - before[f"bert.{name}"], atol=1e-5)
        assert change.any()


def test_names_go_in_the_order_of_the_layers():
    assert sorted(["layer.10.a", "layer.2.b", "layer.2.a"], key=natural_order) == [
        "layer.2.a", "layer.2.b", "layer.10.a",
    ]  # fmt: skip


def test_the_model_of_a_backbone_and_its_folder_have_one_skeleton(bert):
    backbone = load_backbone(str(bert), "classification", 2)
    found = skeleton_of(bert)
    assert found.prefix == "bert"
    paths = {site.path.removeprefix("bert.") for site in backbone.all_sites if site.has_weight}
    assert paths == set(found.sites)


def test_a_causal_language_model_is_compared_too(tmp_path):
    folder = save_tiny("llama", tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "one")
    with torch.no_grad():
        model.model.layers[0].mlp.gate_proj.weight += 1
    model.save_pretrained(tmp_path / "two")
    deltas = read_update(str(tmp_path / "one"), str(tmp_path / "two"))
    changed = [deltas[name] for name in deltas if deltas[name].change.any()]
    assert [(delta.role, delta.layer) for delta in changed] == [("ffn_gate", 0)]
