"""Folders that peft and transformers wrote, and run folders, for tests of shipping."""

import pytest

from by_hand_folders import TARGETS, Made, by_hand
from deltaproof.backbones import save_tiny
from experiment_fixtures import _own_ledger

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
