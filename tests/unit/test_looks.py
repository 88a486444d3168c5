"""Levels of planned looks against published boundaries; that they hold is simulated in `tests/slow`."""

import pytest
from scipy.stats import norm

from deltaproof.errors import ConfigError
from deltaproof.looks import planned_looks, spent

PUBLISHED = {2: [2.157, 2.201], 3: [2.279, 2.295, 2.296]}
"""Boundaries of Pocock's spending function at even looks, two-sided 0.05. Source: Jennison and Turnbull, 2000, Group
Sequential Methods with Applications to Clinical Trials, ch. 7; also printed by the R package ldbounds."""


@pytest.mark.parametrize("n_looks", PUBLISHED)
def test_the_first_level_is_the_published_boundary_and_later_ones_are_stricter(n_looks):
    found = [norm.isf(look.level / 2) for look in planned_looks(6 * n_looks, n_looks, 0.05)]
    assert found[0] == pytest.approx(PUBLISHED[n_looks][0], abs=6e-4)
    assert all(ours > theirs for ours, theirs in zip(found[1:], PUBLISHED[n_looks][1:], strict=True))


def test_the_first_of_five_looks_spends_what_is_published_too():
    assert norm.isf(spent(0.05, 0.2) / 2) == pytest.approx(2.438, abs=6e-4)


@pytest.mark.parametrize(("n_seeds", "n_looks"), [(3, 1), (9, 3), (10, 3), (7, 2)])
def test_all_looks_together_spend_the_error_rate(n_seeds, n_looks):
    looks = planned_looks(n_seeds, n_looks, 0.05)
    assert sum(look.level for look in looks) == pytest.approx(0.05)
    assert looks[-1].n_seeds == n_seeds


def test_looks_come_at_even_distances():
    assert [look.n_seeds for look in planned_looks(10, 3, 0.05)] == [4, 7, 10]


@pytest.mark.parametrize(("n_seeds", "n_looks"), [(4, 2), (6, 3), (12, 4)])
def test_looks_with_too_few_seeds_are_refused(n_seeds, n_looks):
    with pytest.raises(
        ConfigError, match=rf"at least 3 seeds, got {n_looks} with {n_seeds} seeds in all; give `seeds = "
    ):
        planned_looks(n_seeds, n_looks, 0.05)
