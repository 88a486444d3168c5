"""Contract suites that others can run on their own methods."""

from deltaproof.testing.bench import Bench
from deltaproof.testing.methods import CHECKS, check_method

__all__ = ["CHECKS", "Bench", "check_method"]
