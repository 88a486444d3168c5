"""Planned looks: an experiment that is settled early runs no more seeds, one that is not runs all."""

import json

import pytest

import deltaproof
from deltaproof.errors import ConfigError
from deltaproof.looks import planned_looks
from deltaproof.records.store import Store
from deltaproof.report import write_report
from small import FAST, Sayings

PLAN = {**FAST, "methods": "full,head", "trials": 1, "seeds": 6, "looks": 2, "baselines": False, "keep": "best"}
FIRST, SECOND = planned_looks(6, 2, 0.05)


@pytest.fixture(scope="module")
def settled(bert, reviews_csv, tmp_path_factory):
    """So wide a margin that any two models are equivalent."""
    folder, reporter = tmp_path_factory.mktemp("looks"), Sayings()
    table = deltaproof.compare(model=bert, data=reviews_csv, out=folder, margin=0.99, reporter=reporter, **PLAN)
    return folder, reporter, table


def test_a_settled_look_stops_further_seeds_and_says_so(settled):
    folder, reporter, table = settled
    assert table.row("head").comparison.verdict == "equivalent"
    assert [len(row.keys) for row in table.rows] == [3, 3]
    assert len(list(Store(folder).records())) == 6
    assert "every verdict is settled after 3 of 6 seeds: no more are run" in reporter.texts
    assert json.loads((folder / "experiment.json").read_text())["look"] == {
        "number": 1, "of": 2, "n_seeds": 3, "level": FIRST.level,
    }  # fmt: skip
    assert "Look 1 of 2, after 3 seeds each: a verdict needs p <= 0.031 here, so that all looks" in table.to_text()
    assert len(list((folder / "tuned").glob("*/deltaproof.json"))) == 2, "the best of each contestant"
    page = write_report(table).read_text(encoding="utf-8")
    assert "Look 1 of 2, after 3 seeds each" in page


def test_the_same_command_again_stops_at_the_same_look(settled, bert, reviews_csv):
    folder, _, table = settled
    again = deltaproof.compare(model=bert, data=reviews_csv, out=folder, margin=0.99, **PLAN)
    assert again.to_json()["methods"] == table.to_json()["methods"]
    assert len(list(Store(folder).records())) == 6


def test_what_is_not_settled_goes_on_to_the_last_seed_and_its_level(settled, bert, reviews_csv, tmp_path):
    folder, _, _ = settled
    plan = {**PLAN, "reuse": str(folder)}
    table = deltaproof.compare(model=bert, data=reviews_csv, out=tmp_path, margin=1e-6, **plan)
    look = table.experiment["look"]
    n_seeds = 3 if table.row("head").comparison.p_difference_holm <= FIRST.level and look["number"] == 1 else 6
    assert [len(row.keys) for row in table.rows] == [n_seeds, n_seeds]
    assert look["n_seeds"] == n_seeds
    assert look["level"] == (FIRST if n_seeds == 3 else SECOND).level


def test_a_plan_whose_first_look_has_too_few_seeds_is_refused(bert, reviews_csv, tmp_path):
    with pytest.raises(ConfigError, match=r"the first with at least 3 seeds, got 2 with 4 seeds in all"):
        deltaproof.compare(model=bert, data=reviews_csv, out=tmp_path, **{**PLAN, "seeds": 4})
