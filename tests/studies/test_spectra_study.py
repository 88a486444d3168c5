"""Spectra over a run: planted updates that are known, seeds averaged, and overlap with the full update."""

import json

import numpy as np
import pytest
import torch

from deltaproof.backbones import tiny_backbone, weight_of
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.records.store import Store
from deltaproof.studies.kept_models import Bed
from deltaproof.studies.overlap import RANKS, Directions, against, averaged_grid
from deltaproof.studies.same_head import below_the_head
from deltaproof.studies.spectra import averaged, spectra
from deltaproof.theory.in_memory import deltas_of

CPU = torch.device("cpu")


def planted(seed: int, rank: int):
    """The changes of a model whose linear maps each got a product of two random matrices."""
    base, tuned = tiny_backbone("bert"), tiny_backbone("bert")
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for site in tuned.sites(["query", "ffn_out"]):
            m, n = site.d_out, site.d_in
            change = torch.randn(m, rank, generator=draw) @ torch.randn(rank, n, generator=draw)
            weight_of(tuned.module(site), site).add_(0.1 * change)
    return deltas_of(attach(tuned, method_from("full")), below_the_head(base))


def test_an_update_shares_every_direction_with_itself():
    deltas = planted(seed=1, rank=4)
    found = averaged_grid([against(deltas, Directions(deltas), CPU)])
    assert found["median_cosine"] == pytest.approx(1)
    assert found["n_matrices"] == 4
    assert found["captured"][RANKS.index(4)] == pytest.approx(1, abs=1e-6)
    grid = np.array(found["overlap_out"], dtype=float)
    np.testing.assert_allclose(grid[:3, :3], 1, atol=1e-6)  # one span holds the other
    assert found["captured"][RANKS.index(8)] is None, "a rank of 4 has no eight directions"


def test_random_updates_agree_as_often_as_chance_has_it():
    found = averaged_grid([against(planted(seed, 4), Directions(planted(seed + 50, 4)), CPU) for seed in range(12)])
    here = RANKS.index(4)
    assert found["by_chance"][here][here] == pytest.approx(4 / 32)
    assert found["overlap_out"][here][here] == pytest.approx(4 / 32, rel=0.3)


def test_a_low_rank_update_is_held_against_more_directions_of_the_full_one_than_it_has():
    found = averaged_grid([against(planted(1, 2), Directions(planted(2, 16)), CPU)])
    grid = found["overlap_out"]
    assert grid[RANKS.index(2)][RANKS.index(16)] is not None
    assert grid[RANKS.index(16)][RANKS.index(2)] is None


def test_means_over_seeds_keep_names_and_skip_what_one_seed_lacks():
    seeds = [{"name": "q", "shape": [2, 3], "r90": 1, "energy": {"1": 0.5}, "x": None, "y": [1, 2]},
             {"name": "q", "shape": [2, 3], "r90": 2, "energy": {"1": 0.7}, "x": 1.0, "y": [3, 4]}]  # fmt: skip
    assert averaged(seeds) == {
        "name": "q", "shape": [2, 3], "r90": 1.5, "energy": {"1": 0.6}, "x": None, "y": [2.0, 3.0],
    }  # fmt: skip


@pytest.fixture(scope="module")
def result(kept_run):
    bed = Bed(Store(kept_run), CPU)
    before = bed.dataset.test.openings()
    found = spectra(bed)
    assert bed.dataset.test.openings() == before
    json.dumps(found, allow_nan=False)
    return {entry["label"]: entry for entry in found["methods"]}


def test_every_matrix_of_every_layer_has_a_row_with_its_nulls(result):
    for label in ("full", "lora(rank=2)"):
        places = {(row["layer"], row["role"]) for row in result[label]["rows"] if row["layer"] is not None}
        roles = ("query", "key", "value", "attention_out", "ffn_in", "ffn_out")
        assert places == {(layer, role) for layer in (0, 1) for role in roles}
        for row in result[label]["rows"]:
            assert row["ratio_2"] == pytest.approx(row["norm_2"] / row["base_norm_2"], rel=1e-6)
            assert 1 <= row["r90"] <= min(row["shape"])
            assert row["n_seeds"] == 2
            assert len(row["positions"]) == len(row["singular_values"])
            assert row["singular_values"] == sorted(row["singular_values"], reverse=True)
            assert row["bf16_rounding_fraction"] > 0
    assert all(row["energy"]["2"] == pytest.approx(1) for row in result["lora(rank=2)"]["rows"])
    assert result["full"]["summary"]["median_r90"] > 2


def test_increments_are_those_of_the_last_layers_queries_in_the_form_that_each_method_has(result):
    shown = {label: (entry["increments"]["part"], entry["increments"]["role"]) for label, entry in result.items()}
    assert shown == {
        "full": ("weight", "query"), "lora(rank=2)": ("weight", "query"), "bitfit": ("bias", "query"),
        "prefix(length=2)": ("parameters", None),
    }  # fmt: skip
    assert all(entry["increments"]["layer"] == 1 for entry in result.values())
    assert result["full"]["increments"]["n"] == 2 * 32 * 32, "both seeds' entries"
    assert result["bitfit"]["increments"]["n"] == 2 * 32
    assert sum(result["full"]["increments"]["histogram"]["counts"]) == 2 * 32 * 32


def test_methods_are_held_against_full_and_full_against_another_seed_of_its_own(result):
    for label in ("full", "lora(rank=2)"):
        grid = np.array(result[label]["against_full"]["overlap_out"], dtype=float)
        assert np.nanmin(grid) >= 0
        assert np.nanmax(grid) <= 1 + 1e-6
    assert result["bitfit"]["against_full"] is None
    assert result["bitfit"]["rows"] == []
    assert result["bitfit"]["n_vectors"] > 0
    assert "`prefix(length=2)` makes none" in result["prefix(length=2)"]["why_none"]
