"""Every example in a docstring says what the code does."""

import doctest
import importlib
import pkgutil

import pytest

import deltaproof

MODULES = [module.name for module in pkgutil.walk_packages(deltaproof.__path__, "deltaproof.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("preload")])
def test_examples_in_docstrings_hold(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples in {name}"
