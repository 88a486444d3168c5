"""The attack on embeddings: against a model whose worst case is known in closed form, and on real families."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from deltaproof.backbones import tiny_backbone
from deltaproof.errors import BackboneError, ConfigError
from deltaproof.evaluation.predict import predict
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.robustness.pgd import pgd
from deltaproof.tasks.text import Encoded, TextTask

TWO = TextTask("classification", ("no", "yes"), ("accuracy",), 64)
THREE = TextTask("classification", ("a", "b", "c"), ("accuracy",), 64)
NUMBER = TextTask("regression", None, ("rmse",), 64)
PAD = 0


class SumOfWords(nn.Module):
    """logits = sum over the real tokens of W e_i + b: linear in the embeddings, so every worst case is known."""

    def __init__(self, n_outputs=2, width=6, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(20, width)
        self.head = nn.Linear(width, n_outputs)
        self.seen = []

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, attention_mask):
        vectors = self.embedding(input_ids)
        self.seen.append((input_ids, attention_mask, vectors.detach()))
        return SimpleNamespace(logits=self.head((vectors * attention_mask[..., None]).sum(1)))

    def vectors(self, encoded, row):
        return self.embedding.weight[encoded.columns["input_ids"][row]].detach().double().numpy()


def rows(n_rows=24, n_classes=2):
    random = np.random.default_rng(0)
    ids = [random.integers(1, 20, random.integers(1, 7)).tolist() for _ in range(n_rows)]
    return Encoded({"input_ids": ids}, random.integers(0, n_classes, (n_rows, 1)).astype(float), 0.0)


def worst_margins(model, encoded, epsilon, ball):
    """Largest lead of the wrong class over the right one in the ball, by Cauchy and Schwarz."""
    weight, bias = model.head.weight.detach().double().numpy(), model.head.bias.detach().double().numpy()
    found = []
    for row, target in enumerate(encoded.targets[:, 0].astype(int)):
        e = model.vectors(encoded, row)
        clean = (weight @ e.sum(0) + bias)[1 - target] - (weight @ e.sum(0) + bias)[target]
        slope = np.linalg.norm(weight[1 - target] - weight[target])
        if ball == "sequence":  # one delta for all tokens: |sum of deltas| <= sqrt(n) |deltas|
            found.append(clean + epsilon * np.linalg.norm(e) * np.sqrt(len(e)) * slope)
        else:
            found.append(clean + epsilon * np.linalg.norm(e, axis=1).sum() * slope)
    return np.array(found)


def margins(outputs, encoded):
    """Lead of the wrong class, from probabilities."""
    logits = np.log(outputs)
    at = np.arange(len(outputs))
    target = encoded.targets[:, 0].astype(int)
    return logits[at, 1 - target] - logits[at, target]


@pytest.mark.parametrize("ball", ["sequence", "token"])
@pytest.mark.parametrize("n_steps", [1, 10])
def test_on_a_linear_model_the_attack_finds_the_worst_case(ball, n_steps):
    model, encoded = SumOfWords(), rows()
    found = pgd(model, TWO, encoded, PAD, [0.05, 0.2], n_steps=n_steps, ball=ball, batch_size=5)
    for epsilon, outputs in found.items():
        np.testing.assert_allclose(
            margins(outputs, encoded), worst_margins(model, encoded, epsilon, ball), rtol=1e-4, atol=1e-4
        )


def test_accuracy_over_epsilon_falls_where_the_closed_form_says():
    model, encoded = SumOfWords(), rows(60)
    epsilons = [0.0, 0.02, 0.05, 0.1, 0.3]
    found = pgd(model, TWO, encoded, PAD, epsilons, n_steps=5)
    right = [(outputs.argmax(1) == encoded.targets[:, 0]).mean() for outputs in found.values()]
    assert right == [(worst_margins(model, encoded, epsilon, "sequence") < 0).mean() for epsilon in epsilons]
    assert right[0] > right[2] > right[-1]


def test_of_three_classes_the_nearer_wrong_one_is_taken():
    model, encoded = SumOfWords(n_outputs=3), rows(40, 3)
    weight, bias = model.head.weight.detach().double().numpy(), model.head.bias.detach().double().numpy()
    turned = []
    for row, target in enumerate(encoded.targets[:, 0].astype(int)):
        e = model.vectors(encoded, row)
        logits = weight @ e.sum(0) + bias
        reach = 0.1 * np.linalg.norm(e) * np.sqrt(len(e))
        gaps = [
            logits[k] - logits[target] + reach * np.linalg.norm(weight[k] - weight[target])
            for k in range(3)
            if k != target
        ]
        turned.append(max(gaps) > 0)
    outputs = pgd(model, THREE, encoded, PAD, [0.1], n_steps=20, n_starts=3)[0.1]
    wrong = outputs.argmax(1) != encoded.targets[:, 0]
    assert not (wrong & ~np.array(turned)).any(), "nothing beyond the ball is found"
    assert (wrong == np.array(turned)).mean() >= 0.95


def test_of_numbers_the_squared_error_rises_to_its_most():
    model, encoded = SumOfWords(n_outputs=1), rows(20)
    outputs = pgd(model, NUMBER, encoded, PAD, [0.1], n_steps=10)[0.1][:, 0]
    weight, bias = model.head.weight.detach().double().numpy()[0], model.head.bias.item()
    for row, (target,) in enumerate(encoded.targets):
        e = model.vectors(encoded, row)
        off = weight @ e.sum(0) + bias - target
        reach = 0.1 * np.linalg.norm(e) * np.sqrt(len(e)) * np.linalg.norm(weight)
        assert outputs[row] - target == pytest.approx(off + np.sign(off) * reach, rel=1e-4)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "deberta-v2"])
@pytest.mark.parametrize("text", ["full", "lora(rank=4)"])
def test_epsilon_0_gives_the_clean_answers_and_more_is_never_easier(family, text):
    tuned = attach(tiny_backbone(family), method_from(text))
    tokenizer = tuned.backbone.tokenizer
    texts = [("a good film",), ("a bad story and a lazy dog",), ("fox",), ("the quick brown fox jumps",), ("text",)]
    encoded = TWO.encode_texts(tokenizer, texts, np.array([[0], [1], [0], [1], [0]], dtype=float))
    clean = predict(tuned, TWO, encoded, tokenizer.pad_token_id, 2)
    found = pgd(tuned, TWO, encoded, tokenizer.pad_token_id, [0.1, 0.0, 0.02], n_steps=3, batch_size=2)
    assert list(found) == [0.1, 0.0, 0.02]
    np.testing.assert_array_equal(found[0.0], clean)
    leads = [margins(found[epsilon], encoded) for epsilon in (0.0, 0.02, 0.1)]
    assert (leads[1] > leads[0]).all()
    assert (leads[2] >= leads[1]).all()
    np.testing.assert_array_equal(predict(tuned, TWO, encoded, tokenizer.pad_token_id, 2), clean)
    assert all(parameter.grad is None for parameter in tuned.parameters())


@pytest.mark.parametrize("n_starts", [1, 3])
def test_a_row_left_alone_once_wrong_is_wrong_exactly_where_the_whole_attack_has_it_wrong(n_starts):
    encoded, epsilons = rows(60, 3), [0.0, 0.02, 0.05, 0.1, 0.3]
    asked = {}
    right = {}
    for until_wrong in (False, True):
        model = SumOfWords(n_outputs=3)
        found = pgd(model, THREE, encoded, PAD, epsilons, n_steps=6, n_starts=n_starts, until_wrong=until_wrong,
                    batch_size=16)  # fmt: skip
        right[until_wrong] = [(found[epsilon].argmax(1) == encoded.targets[:, 0]).tolist() for epsilon in epsilons]
        asked[until_wrong] = sum(len(ids) for ids, _, _ in model.seen)
    assert right[True] == right[False]
    assert 0 < sum(right[True][3]) < sum(right[True][0]), "some fall on the way"
    assert asked[True] < 0.7 * asked[False]


def test_padding_is_neither_attacked_nor_measured():
    model, encoded = SumOfWords(), rows()
    together = pgd(model, TWO, encoded, PAD, [0.1], n_steps=4, n_starts=2, batch_size=24)[0.1]
    alone = pgd(model, TWO, encoded, PAD, [0.1], n_steps=4, n_starts=2, batch_size=1)[0.1]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(("ball", "dims"), [("sequence", (1, 2)), ("token", (2,))])
def test_the_attack_stays_in_its_ball(ball, dims):
    model, encoded = SumOfWords(), rows(6)
    pgd(model, TWO, encoded, PAD, [0.3], n_steps=4, n_starts=2, ball=ball)
    assert len(model.seen) == 1 + 2 * 5, "once clean, and five times from each start"
    for ids, mask, vectors in model.seen:
        clean = model.embedding.weight[ids].detach()
        moved = (vectors - clean).norm(dim=dims)
        size = (clean * mask[..., None]).norm(dim=dims)
        assert (moved <= 0.3 * size + 1e-6).all()
        assert not (vectors - clean)[mask == 0].any()
    assert (moved > 0.29 * size - 1e-6).all(), "on a slope the worst is at the border"


def test_random_starts_come_from_the_seed_and_never_make_the_attack_weaker():
    def tried(seed):
        model, encoded = SumOfWords(), rows(6)
        pgd(model, TWO, encoded, PAD, [0.1], n_steps=1, n_starts=2, seed=seed)
        return torch.stack([vectors for _, _, vectors in model.seen])

    assert torch.equal(tried(1), tried(1))
    assert not torch.equal(tried(1), tried(2))
    backbone = tiny_backbone("bert")
    encoded = TWO.encode_texts(backbone.tokenizer, [("a good film",), ("fox",)], np.array([[0.0], [1.0]]))
    leads = [
        margins(pgd(backbone.model, TWO, encoded, PAD, [1.0], n_steps=3, n_starts=n_starts)[1.0], encoded)
        for n_starts in (1, 4)
    ]
    assert (leads[1] >= leads[0]).all()


def test_wrong_settings_are_refused():
    model, encoded = SumOfWords(), rows(4)
    for options in ({"epsilons": [-0.1]}, {"epsilons": [0.1], "n_steps": 0}, {"epsilons": [0.1], "n_starts": 0}):
        with pytest.raises(ConfigError, match="n_steps >= 1"):
            pgd(model, TWO, encoded, PAD, **options)


def test_a_model_without_token_vectors_is_refused():
    class Characters(SumOfWords):
        def get_input_embeddings(self):
            raise NotImplementedError

    with pytest.raises(BackboneError, match="token embedding, Characters has none"):
        pgd(Characters(), TWO, rows(4), PAD, [0.1])
