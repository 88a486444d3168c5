"""Forgetting on models whose loss is known: nothing trained forgets nothing, a closed form, and a planted loss."""

import math

import numpy as np
import pytest
import torch

from deltaproof import compare
from deltaproof.backbones.language_model import load_language_model
from deltaproof.backbones.tiny import tiny_tokenizer
from deltaproof.errors import BackboneError, DataError
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.records.store import Store
from deltaproof.studies.forgetting import corpus_for, forgetting, read_corpus, recall, with_edits_of
from deltaproof.studies.kept_models import Bed

CPU = torch.device("cpu")


def save_language_model(family: str, folder, masked: bool):
    """A tiny checkpoint with its pretraining head."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    from deltaproof.backbones.tiny import _config

    tokenizer = tiny_tokenizer(family)
    if masked:
        tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    torch.manual_seed(0)
    kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    kind.from_config(_config(family, tokenizer, 0.0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert_lm(tmp_path_factory):
    return save_language_model("bert", tmp_path_factory.mktemp("models") / "bert-lm", masked=True)


@pytest.fixture(scope="module")
def llama_lm(tmp_path_factory):
    return save_language_model("llama", tmp_path_factory.mktemp("models") / "llama-lm", masked=False)


@pytest.mark.parametrize("name", ["bert_lm", "llama_lm"])
@pytest.mark.parametrize("method", ["lora", "pica(rank=4)", "ia3", "bitfit", "full", "ln_tune"])
def test_a_method_that_has_not_been_trained_has_forgotten_nothing(name, method, request):
    base = load_language_model(str(request.getfixturevalue(name)))
    corpus = corpus_for(base, read_corpus(None), seed=0)
    before = recall(base.model, corpus, CPU)
    after = recall(attach(base, method_from(method)), corpus, CPU)
    np.testing.assert_allclose(after.losses, before.losses, atol=1e-5)
    np.testing.assert_allclose(after.right, before.right, atol=0.05)  # logits of random models lie close together


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_vocabulary(llama_lm):
    base = load_language_model(str(llama_lm))
    with torch.no_grad():
        base.model.lm_head.weight.zero_()
    losses = recall(base.model, corpus_for(base, read_corpus(None), seed=0), CPU).losses
    np.testing.assert_allclose(losses, math.log(base.model.config.vocab_size), rtol=1e-5)


def test_the_next_tokens_loss_is_that_of_transformers(llama_lm):
    base = load_language_model(str(llama_lm))
    corpus = corpus_for(base, read_corpus(None), seed=0)
    found = recall(base.model, corpus, CPU)
    with torch.no_grad():
        theirs = base.model(input_ids=corpus.inputs, labels=corpus.inputs)
    assert found.losses.mean() == pytest.approx(float(theirs.loss), rel=1e-5)
    named = theirs.logits[:, :-1].argmax(dim=2) == corpus.inputs[:, 1:]
    np.testing.assert_allclose(found.right, named.double().mean(dim=1), atol=0.02)


def test_masks_are_the_same_every_time_and_only_they_are_asked(bert_lm):
    base = load_language_model(str(bert_lm))
    one, same = (corpus_for(base, read_corpus(None), seed=0) for _ in range(2))
    assert torch.equal(one.inputs, same.inputs)
    asked = one.targets != -100
    assert torch.equal(asked, one.inputs == base.tokenizer.mask_token_id)
    assert 0.12 < asked.float().mean() < 0.18


@pytest.mark.parametrize("method", ["lora(rank=2)", "full", "bitfit", "serial"])
def test_the_edits_of_a_classifier_act_on_the_language_model_as_they_did(bert_lm, method):
    """The last hidden states of both models are equal: the change of the base was carried over whole."""
    from deltaproof.backbones import load_backbone

    classifier = load_backbone(str(bert_lm), "classification", 2)
    tuned = attach(classifier, method_from(method), seed=1)
    with torch.no_grad():
        for name, value in tuned.trained().items():
            if not name.startswith(classifier.head):
                value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
    copy = with_edits_of(tuned.eval(), load_language_model(str(bert_lm)), seed=1)
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        wanted = tuned(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        got = copy(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        base = (
            load_language_model(str(bert_lm)).model.eval()(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        )
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(got, base, atol=1e-3)


def test_the_study_names_every_methods_rise_and_head_has_none(bert_lm, reviews_csv, tmp_path):
    compare(model=str(bert_lm), data=str(reviews_csv), methods=["full", "head"], out=tmp_path, seeds=2, trials=1,
            training={"epochs": 1, "batch_size": 8}, max_length=24, baselines=False, keep="all",
            learning_rates=[3e-3])  # fmt: skip
    result = forgetting(Bed(Store(tmp_path), CPU))
    rises = {entry["label"]: entry for entry in result["methods"]}
    assert result["applicable"]
    assert result["task"] == "masked tokens"
    assert rises["head"]["rise"] == pytest.approx(0, abs=1e-6)
    assert abs(rises["full"]["rise"]) > 1e-3
    assert rises["full"]["low"] < rises["full"]["rise"] < rises["full"]["high"]


def test_a_base_without_an_output_layer_is_not_asked(bert):
    with pytest.raises(BackboneError, match="output layer must be in the checkpoint"):
        load_language_model(str(bert))


def test_a_corpus_that_is_too_short_or_no_text_is_refused(llama_lm, tmp_path):
    with pytest.raises(DataError, match="must have at least 384 tokens, got"):
        corpus_for(load_language_model(str(llama_lm)), "a short text", seed=0)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="must be a text file in UTF-8"):
        read_corpus(tmp_path / "bytes.txt")
