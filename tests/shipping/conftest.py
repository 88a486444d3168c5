"""Folders that peft and transformers wrote, and run folders, for tests of shipping."""

from pathlib import Path

import pytest

from by_hand_folders import TARGETS, Made, by_hand
from deltaproof import compare
from deltaproof.backbones import save_tiny
from experiment_fixtures import _own_ledger
from small import write_reviews

__all__ = ["_own_ledger"]


@pytest.fixture(scope="session")
def made_by_hand(tmp_path_factory):
    """Of a few families; tests that break something copy it first."""
    found = {}
    for family in TARGETS:
        root = tmp_path_factory.mktemp(family)
        found[family] = by_hand(save_tiny(family, root / "base"), family, root)
    return found


@pytest.fixture
def made(made_by_hand, tmp_path) -> Made:
    """The BERT, to be broken."""
    return made_by_hand["bert"].copied(tmp_path)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """A small run that keeps every tuned model. Tests that write into it copy it first."""
    home = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTAPROOF_HOME", str(home / "ledger"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        compare(model=str(save_tiny("bert", home / "bert")), data=str(write_reviews(home / "reviews.csv")),
                methods=["full", "lora(rank=2)", "prefix(length=2)", "head"], out=home / "run", seeds=1, trials=1,
                keep="all", baselines=False, max_length=24, training={"epochs": 1, "batch_size": 8},
                learning_rates=[3e-3], precision="fp32", device="cpu")  # fmt: skip
    return home / "run"
