"""The truncation test on planted updates, where the answer is known, and on a real small experiment."""

import numpy as np
import pytest
import torch

from deltaproof import compare
from deltaproof.backbones import tiny_backbone, weight_of
from deltaproof.errors import RecordError
from deltaproof.records.store import Store
from deltaproof.studies.expressivity import choose_rank, expressivity, n_directions, put, ranks_at_budget, updates_of
from deltaproof.studies.kept_models import Bed


def planted(family: str, rank: int, only: str | None = None):
    """A model and a copy whose every linear map got an update of this rank (or those of one role alone)."""
    base, tuned = tiny_backbone(family), tiny_backbone(family)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for update in updates_of(tuned, base):
            m, n = update.before.shape
            change = torch.randn(m, rank, generator=draw) @ torch.randn(rank, n, generator=draw)
            if only is None or update.site.role == only:
                weight_of(tuned.module(update.site), update.site).add_(0.1 * change)
    return base, tuned


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "modernbert"])
def test_an_update_of_rank_two_is_whole_again_at_rank_two(family):
    base, tuned = planted(family, rank=2)
    updates = updates_of(tuned, base)
    after = [update.after.clone() for update in updates]
    for update in updates:
        assert float(update.energy[:2].sum() / update.energy.sum()) > 1 - 1e-9
    put(updates, [2] * len(updates))
    for update, wanted in zip(updates, after, strict=True):
        torch.testing.assert_close(weight_of(tuned.module(update.site), update.site), wanted, rtol=0, atol=1e-5)
    put(updates, [1] * len(updates))
    assert all(
        not torch.allclose(update.place, wanted, atol=1e-3) for update, wanted in zip(updates, after, strict=True)
    )


def test_rank_zero_is_the_base_to_the_byte():
    base, tuned = planted("gpt2", rank=3)
    updates = updates_of(tuned, base)
    put(updates, [0] * len(updates))
    for update in updates:
        assert torch.equal(
            weight_of(tuned.module(update.site), update.site), weight_of(base.module(update.site), update.site)
        )


def test_what_is_cut_off_is_the_tail_of_the_singular_values():
    """Eckart and Young: the squared error of the best rank-r form is the sum of the squared values left out."""
    base, tuned = planted("bert", rank=5)
    for update in updates_of(tuned, base):
        error = (update.cut(3) - update.after).double().square().sum()
        assert float(error) == pytest.approx(float(update.energy[3:].sum()), rel=1e-4)


def test_at_equal_budget_the_directions_go_where_the_update_is():
    base, tuned = planted("bert", rank=4, only="ffn_out")
    updates = updates_of(tuned, base)
    ranks = ranks_at_budget(updates, 1)
    spent = sum(n_directions(update, rank) for update, rank in zip(updates, ranks, strict=True))
    assert spent <= sum(n_directions(update, 1) for update in updates)
    for update, rank in zip(updates, ranks, strict=True):
        if update.site.role == "ffn_out":
            assert rank >= 4


def test_the_lowest_rank_within_the_margin_is_chosen():
    points = [
        {"rank": rank, "validation": score} for rank, score in [(0, 0.5), (1, 0.8), (2, 0.89), (4, 0.91), (32, 0.9)]
    ]
    assert choose_rank([{"points": points}], 0.02, higher_is_better=True) == 2
    assert choose_rank([{"points": points}], 0.2, higher_is_better=True) == 1
    losses = [{**point, "validation": -point["validation"]} for point in points]
    assert choose_rank([{"points": losses}], 0.02, higher_is_better=False) == 2


@pytest.fixture(scope="module")
def run(bert, reviews_csv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "capacity"
    compare(model=str(bert), data=str(reviews_csv), methods=["full", "lora(rank=2)"], out=folder, seeds=2, trials=1,
            training={"epochs": 1, "batch_size": 8}, max_length=24, baselines=False, keep="all",
            learning_rates=[1e-3])  # fmt: skip
    return folder


def test_the_study_of_a_run_names_both_gaps_and_opens_the_test_set_once_per_model(run):
    bed = Bed(Store(run), torch.device("cpu"))
    before = len(bed.dataset.test.openings())
    result = expressivity(bed, ranks=(0, 1, 2, 4))
    assert result["ranks"] == [0, 1, 2, 4, 32]
    assert [curve["seed"] for curve in result["curves"]] == [0, 1]
    for curve in result["curves"]:
        record = bed.store.find(curve["key"])
        energies = [point["energy"] for point in curve["points"]]
        assert energies == sorted(energies)
        assert energies[-1] == pytest.approx(1)
        assert curve["points"][-1]["validation"] == record.validation["accuracy"]
    assert set(result["test"]["gaps"]) == (
        {"expressivity", "optimisation"} if result["chosen_rank"] <= 2 else {"expressivity"}
    )
    assert result["trained"][0]["rank"] == 2
    assert len(bed.dataset.test.openings()) == before + 2
    assert np.isfinite(result["test"]["gaps"]["expressivity"]["difference"])


def test_a_run_without_a_full_model_says_what_to_do(run, tmp_path):
    store = Store(run)
    experiment = store.experiment()
    other = Store(tmp_path)
    other.write_experiment({**experiment, "contestants": []})
    (tmp_path / "data").symlink_to(run / "data")
    with pytest.raises(
        RecordError, match="kept none of any contestant; run the same `compare` again with `--keep all`"
    ):
        expressivity(Bed(other, torch.device("cpu")))
