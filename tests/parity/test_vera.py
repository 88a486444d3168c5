"""VeRA is that of peft: the same random pair from the same number, equal answers, and equal losses over a training.

Tolerances as for LoRA: logits 1e-6 at the start, losses 1e-4 over 20 steps of AdamW, values 1e-3 after them.
"""

import copy

import numpy as np
import peft
import pytest
import torch
from by_hand import TASK, encoded, train_by_hand
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from deltaproof.backbones import Site, load_backbone, save_tiny, tiny_backbone
from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.methods.vera import Projections, Vectors, VeRA
from deltaproof.records.spec import Spec
from deltaproof.saving.folder import load_tuned, save_tuned
from deltaproof.tasks.text import collate
from deltaproof.testing.bench import TEXTS, Bench
from deltaproof.training.loop import train
from deltaproof.training.precision import accelerator_for
from deltaproof.training.settings import Training

TARGETS = {
    "bert": {"query": "query", "key": "key", "value": "value", "ffn_in": r".*\d\.intermediate\.dense",
             "ffn_out": r".*\d\.output\.dense"},
    "gpt2": {"attention_out": "attn.c_proj", "ffn_in": "c_fc", "ffn_out": "mlp.c_proj"},
    "llama": {"query": "q_proj", "key": "k_proj", "value": "v_proj", "ffn_gate": "gate_proj", "ffn_out": "down_proj"},
}  # fmt: skip
"""peft's names for the roles that have a module of their own; their shapes differ, so that slices are taken."""


def pair(family, **fields):
    """Ours and peft's on equal models, from equal settings; nothing is copied from one to the other."""
    roles = TARGETS[family]
    pattern = "|".join(target if target.startswith(".*") else rf".*\.{target}" for target in roles.values())
    dropout = fields.pop("dropout", 0.0)
    config = peft.VeraConfig(
        task_type="SEQ_CLS", target_modules=pattern, r=8, projection_prng_key=3, fan_in_fan_out=family == "gpt2",
        vera_dropout=dropout, **fields,
    )  # fmt: skip
    theirs = peft.get_peft_model(copy.deepcopy(tiny_backbone(family).model), config)
    method = VeRA(rank=8, projection_seed=3, roles=tuple(roles), dropout=dropout, **fields)
    ours = attach(tiny_backbone(family), method, seed=1)
    names = {f"base_model.model.{site.path}.vera_lambda_{of}.default": getattr(edit, of) for site, edit in ours.placed()
             for of in ("d", "b")}  # fmt: skip
    trained = {name for name, p in theirs.named_parameters() if p.requires_grad and "modules_to_save" not in name}
    assert names.keys() == trained, "both must change the same layers"
    return ours, theirs, names


def logits(model, rows, pad_token_id):
    with torch.no_grad():
        return model.eval()(**collate(rows, range(len(rows)), pad_token_id)).logits


def answers(model, tokenizer):
    with torch.no_grad():
        return model.eval()(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).logits


@pytest.mark.parametrize("family", TARGETS)
def test_the_random_pair_is_pefts_to_the_bit(family):
    ours, theirs, _ = pair(family)
    projections = ours.edits[0].projections
    assert torch.equal(projections.a, theirs.base_model.vera_A["default"])
    assert torch.equal(projections.b, theirs.base_model.vera_B["default"])


@pytest.mark.parametrize("family", TARGETS)
def test_the_start_values_are_pefts(family):
    _, theirs, names = pair(family, d_initial=0.3)
    values = dict(theirs.named_parameters())
    assert all(torch.equal(value, values[name]) for name, value in names.items())


@pytest.mark.parametrize("family", TARGETS)
def test_away_from_the_start_it_answers_like_pefts(family):
    ours, theirs, names = pair(family)
    random, values = torch.Generator().manual_seed(0), dict(theirs.named_parameters())
    for name, value in names.items():
        value.data = torch.randn(value.shape, generator=random)
        values[name].data = value.data.clone()
    rows, pad = encoded(ours.backbone.tokenizer, 16), ours.backbone.tokenizer.pad_token_id
    base = logits(tiny_backbone(family).model, rows, pad)
    got, wanted = logits(ours, rows, pad), logits(theirs, rows, pad)
    assert (wanted - base).abs().max() > 0.1
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("family", TARGETS)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_it_is_pefts_over_a_training(family, dropout, monkeypatch):
    monkeypatch.setattr("deltaproof.training.best.Best.put_back", lambda self, trained: None)  # compare the last values
    ours, theirs, names = pair(family, dropout=dropout)
    tokenizer = ours.backbone.tokenizer
    rows, few, pad = encoded(tokenizer, 40), encoded(tokenizer, 8, seed=1), tokenizer.pad_token_id
    torch.testing.assert_close(logits(ours, rows, pad), logits(theirs, rows, pad), rtol=1e-6, atol=1e-6)
    losses = []
    train(
        ours, TASK, rows, few, Training(epochs=4, batch_size=8, patience=None), 1e-2, 3,
        accelerator_for(torch.device("cpu"), "fp32"),
        progress=lambda step, n_steps, values: losses.append(values["train_loss"]) if "train_loss" in values else None,
    )  # fmt: skip
    wanted = train_by_hand(theirs, rows, pad, learning_rate=1e-2, batch_size=8, n_epochs=4, seed=3)
    assert len(losses) == len(wanted) == 20
    np.testing.assert_allclose(losses, wanted, rtol=1e-4, atol=1e-4)
    after = dict(theirs.named_parameters())
    for name, value in names.items():
        torch.testing.assert_close(value, after[name], rtol=1e-3, atol=1e-3, msg=name)
    merged = ours.merge().state_dict()
    for name, value in theirs.merge_and_unload().state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=1e-3, atol=1e-3, msg=name)


def test_layers_take_the_first_columns_and_rows_of_one_pair():
    tuned = attach(tiny_backbone("bert"), method_from("vera(rank=8)"))
    pair = tuned.edits[0].projections
    assert (pair.a.shape, pair.b.shape) == ((8, 48), (48, 8))
    for site, edit in tuned.placed():
        a, b = edit.frozen
        assert a.data_ptr() == pair.a.data_ptr()
        assert (a.shape, b.shape) == ((8, site.d_in), (site.d_out, 8))


def test_its_random_pair_depends_on_its_own_number_alone():
    def drawn(text, seed):
        return attach(tiny_backbone("bert"), method_from(text), seed).edits[0].projections.a

    assert torch.equal(drawn("vera(rank=8)", 0), drawn("vera(rank=8)", 1))
    assert not torch.equal(drawn("vera(rank=8)", 0), drawn("vera(rank=8, projection_seed=1)", 0))


def test_the_reachable_set_is_one_dimension_smaller_than_its_parameters_are_many():
    """b and d scale against each other; measured as the rank of a Jacobian."""
    edit = Vectors(Site("here", "query", 0, 7, 5), VeRA(rank=4), Projections(4, 7, 5, 0, False), True)
    edit.start(None, torch.Generator())
    torch.manual_seed(0)
    a, b = (matrix.double() for matrix in edit.frozen)
    d, of_b = torch.randn(4, dtype=torch.double), torch.randn(5, dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(lambda d, of_b: of_b[:, None] * b @ (d[:, None] * a), (d, of_b))
    measured = torch.linalg.matrix_rank(torch.cat([part.reshape(35, -1) for part in jacobian], dim=1))
    assert edit.reachable_dimension() == int(measured) == 4 + 5 - 1


@pytest.mark.parametrize("save_projection", [False, True])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_saved_it_comes_back_and_peft_loads_it_as_a_lora(tmp_path, family, save_projection):
    base = save_tiny(family, tmp_path / "base")
    backbone = load_backbone(str(base), "classification", 2, labels=TASK.labels)
    tuned = attach(backbone, method_from(f"vera(rank=8, save_projection={save_projection})"))
    Bench(family).train(tuned, 10, learning_rate=1e-2)
    wanted = answers(tuned, backbone.tokenizer)
    model = {"name": str(base), "fingerprint": backbone.fingerprint, "revision": ""}
    spec = Spec(tuned.method.label, tuned.method.to_dict(), model, TASK.to_json(), {}, {}, seed=0, stage="final")
    save_tuned(tuned, TASK, spec, tmp_path / "tuned")
    assert torch.equal(answers(load_tuned(tmp_path / "tuned")[0], backbone.tokenizer), wanted)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    plain.config.pad_token_id = backbone.tokenizer.pad_token_id
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "tuned")
    torch.testing.assert_close(answers(theirs, backbone.tokenizer), wanted, rtol=0, atol=2e-6)
    stored = load_file(tmp_path / "tuned" / "deltaproof.safetensors")
    pairs = [name for name in stored if ".projections." in name]
    assert len(pairs) == (2 if save_projection else 0), "stored once, or not at all"


def test_a_pair_that_is_drawn_otherwise_is_refused_unless_it_was_stored():
    def trained(text):
        return Bench().tuned(method_from(text))

    apart = attach(tiny_backbone("bert"), method_from("vera(rank=8, projection_seed=1)"))
    with pytest.raises(ConfigError, match=r"random matrices at bert\.\S+query must come out .*save_projection=True"):
        apart.load_state(trained("vera(rank=8)").state())
    with pytest.raises(ConfigError, match="must come out as in the training"):
        apart.edits[3].resume(trained("vera(rank=8)").edits[3].progress())
    ours = trained("vera(rank=8, save_projection=True)")
    theirs = attach(tiny_backbone("bert"), method_from("vera(rank=8, save_projection=True, projection_seed=1)"))
    theirs.load_state(ours.state())
    assert torch.equal(Bench().answers(theirs), Bench().answers(ours))
