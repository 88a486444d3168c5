"""Fixtures of experiments, and updates held in memory."""

from experiment_fixtures import _own_ledger, bert, own_methods, reviews_csv

__all__ = ["_own_ledger", "bert", "own_methods", "reviews_csv"]
