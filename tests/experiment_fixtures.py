"""Fixtures for tests of experiments; the `conftest.py` of a folder takes them."""

import importlib
import sys
from pathlib import Path

import pytest

from deltaproof.backbones import save_tiny
from deltaproof.methods import METHODS
from small import write_reviews

__all__ = ["_own_ledger", "bert", "own_methods", "reviews_csv"]


@pytest.fixture(scope="module", autouse=True)
def _own_ledger(tmp_path_factory):
    """One ledger of openings for a module, whose tests share experiments, in place of one for each test."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("DELTAPROOF_HOME", str(home))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield home


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A random BERT as a folder."""
    return save_tiny("bert", tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def reviews_csv(tmp_path_factory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv")


@pytest.fixture
def own_methods(monkeypatch):
    """The methods of `own_methods.py`, registered for one test."""
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    monkeypatch.delitem(sys.modules, "own_methods", raising=False)
    return importlib.import_module("own_methods")
