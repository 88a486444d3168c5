"""The cost model against operations counted by torch, and against bytes that can be added by hand."""

import pytest
import torch

from deltaproof.backbones import backbone_of, tiny_backbone
from deltaproof.evaluation.efficiency import flops_per_token as counted_per_token
from deltaproof.experiments.cost_model import (
    Protocol,
    Shape,
    Trained,
    devices_for,
    experiment_flops,
    flops_per_token,
    state_bytes,
    wall_seconds,
)
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.tasks.text import TextTask

WIDTH, N_LAYERS, N_WORDS = 96, 3, 40
SHAPE = Shape(N_LAYERS, WIDTH, n_products=N_LAYERS * 12 * WIDTH**2, n_parameters=0)
TASK = TextTask("classification", ("no", "yes"), ("accuracy",), 64)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_backbone("bert").tokenizer


def counted(method, tokenizer):
    """Operations per token, and what was trained, of a BERT wide enough that its head hardly counts."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=N_LAYERS, num_attention_heads=4,
        intermediate_size=4 * WIDTH, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    tuned = attach(backbone_of(BertForSequenceClassification(config), tokenizer), method_from(method), 0)
    texts = [(" ".join(["good"] * N_WORDS),)] * 4
    rows = TASK.encode_texts(tokenizer, texts, torch.zeros(4, 1).numpy())
    return counted_per_token(tuned, TASK, rows, tokenizer.pad_token_id), int(rows.lengths[0]), tuned.n_trainable


@pytest.mark.parametrize(
    ("method", "trained"),
    [
        ("full", Trained("full", 0, trains_base=True)),
        ("bitfit", Trained("bitfit", 0)),
        ("lora(rank=4)", Trained("lora", 0, n_factors=N_LAYERS * 4 * (4 * 2 * WIDTH + 2 * 5 * WIDTH))),
        ("head", Trained("head", 0, backward_fraction=0.0)),
    ],
)
def test_operations_are_those_that_torch_counts(method, trained, tokenizer):
    found, length, _ = counted(method, tokenizer)
    assert flops_per_token(SHAPE, trained, length) == pytest.approx(found, rel=0.04)


def test_the_state_of_a_training_is_sixteen_bytes_for_what_is_trained_and_the_base():
    shape = Shape(1, 1, 1, n_parameters=1000)
    assert state_bytes(shape, Trained("full", 1000, trains_base=True)) == 16_000
    assert state_bytes(shape, Trained("lora", 10)) == 4000 + 160
    assert state_bytes(shape, Trained("lora", 10), base_bytes=2) == 2000 + 160
    assert devices_for(4160, 2000) == 3


def test_an_experiment_is_its_runs_and_takes_no_less_than_its_longest_chain():
    protocol = Protocol(n_contestants=5, n_trials=4, n_seeds=3, tokens_per_run=1000, length=10)
    head = Trained("head", 0, backward_fraction=0.0)
    assert protocol.n_runs == 35
    assert experiment_flops(SHAPE, head, protocol) == 35 * 1000 * flops_per_token(SHAPE, head, 10)
    assert wall_seconds(100, 10, 5) == 10
    assert wall_seconds(100, 50, 5) == 5
