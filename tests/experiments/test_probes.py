"""Probes: taken once for contestants that cost the same, on rows that stand for all."""

import json
from dataclasses import replace

import numpy as np
import pytest

from deltaproof.experiments.compare import compare
from deltaproof.experiments.engines.local import LocalEngine
from deltaproof.experiments.estimate import cost_key
from deltaproof.experiments.jobs import Job
from deltaproof.experiments.probe import N_STEPS, rows_of_every_length, rows_of_mean_length, tokens_of_a_step
from deltaproof.methods import method_from
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store
from deltaproof.tasks.batches import epoch_batches, training_batches


def spec_of(method: str, **training: object) -> Spec:
    settings = {"learning_rate": 1e-3, "batch_size": 16, **training}
    return Spec(method, method_from(method).to_dict(), {}, {}, {}, settings, 0, "tuning")


@pytest.mark.parametrize("like", ["lora(alpha=4)", "lora(rank_stabilised=True)"])
def test_a_factor_a_rate_and_a_seed_share_a_probe(like):
    one, other = spec_of("lora"), replace(spec_of(like, learning_rate=3e-4), seed=7, stage="final", parents=("a",))
    assert cost_key(one) == cost_key(other)


def test_a_factor_inside_of_another_method_shares_it_too():
    one, other = (spec_of(f"on_layers(together(lora(alpha={alpha}), ln_tune), layers=[0])") for alpha in (4, 8))
    assert cost_key(one) == cost_key(other)


@pytest.mark.parametrize("other", [spec_of("lora(rank=4)"), spec_of("dora"), spec_of("lora", batch_size=8)])
def test_what_may_cost_more_is_measured_by_itself(other):
    assert cost_key(other) != cost_key(spec_of("lora"))


def test_one_probe_serves_the_runs_of_both_contestants(bert, reviews_csv, tmp_path):
    methods = ["lora(rank=2)", "lora(rank=2, alpha=4)"]
    table = compare(
        model=bert, data=reviews_csv, methods=methods, learning_rates=(1e-3,), seeds=1, epochs=1, baselines=False,
        keep="none", out=tmp_path,
    )  # fmt: skip
    (probe,) = (tmp_path / "probes").glob("*.json")
    first, second = (entry["estimate"] for entry in table.experiment["contestants"])
    assert first == second
    for record in list(Store(tmp_path).records()):
        (tmp_path / "records" / f"{record.spec.key}.json").unlink()
        alone = LocalEngine().run(Job(record.spec, tmp_path, "cpu"))  # counts for itself
        assert record.cost.train_flops == alone.cost.train_flops > 0
    assert json.loads(probe.read_text())["flops_per_token"] > 0


@pytest.mark.parametrize("seed", range(3))
def test_few_batches_of_every_length_cost_what_an_epoch_does(seed):
    """Of a step that takes some time whatever its length, and more for each token, less for each pair of tokens."""
    lengths = np.random.default_rng(seed).lognormal(3.1, 0.5, 1000).round().clip(4, 128).astype(int)

    def seconds(rows, of=lengths):
        return 50 + 16 * of[rows].max() * (1 + of[rows].max() / 500)

    epoch = np.mean([seconds(rows) for rows in epoch_batches(lengths, 16, 0, 1)])
    chosen = rows_of_every_length(lengths, 16, N_STEPS)
    share = tokens_of_a_step(lengths, 16, 0) / tokens_of_a_step(lengths[chosen], 16, 0)
    ours = share * np.mean(
        [seconds(rows, lengths[chosen]) for rows in training_batches(lengths[chosen], 16, 0, N_STEPS)]
    )
    drawn = [np.mean([seconds(rows) for rows in training_batches(lengths, 16, seed, 3)]) for seed in range(50)]
    assert abs(ours / epoch - 1) < 0.08
    assert np.std(drawn) / epoch > 0.2


def test_rows_for_the_time_of_an_answer_are_of_mean_length():
    lengths = np.random.default_rng(0).integers(5, 60, 300)
    assert lengths[rows_of_mean_length(lengths, 32)].mean() == pytest.approx(lengths.mean(), abs=0.5)
    assert sorted(rows_of_mean_length(lengths[:5], 32)) == [0, 1, 2, 3, 4]
