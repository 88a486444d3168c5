"""Sweeps over ranks and sizes: subsets nested, points paired, curves stored, nonsense refused."""

import json

import pytest

from deltaproof.data.run_folder import read_dataset
from deltaproof.errors import ConfigError
from deltaproof.experiments.plan import Plan
from deltaproof.records.store import Store
from deltaproof.studies.scale import scale_examples, scale_parameters
from deltaproof.studies.scale_text import scale_text


@pytest.fixture(scope="module")
def plan(bert, reviews_csv):
    return Plan(
        model=str(bert), data=str(reviews_csv), methods=("full", "head"), seeds=2, trials=1, max_length=24,
        baselines=False, training={"epochs": 1, "batch_size": 8}, learning_rates=(1e-3,),
    )  # fmt: skip


def test_a_sweep_over_ranks_has_a_point_per_rank_and_says_how_returns_go(plan, tmp_path):
    result = scale_parameters(plan, (1, 2, 4), tmp_path)
    assert [point["rank"] for point in result["points"]] == [1, 2, 4]
    trained = [point["n_trained"] for point in result["points"]]
    assert trained[1] - trained[0] == pytest.approx((trained[2] - trained[1]) / 2)  # linear in the rank, head aside
    assert [other["label"] for other in result["others"]] == ["full", "head"]
    assert result["growth"]["verdict"] in ("diminishing", "not diminishing", "cannot tell")
    assert json.loads((tmp_path / "studies" / "scale_parameters.json").read_text())["points"] == result["points"]
    assert "gain per doubling of parameters" in scale_text(result)


def test_a_sweep_over_sizes_takes_nested_subsets_and_one_test_set(plan, tmp_path):
    result = scale_examples(plan, (16, 32, None), tmp_path)
    folders = [tmp_path / "sizes" / "n-16", tmp_path / "sizes" / "n-32", tmp_path]
    sets = [read_dataset(folder / "data") for folder in folders]
    ids = [set(dataset.train.ids) for dataset in sets]
    assert ids[0] < ids[1] < ids[2]
    assert len({dataset.test.fingerprint for dataset in sets}) == 1
    (one, other) = result["methods"]
    assert [point["n_examples"] for point in one["points"]] == [16, 32, len(ids[2])]
    assert (one["label"], other["label"]) == ("full", "head")
    assert len(result["crossovers"]) == 1
    assert "full" in scale_text(result)


def test_with_equal_steps_every_size_sees_as_many_examples(plan, tmp_path):
    scale_examples(plan.replace(methods=("head",), seeds=1), (16, None), tmp_path, equal="steps")
    seen = set()
    for folder in (tmp_path / "sizes" / "n-16", tmp_path):
        store = Store(folder)
        for record in store.records():
            if record.status == "done" and record.history:
                seen.add(record.history[-1]["step"])
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda plan, out: scale_parameters(plan, (4, 8), out), "at least 3 ranks, got"),
        (
            lambda plan, out: scale_parameters(plan, (1, 2, 4), out, method="bitfit"),
            "`bitfit` must have a field `rank`",
        ),
        (lambda plan, out: scale_examples(plan, (64,), out), "at least two sizes"),
    ],
)
def test_a_sweep_that_says_nothing_is_refused_before_it_begins(plan, tmp_path, call, message):
    with pytest.raises(ConfigError, match=message):
        call(plan, tmp_path)
    assert not list(tmp_path.iterdir())
