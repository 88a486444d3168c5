"""What frozen layers make of a row, kept from one epoch to the next: the same training, with fewer passes."""

import numpy as np
import pytest
import torch

from deltaproof.backbones import tiny_backbone
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.tasks.text import TextTask
from deltaproof.training.checkpoints import Checkpoint
from deltaproof.training.features import OverFeatures, modules_left, tokens_of, trunk_of
from deltaproof.training.keeping import feature_bytes
from deltaproof.training.loop import Run, train
from deltaproof.training.precision import accelerator_for
from deltaproof.training.settings import Training

WORDS = ["the", "a", "good", "bad", "film", "story", "dog", "fox", "quick", "lazy", "text", "numbers"]
TASK = TextTask("classification", ("no", "yes"), ("accuracy", "nll"), 32)
N_ROWS, N_VALIDATION, EPOCHS = 16, 8, 3


def rows(tokenizer, n_rows, seed):
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(WORDS, random.integers(2, 12))) + f" {row}" for row in range(n_rows)]
    targets = np.array([["good" in text] for text in texts], dtype=float)
    return TASK.encode_texts(tokenizer, [(text,) for text in texts], targets)


class Side:
    """One small training, and the rows that went through its lowest layer, in training and in evaluation."""

    def __init__(self, method="head", family="bert", dropout=0.0, precision="fp32", **settings):
        self.backbone = tiny_backbone(family, dropout=dropout)
        self.tuned = attach(self.backbone, method_from(method), 0)
        self.rows, self.validation = (
            rows(self.backbone.tokenizer, N_ROWS, 0),
            rows(self.backbone.tokenizer, N_VALIDATION, 1),
        )
        self.settings = Training(**{"epochs": EPOCHS, "batch_size": 4, **settings})
        self.precision, self.losses, self.passed = precision, [], {True: 0, False: 0}
        layer = next(site for site in self.backbone.all_sites if site.role == "layer")
        self.lowest = self.backbone.module(layer)

    def __call__(self, checkpoint=None, progress=lambda step, n_steps, values: None):
        def told(step, n_steps, values):
            self.losses += [values["train_loss"]] if "train_loss" in values else []
            progress(step, n_steps, values)

        inner = self.lowest.forward

        def counted(x, *inputs, **options):
            self.passed[self.lowest.training] += len(x)
            return inner(x, *inputs, **options)

        self.lowest.forward = counted
        try:
            self.outcome = train(*self.arguments, checkpoint, told)
        finally:
            del self.lowest.forward
        return self

    @property
    def arguments(self):
        accelerator = accelerator_for(torch.device("cpu"), self.precision)
        return (self.tuned, TASK, self.rows, self.validation, self.settings, 1e-2, 0, accelerator)

    @property
    def is_kept(self):
        return any("computed once and kept" in note for note in self.outcome.notes)


@pytest.fixture
def without(monkeypatch):
    """Makes trainings that keep nothing."""

    def make(*arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr("deltaproof.training.keeping.SHARE", 0.0)
            return Side(*arguments, **options)()

    return make


def assert_alike(one, other, tolerance=1e-5):
    np.testing.assert_allclose(one.losses, other.losses, rtol=tolerance)
    assert one.outcome.tokens_seen == other.outcome.tokens_seen
    for entry, wanted in zip(one.outcome.history, other.outcome.history, strict=True):
        assert entry["validation"]["nll"] == pytest.approx(wanted["validation"]["nll"], rel=tolerance)
    for name, value in other.tuned.state().items():
        torch.testing.assert_close(one.tuned.state()[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("method", "family"),
    [
        *(("head", family) for family in ("bert", "gpt2", "llama", "gpt_neox", "opt", "deberta-v2", "modernbert")),
        ("head", "albert"),  # one layer, called again and again
        ("lora(rank=2, dropout=0.2, layers=[1])", "bert"),
        ("on_layers(together(serial, prefix), [1])", "llama"),
        ("density_penalty(head, layers=[1])", "bert"),
    ],
)
def test_a_training_over_kept_features_is_the_one_without_them_but_for_rounding(method, family, without, monkeypatch):
    monkeypatch.setattr("deltaproof.training.keeping.SHARE", 10.0)  # a tiny ALBERT has hardly any weights
    one, other = Side(method, family)(), without(method, family)
    assert one.is_kept
    assert not other.is_kept
    assert_alike(one, other)


def test_each_row_goes_through_the_frozen_layers_once_for_training_and_once_for_evaluation(without):
    one, other = Side()(), without()
    in_the_trial, token = 4 + 4, 1  # rows alone and together; and what shows the order of the layers
    assert one.passed == {True: N_ROWS + in_the_trial, False: N_VALIDATION + token}
    assert other.passed == {True: EPOCHS * N_ROWS, False: EPOCHS * N_VALIDATION + token}


def test_in_bf16_it_is_the_same_but_for_rounding(without):
    one, other = Side("lora(layers=[1])", precision="bf16")(), without("lora(layers=[1])", precision="bf16")
    assert one.is_kept
    np.testing.assert_allclose(one.losses, other.losses, rtol=0.02)


@pytest.mark.parametrize("method", ["full", "bitfit", "lora", "prefix", "peft_lora(r=2)"])
def test_a_method_that_changes_the_lowest_layer_leaves_nothing_to_keep(method):
    assert not Side(method)().is_kept


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("head", {"dropout": 0.1}),  # other masks in every epoch
        ("head", {"epochs": 1}),
        ("density_penalty(head, layers=[1], epsilon=0.1, masked=False)", {}),  # counts padding, which is not kept
    ],
)
def test_nothing_is_kept_where_rows_would_not_be_the_same_or_come_once(method, settings, without):
    one, other = Side(method, **settings)(), without(method, **settings)
    assert not one.is_kept
    assert one.losses == other.losses, "to the bit"


def test_a_model_whose_layers_see_padding_is_found_out(monkeypatch):
    """As one that mixes all tokens does, whichever are real."""
    one = Side("head")
    layer = one.backbone.module("bert.encoder.layer.0")
    layer.register_forward_hook(lambda module, inputs, output: output + output.mean(1, keepdim=True))
    trunk = list(one.backbone.model.bert.encoder.layer)
    monkeypatch.setattr("deltaproof.training.keeping.trunk_of", lambda tuned: trunk)
    assert not one().is_kept


def test_feature_extraction_lets_frozen_layers_rest_and_the_layers_above_drop(without):
    method = "lora(rank=2, layers=[1])"
    one = Side(method, dropout=0.3, feature_extraction=True)()
    other = without(method, dropout=0.3, feature_extraction=True)
    assert one.is_kept
    assert "more than the model's weights" in "".join(other.outcome.notes)
    assert_alike(one, other)
    by_hand = Side(method, dropout=0.3)
    for part in (by_hand.backbone.model.bert.embeddings, by_hand.backbone.model.bert.encoder.layer[0]):
        for module in part.modules():
            module.train = lambda mode=True, module=module: module  # stays in evaluation mode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deltaproof.training.keeping.SHARE", 0.0)
        assert by_hand().losses == other.losses, "to the bit"
    assert Side(method, dropout=0.3)().losses != pytest.approx(other.losses, rel=1e-3), "dropout did something"


@pytest.mark.parametrize("cut_at", [3, 6, 10])
def test_a_training_that_was_cut_goes_on_to_the_same_bits(tmp_path, cut_at):
    method = "lora(rank=2, layers=[1])"
    settings = {"dropout": 0.1, "feature_extraction": True, "evaluations_per_epoch": 2}
    whole = Side(method, **settings)()

    def cut(step, n_steps, values):
        if step == cut_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Side(method, **settings)(Checkpoint(tmp_path / "c", every_seconds=0), cut)
    again = Side(method, **settings)(Checkpoint(tmp_path / "c", every_seconds=0))
    assert again.is_kept
    assert again.losses == whole.losses[-len(again.losses) :]
    assert again.outcome.history == whole.outcome.history
    assert again.outcome.notes == whole.outcome.notes
    assert all(torch.equal(again.tuned.state()[name], value) for name, value in whole.tuned.state().items())


def test_a_training_leaves_the_model_as_it_was():
    one = Side(dropout=0.1, feature_extraction=True)
    hooks = len(one.backbone.model._forward_pre_hooks)
    one()
    assert len(one.backbone.model._forward_pre_hooks) == hooks
    assert not any("forward" in vars(module) for module in one.backbone.model.modules())
    one.tuned.train()
    assert all(module.training for module in one.backbone.model.modules())


def test_what_lies_below_a_layer_is_found_by_what_is_called():
    model = tiny_backbone("bert").model
    below = modules_left(model, model.bert.encoder.layer[0])
    wanted = {model.bert.embeddings.dropout, model.bert.encoder.layer[0], model.bert.encoder.layer[0].output.dropout}
    assert wanted <= set(below)
    assert not {model, model.bert, model.bert.encoder, model.bert.encoder.layer[1], model.dropout} & set(below)


@pytest.mark.parametrize(("method", "n"), [("head", 2), ("lora(layers=[1])", 1), ("lora(layers=[0])", 0)])
def test_the_trunk_ends_below_the_lowest_change(method, n):
    assert len(trunk_of(attach(tiny_backbone("llama"), method_from(method), 0))) == n


def test_a_row_is_known_by_its_tokens_whatever_padding_stands_behind_it():
    ids, mask = torch.tensor([[5, 6, 0], [5, 6, 7]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
    short, long = tokens_of({"input_ids": ids, "attention_mask": mask})
    assert tokens_of({"input_ids": ids[:1, :2], "attention_mask": mask[:1, :2]}) == [short]
    segments = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.tensor([[0, 1, 0], [0, 0, 0]])}
    assert short != long != tokens_of(segments)[0] != short


def batch(*rows):
    """Of token ids, padded on the right."""
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[0] * (width - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }


class Over(OverFeatures):
    """A tiny model over kept features, which counts the batches that go through its frozen layers."""

    def __init__(self, n_tokens):
        tuned = attach(tiny_backbone("bert", dropout=0.0), method_from("head"), 0).train()
        super().__init__(tuned, trunk_of(tuned), [], n_tokens)
        self.n_whole = 0
        self.trunk[0].attention.register_forward_hook(self.count)

    def count(self, *_):
        self.n_whole += 1

    @torch.no_grad()
    def forward(self, *rows):
        return super().forward(**batch(*rows)).logits


def test_rows_are_kept_alone_answer_together_and_are_told_apart_by_whether_the_model_trains():
    model = Over(n_tokens=10)
    model([5, 6], [7, 8, 9])
    found = model([7, 8, 9], [5, 6])
    assert model.n_whole == 1
    with torch.no_grad():
        torch.testing.assert_close(found, model.tuned(**batch([7, 8, 9], [5, 6])).logits)
    model.eval()([5, 6])
    assert model.n_whole == 3


def test_no_more_is_kept_than_there_is_room_for():
    model = Over(n_tokens=4)
    for rows, n_whole in [([[5, 6]], 1), ([[7, 8, 9]], 2), ([[5, 6]], 2), ([[7, 8, 9]], 3), ([[5, 6], [7, 8, 9]], 4)]:
        model(*rows)
        assert model.n_whole == n_whole
    assert model.n_not_kept == 3


def test_what_does_not_fit_into_memory_is_not_kept(monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "new_empty", fails)
    model = Over(n_tokens=4)
    model([5, 6])
    model([5, 6])
    assert model.n_whole == model.n_not_kept == 2


def test_what_layers_draw_for_is_not_kept():
    model = Over(n_tokens=4)
    model.trunk[0].register_forward_hook(lambda *_: [torch.rand(1)].clear())  # changes nothing
    model([5, 6])
    model([5, 6])
    assert model.n_whole == model.n_not_kept == 2


@pytest.mark.parametrize(("method", "is_kept"), [("head", True), ("lora", False)])
def test_what_is_going_to_be_kept_is_foretold_to_the_byte(method, is_kept):
    side = Side(method)
    foretold = feature_bytes(Run(*side.arguments))
    n_tokens = int(side.rows.lengths.sum() + side.validation.lengths.sum())
    assert foretold == (4 * 32 * n_tokens if is_kept else 0)


def test_a_setting_that_came_later_is_said_only_where_it_is_on():
    assert "feature_extraction" not in Training().model_dump(mode="json")
    found = Training(feature_extraction=True, epochs=1).model_dump(exclude_unset=True)
    assert found == {"feature_extraction": True, "epochs": 1.0}
