"""The training loop: what the seed decides, what a batch is, and that a training can be cut anywhere."""

import json

import numpy as np
import pytest
import torch

from deltaproof.backbones import tiny_backbone
from deltaproof.errors import ConfigError
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.metrics import METRICS
from deltaproof.tasks.batches import training_batches
from deltaproof.tasks.text import TextTask, collate, padded
from deltaproof.training.checkpoints import Checkpoint
from deltaproof.training.gradient import BatchGradient
from deltaproof.training.loop import Run, number_of_steps, train
from deltaproof.training.precision import accelerator_for, pick_device, pick_precision
from deltaproof.training.settings import Training
from deltaproof.training.snapshots import put_snapshot, snapshots_in

WORDS = ["the", "a", "good", "bad", "film", "story", "dog", "fox", "quick", "lazy", "text", "numbers"]
TASK = TextTask("classification", ("no", "yes"), ("accuracy", "nll"), 32)
CPU = torch.device("cpu")


def rows(backbone, n_rows, seed=0):
    random = np.random.default_rng(seed)
    texts = [list(random.choice(WORDS, random.integers(2, 12))) for _ in range(n_rows)]
    targets = np.array([["good" in text] for text in texts], dtype=float)
    return TASK.encode_texts(backbone.tokenizer, [(" ".join(text),) for text in texts], targets)


class Small:
    """One small training, by keyword."""

    def __init__(
        self, method="lora(rank=2, dropout=0.1)", dropout=0.1, seed=0, precision="fp32", rate=3e-3, **settings
    ):
        self.backbone = tiny_backbone("bert", dropout=dropout)
        self.tuned = attach(self.backbone, method_from(method), seed)
        self.train_rows, self.validation_rows = rows(self.backbone, 24), rows(self.backbone, 12, seed=1)
        self.settings = Training(**{"epochs": 2, "batch_size": 4, "patience": None, **settings})
        self.rate, self.seed, self.accelerator = rate, seed, accelerator_for(CPU, precision)

    def __call__(self, checkpoint=None, **options):
        self.outcome = train(*self.arguments, checkpoint, **options)
        return self

    def run(self, checkpoint=None):
        return Run(*self.arguments, checkpoint)

    @property
    def arguments(self):
        return (
            self.tuned, TASK, self.train_rows, self.validation_rows, self.settings, self.rate, self.seed,
            self.accelerator,
        )  # fmt: skip

    @property
    def state(self):
        return {name: value.clone() for name, value in self.tuned.state().items()}


def take_gradient(run, n_rows):
    """Leave the gradient over the first rows in what is trained; returns the loss."""
    pad_token_id = run.tuned.backbone.tokenizer.pad_token_id
    (loss,) = BatchGradient(TASK, run.train_rows, pad_token_id, run.accelerator)([run], [np.arange(n_rows)])
    return loss


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_seed_gives_the_same_bits_again_whatever_was_drawn_before():
    one = Small()()
    torch.rand(5), np.random.rand(5)
    other = Small()()
    assert same(one.state, other.state)
    assert one.outcome.history == other.outcome.history


def test_another_seed_gives_another_training():
    assert not same(Small(seed=0)().state, Small(seed=1)().state)


@pytest.mark.parametrize("what", ["start", "order", "dropout"])
def test_the_seed_reaches_start_values_order_of_rows_and_dropout_each(what, monkeypatch):
    """One of the three gets another seed, the other two keep theirs: the outcome differs all the same."""
    dropout = 0.3 if what == "dropout" else 0.0
    one = Small("lora(rank=2)", dropout)()
    other = Small("lora(rank=2)", dropout, seed=1 if what == "start" else 0)
    other.seed = 1 if what == "order" else 0
    if what == "dropout":
        monkeypatch.setattr("deltaproof.training.loop.seed_everything", lambda seed, name: torch.manual_seed(99))
    assert not same(one.state, other().state)


@pytest.mark.parametrize(
    ("method", "cut_at"),
    [
        ("lora(rank=2, dropout=0.1)", 2),
        ("lora(rank=2, dropout=0.1)", 12),
        ("full", 7),
        ("adalora(init_r=4, target_r=2, tinit=1, deltaT=1)", 7),
        ("peft_vera(r=4)", 6),
        ("pica(rank=4)", 7),
        ("vera(rank=8, dropout=0.1)", 7),
    ],
)
def test_a_training_cut_in_the_middle_goes_on_to_the_same_bits(tmp_path, method, cut_at):
    whole = Small(method, evaluations_per_epoch=2)()

    def cut(step, n_steps, values):
        if step == cut_at and "train_loss" in values:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Small(method, evaluations_per_epoch=2)(Checkpoint(tmp_path / "c", every_seconds=0), progress=cut)
    kept = json.loads((tmp_path / "c" / "checkpoint.json").read_text())["step"]
    assert kept == cut_at - 1
    steps = []
    again = Small(method, evaluations_per_epoch=2)(
        Checkpoint(tmp_path / "c", every_seconds=0), progress=lambda step, n_steps, values: steps.append(step)
    )
    assert steps[0] == kept + 1, "it must go on where it stood"
    assert same(again.state, whole.state)
    for key in ("history", "validation", "notes", "examples_seen", "tokens_seen", "diverged"):
        assert getattr(again.outcome, key) == getattr(whole.outcome, key)


def test_a_training_that_rests_after_some_steps_goes_on_to_the_same_bits(tmp_path):
    whole = Small(evaluations_per_epoch=2)()
    first = Small(evaluations_per_epoch=2)(Checkpoint(tmp_path / "c"), stop_after=6)
    assert [entry["step"] for entry in first.outcome.history] == [3, 6]
    assert first.outcome.history == whole.outcome.history[:2], "the schedule is that of the whole training"
    again = Small(evaluations_per_epoch=2)(Checkpoint(tmp_path / "c"), stop_after=6)
    assert same(again.state, first.state), "it rests where it did"
    assert again.outcome.history == first.outcome.history
    rest = Small(evaluations_per_epoch=2)(Checkpoint(tmp_path / "c"))
    assert same(rest.state, whole.state)
    for key in ("history", "validation", "notes", "examples_seen", "tokens_seen", "diverged"):
        assert getattr(rest.outcome, key) == getattr(whole.outcome, key)


def test_a_training_cut_after_its_patience_was_over_does_not_go_on(tmp_path):
    settings = {"patience": 1, "rate": 1e-9, "epochs": 6}
    whole = Small(**settings)()
    cut_after = whole.outcome.history[-1]["step"]

    def cut(step, n_steps, values):
        if step == cut_after + 1:
            raise AssertionError("it went on")

    class CutAfterSaving(Checkpoint):
        def save(self, step, tensors, facts):
            super().save(step, tensors, facts)
            if step == cut_after:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Small(**settings)(CutAfterSaving(tmp_path / "c", every_seconds=0))
    again = Small(**settings)(Checkpoint(tmp_path / "c", every_seconds=0), progress=cut)
    assert again.outcome.history == whole.outcome.history
    assert (
        again.outcome.notes
        == whole.outcome.notes
        == [f"stopped early after step {cut_after} of 36: no better score for 1 evaluations"]
    )
    assert same(again.state, whole.state)


@pytest.mark.parametrize("method", ["lora(rank=2)", "full"])
def test_a_snapshot_holds_what_was_trained_at_that_step_and_changes_no_bit(tmp_path, method):
    seen, small, without = {}, Small(method), Small(method)()

    def look(step, n_steps, values):
        if "train_loss" in values:
            seen[step] = {name: value.detach().clone() for name, value in small.tuned.trained().items()}

    small(snapshots=tmp_path, progress=look)
    assert same(small.state, without.state)
    assert small.outcome.history == without.outcome.history
    assert list(snapshots_in(tmp_path)) == [1, 3, 6, 9], "of 12 steps"
    for step, path in snapshots_in(tmp_path).items():
        other = Small(method).tuned
        put_snapshot(other, path)
        assert same(other.trained(), seen[step])


def test_a_training_that_was_cut_leaves_the_snapshots_of_a_whole_one(tmp_path):
    Small()(snapshots=tmp_path / "whole")

    def cut(step, n_steps, values):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Small()(Checkpoint(tmp_path / "c", every_seconds=0), snapshots=tmp_path / "cut", progress=cut)
    assert len(list((tmp_path / "cut").glob("step-*"))) == 3
    assert snapshots_in(tmp_path / "cut") == {}, "of a training that has not come to its end"
    Small()(Checkpoint(tmp_path / "c", every_seconds=0), snapshots=tmp_path / "cut")
    whole, again = snapshots_in(tmp_path / "whole"), snapshots_in(tmp_path / "cut")
    assert list(whole) == list(again)
    assert [path.read_bytes() for path in whole.values()] == [path.read_bytes() for path in again.values()]


def test_writing_checkpoints_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    checkpoint, clock = Checkpoint(tmp_path / "c", every_seconds=1), iter([100.0, 110.0, 300.0, 311.0])
    monkeypatch.setattr("deltaproof.training.checkpoints.time.monotonic", lambda: next(clock))
    checkpoint.save(1, {}, {})  # from 100 to 110: the next not before 310
    assert not checkpoint.is_due
    assert checkpoint.is_due


def test_a_checkpoint_holds_no_pickle_and_one_set_of_tensors(tmp_path):
    Small(evaluations_per_epoch=3)(Checkpoint(tmp_path / "c", every_seconds=0))
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names[0] == "checkpoint.json"
    assert len(names) == 2
    assert names[1].endswith(".safetensors")


def test_checkpoints_are_not_written_more_often_than_asked(tmp_path):
    Small()(Checkpoint(tmp_path / "c", every_seconds=3600))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("limit", [1, 2])
def test_when_memory_runs_out_the_micro_batch_is_halved_and_nothing_else_changes(monkeypatch, limit):
    wanted = Small(micro_batch_size=limit)()
    small = Small()
    forward = small.tuned.model.forward

    def too_large(*args, **batch):
        if small.tuned.training and len(batch["input_ids"]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **batch)

    monkeypatch.setattr(small.tuned.model, "forward", too_large)
    small()
    assert same(small.state, wanted.state)
    assert small.outcome.history == wanted.outcome.history
    assert small.outcome.notes == [f"memory ran out: went on with micro-batches of {limit}, same batch per step"]
    assert small.outcome.examples_seen == wanted.outcome.examples_seen
    assert small.outcome.tokens_seen == wanted.outcome.tokens_seen


def test_the_halved_micro_batch_is_remembered_over_a_cut(tmp_path):
    run = Small(evaluations_per_epoch=2).run(Checkpoint(tmp_path / "c", every_seconds=0))
    run.begin()
    run.micro_batch_size = 1
    run.step(take_gradient(run, 4))
    run.evaluate()
    run.keep()
    fresh = Small(evaluations_per_epoch=2).run(Checkpoint(tmp_path / "c"))
    assert fresh.begin() == 1
    assert fresh.micro_batch_size == 1


def test_memory_that_runs_out_at_a_single_row_is_passed_on(monkeypatch):
    small = Small()
    monkeypatch.setattr(small.tuned.model, "forward", lambda **batch: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        small()


def test_an_error_that_is_not_about_memory_is_passed_on(monkeypatch):
    small = Small()
    monkeypatch.setattr(small.tuned.model, "forward", lambda **batch: (_ for _ in ()).throw(RuntimeError("shape")))
    with pytest.raises(RuntimeError, match="shape"):
        small()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_divergence_is_a_result(method):
    outcome = Small(method, rate=1e30, epochs=4, clip_norm=1e9)().outcome
    assert outcome.diverged
    assert "diverged" in outcome.notes[-1]
    assert "not finite" in outcome.notes[-1]
    assert all(np.isfinite(entry["train_loss"]) for entry in outcome.history)


def test_after_a_divergence_the_best_values_are_back():
    training = Small("full", dropout=0.0)
    run = training.run()
    run.begin()
    run.step(take_gradient(run, 4))
    run.evaluate()
    best = training.state
    for parameter in run.trained.values():
        parameter.data.fill_(float("nan"))
    run.step(take_gradient(run, 4))
    run.end()
    assert run.outcome.diverged
    assert same(training.state, best)


def test_early_stopping_waits_for_its_patience_and_says_so():
    outcome = Small(rate=1e-9, epochs=8, patience=2)().outcome
    assert len(outcome.history) == 3
    assert outcome.notes == ["stopped early after step 18 of 48: no better score for 2 evaluations"]


def test_the_checkpoint_that_is_kept_is_the_best_and_the_first_of_equals():
    seen = []
    training = Small("full", epochs=6, rate=1e-2)

    def remember(step, n_steps, values):
        if "validation_accuracy" in values:
            seen.append((values["validation_accuracy"], training.state))

    training(progress=remember)
    best = max(score for score, _ in seen)
    assert len({score for score, _ in seen}) > 1, "a case where the choice matters"
    first = next(state for score, state in seen if score == best)
    assert same(training.state, first)
    assert training.outcome.validation["accuracy"] == best


def test_a_metric_where_less_is_better_keeps_the_lowest():
    from deltaproof.training.best import Best

    best = Best("nll", patience=None)
    parameter = torch.nn.Parameter(torch.zeros(1))
    for score in (0.7, 0.5, 0.9, 0.5):
        parameter.data.fill_(score)
        best.see({"nll": score}, {"p": parameter})
    best.put_back({"p": parameter})
    assert parameter.item() == 0.5
    assert best.evaluations_since == 2


@pytest.mark.parametrize("micro_batch_size", [1, 3, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(micro_batch_size):
    def gradients(size):
        run = Small("full", dropout=0.0, micro_batch_size=size, batch_size=8).run()
        run.begin()
        take_gradient(run, 8)
        return {name: parameter.grad for name, parameter in run.trained.items() if parameter.grad is not None}

    whole, parts = gradients(8), gradients(micro_batch_size)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("method", ["full", "lora(rank=2, dropout=0.1)", "dora(rank=2)", "ia3"])
def test_gradient_checkpointing_gives_the_same_gradients(method):
    def gradients(is_on):
        run = Small(method, gradient_checkpointing=is_on).run()
        run.begin()
        take_gradient(run, 4)
        return {name: parameter.grad for name, parameter in run.trained.items() if parameter.grad is not None}

    kept, recomputed = gradients(False), gradients(True)
    assert kept.keys() == recomputed.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize(("method", "is_reached"), [("head", False), ("lora(layers=[1])", False), ("lora", True)])
def test_gradient_checkpointing_sends_no_gradient_where_nothing_is_trained(method, is_reached):
    training = Small(method, gradient_checkpointing=True)
    run, reached = training.run(), []
    run.begin()
    training.backbone.module("bert.encoder.layer.0").register_full_backward_hook(lambda *_: reached.append(1))
    take_gradient(run, 4)
    assert bool(reached) == is_reached


def test_gradient_checkpointing_is_refused_where_a_cache_carries_the_method():
    """transformers would take the cache from the layers that it computes again, and end in an error of shapes."""
    run = Small("together(prefix_tuning(num_virtual_tokens=2), ln_tune)", gradient_checkpointing=True).run()
    with pytest.raises(ConfigError, match=r"`gradient_checkpointing` .* `together.*; turn that off, or choose"):
        run.begin()


def test_gradient_checkpointing_saves_activations():
    def peak(is_on):
        run = Small("full", gradient_checkpointing=is_on).run()
        run.begin()
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
            run.tuned.train()(**collate(run.train_rows, np.arange(4), 0))
        return sum(saved)

    assert peak(True) < 0.7 * peak(False)


@pytest.mark.parametrize("method", ["full", "lora", "dora", "peft_vera(r=4)"])
def test_in_bf16_products_are_in_bf16_and_everything_kept_in_fp32(method):
    training = Small(method, precision="bf16")
    seen = set()
    training.backbone.module(training.backbone.sites(["ffn_out"])[0]).register_forward_hook(
        lambda module, inputs, output: seen.add(output.dtype)
    )
    run = training.run()
    run.begin()
    run.step(take_gradient(run, 4))
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in run.trained.values()} == {torch.float32}
    states = [value for state in run.optimizer.state_dict()["state"].values() for value in state.values()]
    assert {value.dtype for value in states} == {torch.float32}


def test_training_leaves_the_forward_pass_of_the_model_alone():
    """accelerate patches what it prepares; a tuned model must answer in full precision afterwards."""
    training = Small(precision="bf16")
    before = training.tuned.forward.__func__
    training()
    assert training.tuned.forward.__func__ is before
    assert "forward" not in vars(training.tuned)
    batch = collate(training.train_rows, [0, 1], 0)
    assert training.tuned(**batch).logits.dtype == torch.float32
    assert not training.tuned.training


def test_nothing_frozen_moves_and_no_gradient_is_left():
    training = Small("lora")
    frozen = {n: p.clone() for n, p in training.backbone.model.named_parameters() if not p.requires_grad}
    training()
    after = dict(training.backbone.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    assert all(parameter.grad is None for parameter in training.tuned.parameters())


def test_decay_pulls_on_matrices_only():
    groups = Small("dora", weight_decay=0.1).run().optimizer.param_groups
    decays = {(parameter.dim() >= 2, group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert decays == {(True, 0.1), (False, 0.0)}


def test_a_penalty_is_part_of_the_loss_and_pulls():
    training = Small("adalora(orth_reg_weight=10.0)", dropout=0.0)
    run = training.run()
    run.begin()
    (edit,) = training.tuned.edits
    before = edit.penalty().item()
    loss = take_gradient(run, 4)
    logits = training.tuned(**collate(run.train_rows, np.arange(4), 0)).logits
    plain = TASK.loss(logits, torch.tensor(run.train_rows.targets[:4])).item()
    assert loss == pytest.approx(plain + before, rel=1e-5)
    run.optimizer.step()
    assert edit.penalty().item() < before


@pytest.mark.parametrize(
    ("n_rows", "settings", "n_steps"),
    [
        (100, {"epochs": 3, "batch_size": 32}, 12),  # 4 batches an epoch, the last of 4 rows
        (96, {"epochs": 2, "batch_size": 32}, 6),
        (100, {"epochs": 0.5, "batch_size": 10}, 5),
        (100, {"epochs": 0.001, "batch_size": 10}, 1),
        (100, {"examples": 65, "batch_size": 32}, 3),
        (3, {"epochs": 2, "batch_size": 32}, 2),
    ],
)
def test_the_number_of_steps(n_rows, settings, n_steps):
    assert number_of_steps(n_rows, Training(**settings)) == n_steps
    batches = list(training_batches(np.ones(n_rows, dtype=int), settings["batch_size"], 0, n_steps))
    assert len(batches) == n_steps


def test_the_history_says_when_what_was_seen():
    outcome = Small(epochs=2, evaluations_per_epoch=2)().outcome
    assert [entry["step"] for entry in outcome.history] == [3, 6, 9, 12]
    assert [entry["epoch"] for entry in outcome.history] == [0.5, 1.0, 1.5, 2.0]
    assert outcome.examples_seen == 48
    assert all(entry["validation"].keys() == {"accuracy", "nll"} for entry in outcome.history)
    assert outcome.train_seconds > 0


def test_the_scores_are_those_of_the_metric_on_the_models_answers():
    from deltaproof.evaluation.predict import predict

    training = Small()()
    answers = predict(training.tuned, TASK, training.validation_rows, 0)
    for name, score in training.outcome.validation.items():
        assert score == pytest.approx(METRICS[name].score(training.validation_rows.targets, answers), abs=1e-6)


def test_tokens_are_counted_with_their_padding():
    training = Small(epochs=1, dropout=0.0)()
    lengths = training.train_rows.lengths
    batches = list(training_batches(lengths, 4, training.seed, 6))
    assert {len(batch) for batch in batches} == {4}
    widths = [padded(int(lengths[batch].max()), TASK.max_length) for batch in batches]
    assert training.outcome.tokens_seen == sum(width * 4 for width in widths)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"the device must exist on this machine, got `gpu7` \(.*\); try `cpu`"):
        pick_device("gpu7")


def test_fp16_on_the_cpu_is_refused():
    with pytest.raises(ConfigError, match="fp16 needs an accelerator, got the CPU; use"):
        pick_precision("fp16", CPU)
    assert pick_precision("bf16", CPU) == "bf16"
    assert pick_precision("auto", CPU) in ("fp32", "bf16")


def test_a_model_that_cannot_recompute_activations_is_refused(monkeypatch):
    training = Small(gradient_checkpointing=True)
    monkeypatch.setattr(type(training.backbone.model), "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match="must offer `gradient_checkpointing`, `tiny-bert` does not; turn it off"):
        training()
