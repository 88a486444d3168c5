"""Lanes: what trains side by side over one frozen base goes as it goes alone."""

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deltaproof.backbones import tiny_backbone
from deltaproof.backbones.sharing import own, sharing_copy
from deltaproof.errors import ConfigError
from deltaproof.methods import METHODS, method_from
from deltaproof.methods.tuned import attach
from deltaproof.testing.examples import every_name, example, refusal
from deltaproof.training.checkpoints import Checkpoint
from deltaproof.training.lanes.rows import Rows
from deltaproof.training.lanes.together import Lanes, why_alone
from deltaproof.training.lanes.trial import try_lanes
from deltaproof.training.loop import Run, go
from deltaproof.training.precision import accelerator_for
from deltaproof.training.settings import Training

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
from by_hand import TASK, encoded

RATES = (1e-3, 3e-3, 1e-2)
PEFTS = ("peft_lora(r=4)", "loha(r=2)", "oft", "peft_vera(r=4)", "adalora", "ln_tuning")
ALONE = {"full", "prompt_tuning(num_virtual_tokens=4)", "prefix_tuning(num_virtual_tokens=4)"}


class Side:
    """Trainings of several methods over one tiny base, by keyword."""

    def __init__(
        self, methods, family="bert", rates=RATES, dropout=0.1, precision="fp32", folder=None, n_rows=40, flipped=0.0,
        **settings,
    ):  # fmt: skip
        self.base = tiny_backbone(family, dropout=dropout)
        accelerator = accelerator_for(torch.device("cpu"), precision)
        rows, few = encoded(self.base.tokenizer, n_rows), encoded(self.base.tokenizer, 12, seed=1)
        is_flipped = np.random.default_rng(0).random(rows.targets.shape) < flipped
        rows = dataclasses.replace(rows, targets=np.where(is_flipped, 1 - rows.targets, rows.targets))
        settings = Training(**{"epochs": 2, "batch_size": 8, **settings})
        self.losses, self.runs = [], []
        for number, (text, rate) in enumerate(zip(methods, rates, strict=False)):
            method = method_from(text) if isinstance(text, str) else text
            tuned = attach(sharing_copy(self.base), method, seed=1)
            own(parameter for parameter in tuned.backbone.model.parameters() if parameter.requires_grad)
            checkpoint = None if folder is None else Checkpoint(folder / str(number), every_seconds=0)
            self.losses.append([])
            run = Run(tuned, TASK, rows, few, settings, rate, 3, accelerator, checkpoint, self.told(number))
            self.runs.append(run)

    def told(self, number):
        def progress(step, n_steps, values):
            if "train_loss" in values:
                self.losses[number].append(values["train_loss"])

        return progress

    @property
    def tuned(self):
        return [run.tuned for run in self.runs]

    def together(self):
        (first,) = {run.begin() for run in self.runs}
        go(self.runs, first, Lanes(self.base, self.tuned))
        return self

    def alone(self):
        for run in self.runs:
            go([run], run.begin())
        return self

    def states(self):
        return [{name: value.clone() for name, value in tuned.state().items()} for tuned in self.tuned]

    def histories(self):
        return [
            [(entry["step"], entry["validation"]["accuracy"]) for entry in run.outcome.history] for run in self.runs
        ]


def assert_alike(one, other, tolerance=1e-4):
    for mine, theirs in zip(one.losses, other.losses, strict=True):
        assert len(mine) == len(theirs)
        np.testing.assert_allclose(mine, theirs, rtol=tolerance)
    assert one.histories() == other.histories()
    for mine, theirs in zip(one.runs, other.runs, strict=True):
        assert mine.outcome.notes == theirs.outcome.notes
        assert mine.outcome.tokens_seen == theirs.outcome.tokens_seen


def three(text):
    return [text, text, "lora(rank=2)"]


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("name", [*(name for name in METHODS if name != "peft"), *PEFTS, *sorted(ALONE - {"full"})])
def test_every_method_is_a_lane_with_the_gradient_it_has_alone_or_says_why_not(name, family):
    method = example(name) if name in METHODS else method_from(name)
    try:
        side = Side([method, method, "lora(rank=2)"], family)
    except ConfigError as error:
        pytest.skip(str(error))  # peft refuses some of its methods on some models
    reasons = [why_alone(side.base, tuned) for tuned in side.tuned]
    assert reasons[2] is None
    assert (reasons[0] is not None) == (name in ALONE)
    if reasons[0] is None:
        for size in (3, 1):
            assert try_lanes(Lanes(side.base, side.tuned), side.runs, np.arange(8), (size,), 0).strays == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in every_name() if name not in METHODS and refusal(name) is None])
def test_every_method_of_peft_is_a_lane_with_its_own_gradient_or_says_why_not(name):
    try:
        side = Side([example(name), example(name), "lora(rank=2)"])
    except ConfigError as error:
        pytest.skip(str(error))
    if why_alone(side.base, side.tuned[0]) is None:
        assert try_lanes(Lanes(side.base, side.tuned), side.runs, np.arange(8), (3,), 0).strays == ()


HUNDRED = {"epochs": 1, "evaluations_per_epoch": 4, "n_rows": 800, "flipped": 0.25}
"""A hundred steps of eight rows, each row seen once and a quarter of the labels wrong: losses stay of ordinary size. Of
rows learnt by heart the loss is next to nothing, and rounding moves it by far more than a share of 1e-4."""


@pytest.mark.parametrize(
    ("methods", "family"),
    [
        (["lora(rank=2)", "lora(rank=8)", "lora(rank=4, dropout=0.2)", "dora(rank=2)"], "bert"),
        (["loreft", "ia3", "prefix"], "llama"),
        pytest.param(["lora(rank=2)", "lora(rank=4)", "lora(rank=8)"], "bert", marks=pytest.mark.slow),
        pytest.param(
            ["lora(rank=2, dropout=0.2)", "lora(rank=4, dropout=0.1)", "dora(rank=2)"], "bert", marks=pytest.mark.slow
        ),
        pytest.param(["bitfit", "head", "serial"], "bert", marks=pytest.mark.slow),
        pytest.param(["pica(rank=4)", "ln_tune", "peft_lora(r=4)"], "gpt2", marks=pytest.mark.slow),
    ],
)
def test_lanes_have_the_losses_and_the_scores_of_the_same_runs_alone_over_a_hundred_steps(methods, family):
    rates = [*RATES, 3e-3][: len(methods)]
    one, other = (Side(methods, family, rates, **HUNDRED) for _ in range(2))
    assert_alike(one.together(), other.alone())
    assert {len(losses) for losses in one.losses} == {100}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"full", "peft"}))
def test_every_method_has_the_losses_of_the_same_run_alone_over_a_hundred_steps(name, family):
    method = example(name)
    one, other = (Side([method, method, method], family, **HUNDRED) for _ in range(2))
    assert_alike(one.together(), other.alone())
    assert {len(losses) for losses in one.losses} == {100}


def test_in_bf16_lanes_go_as_alone_but_for_rounding():
    methods = ["lora(rank=2)", "lora(rank=4)", "bitfit"]
    one, other = Side(methods, precision="bf16").together(), Side(methods, precision="bf16").alone()
    for mine, theirs in zip(one.losses, other.losses, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0.05)


def test_a_lane_that_diverges_disturbs_no_other():
    rates = (1e-3, 1e30, 1e-2)
    one, other = (Side(three("lora"), rates=rates, epochs=4, clip_norm=1e9) for _ in range(2))
    assert_alike(one.together(), other.alone())
    assert [run.outcome.diverged for run in one.runs] == [False, True, False]


def test_each_lane_stops_when_its_own_patience_is_over():
    rates = (1e-9, 1e-1, 1e-2)
    one, other = (Side(three("lora"), rates=rates, epochs=8, patience=2, dropout=0.0) for _ in range(2))
    assert_alike(one.together(), other.alone())
    n_steps = [len(losses) for losses in one.losses]
    assert n_steps[0] == 15, "three evaluations without a better score"
    assert n_steps[0] < max(n_steps)


def test_lanes_that_were_killed_go_on_to_the_same_bits(tmp_path):
    methods = ["lora(rank=2, dropout=0.1)", "lora(rank=4)", "bitfit"]
    whole = Side(methods, folder=tmp_path / "whole").together()
    cut = Side(methods, folder=tmp_path / "cut")
    told = cut.runs[1].progress

    def killed(step, n_steps, values):
        told(step, n_steps, values)
        if step == 6:
            raise KeyboardInterrupt

    cut.runs[1].progress = killed
    with pytest.raises(KeyboardInterrupt):
        cut.together()
    again = Side(methods, folder=tmp_path / "cut").together()
    assert [len(losses) for losses in again.losses] == [5, 5, 5], "five of ten steps were kept"
    for mine, theirs in zip(again.states(), whole.states(), strict=True):
        assert all(torch.equal(mine[name], value) for name, value in theirs.items())
    assert [run.outcome.history for run in again.runs] == [run.outcome.history for run in whole.runs]


def test_when_memory_runs_out_fewer_lanes_go_through_in_one_pass():
    side, other = Side(three("lora")), Side(three("lora")).alone()
    lanes = Lanes(side.base, side.tuned)
    fitting = lanes._logits

    def hungry(some, depth, batch):
        if len(some) > 1:
            raise MemoryError
        return fitting(some, depth, batch)

    lanes._logits = hungry
    (first,) = {run.begin() for run in side.runs}
    go(side.runs, first, lanes)
    assert lanes.side_by_side == 1
    assert_alike(side, other)


def test_of_wide_batches_fewer_lanes_go_through_in_one_pass_at_the_same_results():
    side, other = Side(three("lora")), Side(three("lora")).alone()
    lanes = Lanes(side.base, side.tuned, usual_width=8)
    together, sizes = lanes._logits, []

    def seen(some, depth, batch):
        sizes.append((batch["input_ids"].shape[1], len(some)))
        return together(some, depth, batch)

    lanes._logits = seen
    (first,) = {run.begin() for run in side.runs}
    go(side.runs, first, lanes)
    assert {n for _, n in sizes} > {1}
    assert all(width * n <= 3 * lanes.usual_width for width, n in sizes if n > 1)
    assert_alike(side, other)


def test_the_base_lies_in_memory_once_and_nobody_moves_it():
    side = Side(["lora(rank=2)", "bitfit", "head"])
    before = {name: parameter.clone() for name, parameter in side.base.model.named_parameters()}
    side.together()
    for tuned in side.tuned:
        for name, parameter in tuned.backbone.model.named_parameters():
            is_shared = parameter.data_ptr() == side.base.model.get_parameter(name).data_ptr()
            assert is_shared != parameter.requires_grad, name
    for name, value in before.items():
        assert torch.equal(side.base.model.get_parameter(name), value), name


@pytest.mark.parametrize(
    ("methods", "n_rows"),
    [
        (["head", "head", "head"], [8, 8]),
        (["head", "lora(layers=[1])", "bitfit"], [16, 24]),
        (["head", "lora(layers=[1])", "head"], [8, 16]),
        (["lora(layers=[1])", "lora(layers=[1])", "lora(layers=[1])"], [8, 24]),
        (["lora(layers=[1], dropout=0.5)", "lora(layers=[1])", "head"], [16, 24]),
    ],
)
def test_what_lies_below_the_lowest_change_is_computed_once(methods, n_rows):
    """Rows of eight that pass each layer. A lane that draws other masks shares nothing: the last case has one."""
    side, seen = Side(methods), []
    lanes = Lanes(side.base, side.tuned)
    for number, layer in enumerate(lanes.trunk.layers):
        query = layer.attention.self.query
        query.register_forward_hook(lambda module, inputs, output, at=number: seen.append((at, len(inputs[0]))))
    assert try_lanes(lanes, side.runs, np.arange(8), (3,), 0).strays == ()
    assert [sum(n for layer, n in seen if layer == at) for at in range(2)] == n_rows


def test_a_run_that_lanes_would_lead_astray_is_found_before_the_first_step():
    """A model that reads a weight past the module that holds it: a switch there is never asked."""
    side = Side(["bitfit", "bitfit", "lora"])

    class Reader(nn.Module):
        def __init__(self, dense):
            super().__init__()
            self.dense = dense

        def forward(self, x):
            return nn.functional.linear(x, self.dense.weight, self.dense.bias)

    base = side.base
    base.model.bert.encoder.layer[0].intermediate.dense = Reader(base.model.bert.encoder.layer[0].intermediate.dense)
    for tuned in side.tuned:
        layer = tuned.backbone.model.bert.encoder.layer[0].intermediate
        layer.dense = Reader(layer.dense)
    trial = try_lanes(Lanes(base, side.tuned), side.runs, np.arange(8), (3,), 0)
    assert set(trial.strays) >= {0, 1}


@pytest.mark.parametrize(("clear_gain", "tried"), [(float("inf"), {3, 1}), (0.0, {3})])
def test_a_trial_times_each_way_until_one_is_clearly_faster_and_changes_nothing(clear_gain, tried, monkeypatch):
    monkeypatch.setattr("deltaproof.training.lanes.trial.CLEAR_GAIN", clear_gain)
    side, other = Side(three("lora")), Side(three("lora"))
    trial = try_lanes(Lanes(side.base, side.tuned), side.runs, np.arange(8), (3, 1), 1)
    assert trial.seconds.keys() == tried
    assert trial.gain == trial.alone_seconds / min(trial.seconds.values())
    assert_alike(side.together(), other.together(), tolerance=1e-12)


@pytest.mark.parametrize(
    "methods", [["lora", "lora(dropout=0.2)", "lora(rank=2)"], ["head", "lora(layers=[1])", "head"]]
)
def test_lanes_that_follow_one_another_draw_the_same_masks(methods):
    sides = [Side(methods), Side(methods).alone()]
    (first,) = {run.begin() for run in sides[0].runs}
    go(sides[0].runs, first, Lanes(sides[0].base, sides[0].tuned, side_by_side=1))
    assert_alike(*sides)


@pytest.mark.parametrize("methods", [["lora", "prefix", "lora(rank=2)"], ["lora", "prefix", "lora(dropout=0.2)"]])
def test_lanes_that_another_parts_in_a_pass_draw_the_same_masks(methods):
    """Prefix has attention of its own, which the lanes before and behind it do not pass in one piece."""
    side = Side(methods)
    assert try_lanes(Lanes(side.base, side.tuned), side.runs, np.arange(8), (3,), 0).strays == ()
    assert_alike(side.together(), Side(methods).alone())


def test_rows_are_told_from_what_all_lanes_share():
    rows = Rows(n_rows=2, n_tokens=5)
    hidden, flat, positions = torch.arange(6.0)[:, None], torch.arange(30.0), torch.arange(5.0)[None]
    part = rows.part((hidden, {"flat": flat, "positions": positions, "none": None}), 3, 1, 2)
    assert part[0].flatten().tolist() == [2, 3]
    assert part[1]["flat"].tolist() == list(range(10, 20))
    assert part[1]["positions"] is positions
    assert part[1]["none"] is None
    parts = [rows.part(hidden, 3, at, at + 1) for at in range(3)]
    assert torch.equal(rows.joined(parts, [1, 1, 1]), hidden)
    assert torch.equal(rows.widened(hidden[:2], 3), hidden[:2].repeat(3, 1))
    assert math.prod(rows.widened(positions, 3).shape) == 5
