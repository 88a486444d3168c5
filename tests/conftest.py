"""What many tests share: tiny models of every family, and the place of shared data."""

import gc
import os
from pathlib import Path

import pytest

LONG_FIRST = ("experiments", "cli", "studies", "parity", "contracts", "serving", "shipping", "merging", "unit")
"""Folders by how long their files take. A file goes to one worker, so that a long one at the end would run alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return LONG_FIRST.index(folder) if folder in LONG_FIRST else len(LONG_FIRST)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What libraries and tests have defined by now is never garbage. The end of each training asks for a collection,
    which would walk through all of it: half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def shared_data() -> Path:
    """The folder with local copies of public data; a test that asks for it is marked `shared_data`."""
    folder = os.environ.get("DELTAPROOF_SHARED_DATA")
    if not folder:
        pytest.skip("needs local copies of public data: set DELTAPROOF_SHARED_DATA")
    return Path(folder)


@pytest.fixture
def tiny_folder(tmp_path):
    """Writes a tiny base model of a family and gives its folder."""
    from deltaproof.backbones import save_tiny

    def write(family: str = "bert", **options) -> Path:
        return save_tiny(family, tmp_path / f"{family}-{len(list(tmp_path.iterdir()))}", **options)

    return write


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path_factory, monkeypatch):
    """Openings of test splits are entered in a ledger of the test's own, not in the user's."""
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path_factory.mktemp("home")))
