"""What a tuned model answers, and what it costs: against closed forms and what the operating system says."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from deltaproof.backbones import TINY_FAMILIES, load_backbone, save_tiny, tiny_backbone
from deltaproof.evaluation.efficiency import flops_per_token, latency_seconds, stored_bytes
from deltaproof.evaluation.predict import predict
from deltaproof.memory import is_out_of_memory
from deltaproof.methods import method_from
from deltaproof.methods.base import LINEAR_ROLES
from deltaproof.methods.tuned import attach
from deltaproof.tasks.text import TextTask, collate

TASK = TextTask("classification", ("no", "yes"), ("accuracy",), 64)
WORDS = ["the", "a", "good", "bad", "film", "story", "dog", "fox", "quick", "lazy", "text", "numbers"]


def rows(tokenizer, n_rows, words=(2, 12)):
    random = np.random.default_rng(0)
    texts = [(" ".join(random.choice(WORDS, random.integers(*words))),) for _ in range(n_rows)]
    return TASK.encode_texts(tokenizer, texts, np.array([[row % 2] for row in range(n_rows)], dtype=float))


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "modernbert"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_answers_are_in_the_order_of_the_rows_whatever_the_batch(family, batch_size):
    backbone = tiny_backbone(family)
    encoded, pad = rows(backbone.tokenizer, 20), backbone.tokenizer.pad_token_id
    answers = predict(backbone.model, TASK, encoded, pad, batch_size)
    with torch.no_grad():
        alone = [backbone.model(**collate(encoded, [row], pad)).logits for row in range(20)]
    np.testing.assert_allclose(answers, torch.cat(alone).double().softmax(-1).numpy(), atol=1e-5)


def test_answering_drops_nothing_out_and_leaves_the_model_in_its_mode():
    backbone = tiny_backbone("bert", dropout=0.5)
    encoded = rows(backbone.tokenizer, 8)
    backbone.model.train()
    state = torch.get_rng_state()
    answers = [predict(backbone.model, TASK, encoded, 0) for _ in range(2)]
    np.testing.assert_array_equal(*answers)
    assert backbone.model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_answering_takes_smaller_batches_when_memory_runs_out(monkeypatch):
    backbone = tiny_backbone("bert")
    encoded = rows(backbone.tokenizer, 20)
    wanted, forward, sizes = predict(backbone.model, TASK, encoded, 0), backbone.model.forward, []

    def small_only(**batch):
        sizes.append(len(batch["input_ids"]))
        if sizes[-1] > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(**batch)

    monkeypatch.setattr(backbone.model, "forward", small_only)
    np.testing.assert_allclose(predict(backbone.model, TASK, encoded, 0, 16), wanted, atol=1e-6)
    assert sizes == [16, 8, 4, 4, 4, 4, 4]


def test_what_memory_errors_look_like():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def wide_backbone(tmp_path):
    """A BERT of width 128 in which the linear maps dwarf attention, as in real models on short texts."""
    from transformers import BertConfig, BertModel

    folder = save_tiny("bert", tmp_path / "base")
    config = BertConfig.from_pretrained(
        folder, hidden_size=256, intermediate_size=1024, num_attention_heads=4, num_hidden_layers=3
    )
    BertModel(config).save_pretrained(folder)
    return load_backbone(str(folder), "classification", 2)


def linear_weights(backbone):
    return sum(site.d_in * site.d_out for site in backbone.all_sites if site.role in LINEAR_ROLES)


@pytest.mark.parametrize(
    ("text", "per_weight"),
    [
        ("full", 6),  # forward, gradient of the weights, gradient of the inputs: two operations each
        ("ln_tune", 4),  # no gradient of the weights
        ("bitfit", 4),
        ("head", 2),  # forward only
    ],
)
def test_operations_per_token_are_two_four_or_six_per_weight(tmp_path, text, per_weight):
    backbone = wide_backbone(tmp_path)
    tuned = attach(backbone, method_from(text))
    measured = flops_per_token(tuned, TASK, rows(backbone.tokenizer, 9), 0)
    assert measured == pytest.approx(per_weight * linear_weights(backbone), rel=0.1)


def test_lora_costs_its_own_products_on_top_of_the_frozen_ones(tmp_path):
    backbone = wide_backbone(tmp_path)
    tuned = attach(backbone, method_from("lora(rank=8)"))
    own = sum(edit.a.numel() + edit.b.numel() for edit in tuned.edits)
    measured = flops_per_token(tuned, TASK, rows(backbone.tokenizer, 9), 0)
    assert measured == pytest.approx(4 * linear_weights(backbone) + 6 * own, rel=0.1)
    assert measured < 0.8 * 6 * linear_weights(backbone)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_operations_are_counted_on_every_family_trained_in_full(family):
    backbone = tiny_backbone(family)
    pad = backbone.tokenizer.pad_token_id
    tuned = attach(backbone, method_from("full"))
    encoded = rows(backbone.tokenizer, 9)
    frozen = flops_per_token(attach(tiny_backbone(family), method_from("head")), TASK, encoded, pad)
    assert flops_per_token(tuned, TASK, encoded, pad) > 2.5 * frozen


@pytest.mark.parametrize("text", ["full", "lora(dropout=0.5)", "peft_lora(lora_dropout=0.5)", "head"])
def test_counting_operations_disturbs_nothing(text):
    backbone = tiny_backbone("bert", dropout=0.1)
    tuned = attach(backbone, method_from(text)).eval()
    encoded = rows(backbone.tokenizer, 8)
    for parameter in tuned.trained().values():
        parameter.grad = torch.full_like(parameter, 2.0)
    state, values = torch.get_rng_state(), {name: value.clone() for name, value in tuned.state_dict().items()}
    counts = {flops_per_token(tuned, TASK, encoded, 0) for _ in range(2)}
    assert len(counts) == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert all(bool((parameter.grad == 2.0).all()) for parameter in tuned.trained().values())
    assert all(torch.equal(value, values[name]) for name, value in tuned.state_dict().items())
    assert not tuned.training


def test_latency_is_the_median_time_of_one_answer(monkeypatch):
    backbone = tiny_backbone("bert")
    encoded, clock = rows(backbone.tokenizer, 30), iter(np.cumsum([0.0, 0.5] + [x for i in range(40) for x in (1, i)]))
    monkeypatch.setattr("deltaproof.evaluation.efficiency.time.perf_counter", lambda: float(next(clock)))
    calls = []
    hook = backbone.model.register_forward_hook(lambda *_: calls.append(1))
    seconds = latency_seconds(backbone.model, encoded, 0, "fp32", n_calls=5)
    hook.remove()
    assert len(calls) == 5 + 2, "two to warm up"
    assert seconds == 3.0  # of 1, 2, 3, 4, 5


def test_merged_low_rank_changes_cost_no_time_and_answer_alike():
    backbone = tiny_backbone("bert")
    tuned = attach(backbone, method_from("dora"))
    encoded = rows(backbone.tokenizer, 20)
    before = predict(tuned, TASK, encoded, 0)
    attached = min(latency_seconds(tuned, encoded, 0, "fp32") for _ in range(3))
    plain = tuned.merge()
    merged = min(latency_seconds(plain, encoded, 0, "fp32") for _ in range(3))
    np.testing.assert_allclose(predict(plain, TASK, encoded, 0), before, atol=1e-5)
    assert merged < attached


def test_what_a_task_adds_is_four_bytes_per_trained_weight():
    tuned = attach(tiny_backbone("bert"), method_from("lora(rank=4)"))
    assert stored_bytes(tuned) == 4 * tuned.n_trainable


MEASURE = """
import torch
from deltaproof.memory import PeakMemory
torch.ones(10)
spike = torch.ones(60_000_000)  # 240 MB before the meter: not the run's
del spike
meter = PeakMemory(torch.device("cpu"))
held = torch.ones(50_000_000)  # 200 MB
del held
print(meter.host_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak of a process")
def test_the_peak_is_what_was_held_since_the_meter_was_made():
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(200e6, rel=0.1)
