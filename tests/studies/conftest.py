"""Fixtures that tests of studies share."""

import sys
from pathlib import Path

import pytest

from deltaproof import compare
from deltaproof.backbones import save_tiny
from experiment_fixtures import _own_ledger, bert, reviews_csv
from small import write_reviews

__all__ = ["_own_ledger", "bert", "kept_run", "reviews_csv"]

sys.path.append(str(Path(__file__).parents[1] / "report"))  # for studies invented there

METHODS = ("full", "lora(rank=2)", "bitfit", "prefix(length=2)")


@pytest.fixture(scope="session")
def kept_run(tmp_path_factory):
    """The folder of a small run that keeps everything: two seeds of methods that change weights and of one that does
    not. Tests that write into it copy it first."""
    home = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTAPROOF_HOME", str(home / "ledger"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        compare(model=str(save_tiny("bert", home / "bert")), data=str(write_reviews(home / "reviews.csv")),
                methods=list(METHODS), out=home / "run", seeds=2, trials=1, keep="all", baselines=False, max_length=24,
                training={"epochs": 1, "batch_size": 8}, learning_rates=[3e-3], precision="fp32",
                device="cpu")  # fmt: skip
    return home / "run"
