"""Local slopes: the spectral norm of linear networks, and torch's own Jacobian of real families."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from deltaproof.backbones import tiny_backbone
from deltaproof.backbones.locate import token_embedding
from deltaproof.evaluation.predict import predict
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.robustness.local_lipschitz import local_lipschitz
from deltaproof.robustness.pgd import pgd
from deltaproof.tasks.text import Encoded, TextTask, collate

TASK = TextTask("classification", ("a", "b", "c"), ("accuracy",), 64)
TEXTS = [("a good film",), ("a bad story and a lazy dog",), ("fox",), ("the quick brown fox jumps",)]


class Linear(nn.Module):
    """logits = sum over the real tokens of W2 W1 e_i + b."""

    def __init__(self, n_outputs=4, width=6):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(20, width)
        self.lower = nn.Linear(width, 9)
        self.upper = nn.Linear(9, n_outputs)

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, attention_mask):
        vectors = self.embedding(input_ids) * attention_mask[..., None]
        return SimpleNamespace(logits=self.upper(self.lower(vectors.sum(1))))

    @property
    def product(self):
        return (self.upper.weight @ self.lower.weight).detach().double().numpy()


def rows(n_rows=10):
    random = np.random.default_rng(0)
    ids = [random.integers(1, 20, random.integers(1, 7)).tolist() for _ in range(n_rows)]
    return Encoded({"input_ids": ids}, np.zeros((n_rows, 1)), 0.0)


def test_of_a_linear_network_it_is_the_spectral_norm():
    """n tokens share the map: its Jacobian is [W ... W], whose norm is sqrt(n) |W|."""
    model, encoded = Linear(), rows()
    wanted = np.sqrt(encoded.lengths) * np.linalg.norm(model.product, 2)
    np.testing.assert_allclose(local_lipschitz(model, encoded, 0, batch_size=4).lipschitz, wanted, rtol=1e-5)
    by_power = local_lipschitz(model, encoded, 0, n_iterations=60, batch_size=4).lipschitz
    np.testing.assert_allclose(by_power, wanted, rtol=1e-4)


def test_power_iteration_rises_to_the_norm_from_below():
    model, encoded = Linear(), rows()
    wanted = local_lipschitz(model, encoded, 0).lipschitz
    reached = [local_lipschitz(model, encoded, 0, n_iterations=n, seed=1).lipschitz for n in (0, 1, 3, 10, 40)]
    assert (np.diff(reached, axis=0) >= -1e-5).all()
    assert (reached[0] < wanted).all()
    assert (np.array(reached) <= wanted * (1 + 1e-5)).all()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "modernbert", "deberta-v2"])
def test_of_real_families_it_is_the_norm_of_torchs_own_jacobian(family):
    tuned = attach(tiny_backbone(family, n_outputs=3), method_from("lora(rank=4)"))
    tokenizer = tuned.backbone.tokenizer
    encoded = TASK.encode_texts(tokenizer, TEXTS)
    found = local_lipschitz(tuned, encoded, tokenizer.pad_token_id, batch_size=3)
    by_power = local_lipschitz(tuned, encoded, tokenizer.pad_token_id, n_iterations=40, batch_size=3)
    embedding = token_embedding(tuned.backbone.model)
    tuned.eval()
    for row in range(len(TEXTS)):
        batch = collate(encoded, [row], tokenizer.pad_token_id)
        vectors = embedding(batch["input_ids"]).detach()

        def logits(vectors, batch=batch):
            handle = embedding.register_forward_hook(lambda *_: vectors)
            try:
                return tuned(**batch).logits[0]
            finally:
                handle.remove()

        jacobian = torch.autograd.functional.jacobian(logits, vectors).flatten(1)
        assert found.lipschitz[row] == pytest.approx(torch.linalg.matrix_norm(jacobian, 2).item(), rel=1e-3)
        assert found.input_norm[row] == pytest.approx(vectors.norm().item(), rel=1e-5)
    np.testing.assert_allclose(by_power.lipschitz, found.lipschitz, rtol=1e-2)
    assert (by_power.lipschitz <= found.lipschitz * (1 + 1e-3)).all()


def test_the_margin_is_the_lead_of_the_highest_logit():
    model, encoded = Linear(), rows()
    found = local_lipschitz(model, encoded, 0)
    with torch.no_grad():
        logits = [model(**collate(encoded, [row], 0)).logits[0].sort(descending=True).values for row in range(10)]
    np.testing.assert_allclose(found.margin, [(best - next_).item() for best, next_, *_ in logits], rtol=1e-4)
    np.testing.assert_allclose(found.radius, found.margin / (2**0.5 * found.lipschitz))
    assert np.isnan(local_lipschitz(Linear(n_outputs=1), encoded, 0).margin).all()


def test_within_the_relative_radius_no_attack_turns_a_linear_network():
    """There the slope is the same everywhere, so the radius is a certificate, on the scale of pgd's epsilon."""
    model, encoded = Linear(n_outputs=3), rows(20)
    answers = predict(model, TASK, encoded, 0).argmax(1)
    attacked = Encoded(encoded.columns, answers[:, None].astype(float), 0.0)
    radius = local_lipschitz(model, encoded, 0).relative_radius
    for row in range(20):
        one = attacked.take([row])
        epsilon = 0.999 * radius[row]
        assert pgd(model, TASK, one, 0, [epsilon], n_steps=10)[epsilon].argmax() == answers[row]


def test_measuring_leaves_model_and_mode_alone():
    backbone = tiny_backbone("bert", dropout=0.5)
    encoded = TASK.encode_texts(backbone.tokenizer, TEXTS)
    backbone.model.train()
    first, again = (local_lipschitz(backbone.model, encoded, 0, n_iterations=3) for _ in range(2))
    np.testing.assert_array_equal(first.lipschitz, again.lipschitz)
    assert backbone.model.training
    assert all(parameter.grad is None for parameter in backbone.model.parameters())
