"""Fixtures that tests of experiments share."""

from experiment_fixtures import bert, _own_ledger, own_methods, reviews_csv

__all__ = ["bert", "_own_ledger", "own_methods", "reviews_csv"]
