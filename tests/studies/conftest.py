"""Fixtures that tests of studies share."""

from experiment_fixtures import _own_ledger, bert, reviews_csv

__all__ = ["_own_ledger", "bert", "reviews_csv"]
