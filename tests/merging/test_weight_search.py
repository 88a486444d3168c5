"""Weights are found where they were planted, within the budget, and nothing is evaluated twice."""

import numpy as np
import pytest

from deltaproof.merging.search import LORAHUB_BOUND, Tried, bounded_search, coordinate_search


def counted(value):
    asked = []

    def evaluate(weights):
        asked.append(weights)
        return Tried(weights, value(np.array(weights)), 0.0)

    return evaluate, asked


def best(tried):
    return max(tried, key=lambda one: one.rank)


def test_each_weight_is_moved_to_where_it_scores_best():
    evaluate, asked = counted(lambda w: -float(((w - np.array([0.9, 0.3, -0.1])) ** 2).sum()))
    tried = coordinate_search(evaluate, 3, 80)
    np.testing.assert_allclose(best(tried).weights, [0.9, 0.3, -0.1], atol=0.051)
    assert len(asked) == len(set(asked)) == len(tried) <= 80


def test_a_common_scale_comes_first():
    evaluate, asked = counted(lambda w: -abs(float(w.sum()) - 0.6))
    coordinate_search(evaluate, 2, 6)
    assert all(first == second for first, second in asked)
    assert (0.3, 0.3) in asked


def test_equal_scores_are_decided_by_the_loss():
    tried = coordinate_search(lambda w: Tried(w, 1.0, (w[0] - 0.5) ** 2), 1, 12)
    assert best(tried).weights == (0.5,)


@pytest.mark.parametrize("search", [coordinate_search, bounded_search])
def test_the_budget_holds(search):
    evaluate, asked = counted(lambda w: float(np.sin(5 * w).sum()))
    search(evaluate, 4, 9)
    assert 0 < len(asked) <= 9


@pytest.mark.parametrize("search", [coordinate_search, bounded_search])
def test_what_is_known_is_not_evaluated_again(search):
    evaluate, _ = counted(lambda w: -float(((w - 0.4) ** 2).sum()))
    whole = search(evaluate, 2, 20)
    evaluate, asked = counted(lambda w: -float(((w - 0.4) ** 2).sum()))
    again = search(evaluate, 2, 20, known=whole[:12])
    assert again == whole
    assert not set(asked) & {one.weights for one in whole[:12]}


def test_few_shot_weights_start_at_zero_stay_within_bounds_and_find_the_optimum():
    evaluate, asked = counted(lambda w: -float(((w - np.array([1.2, 0.0, -0.7])) ** 2).sum()))
    tried = bounded_search(evaluate, 3, 60)
    assert asked[0] == (0.0, 0.0, 0.0)
    assert np.abs(asked).max() <= LORAHUB_BOUND
    np.testing.assert_allclose(best(tried).weights, [1.2, 0.0, -0.7], atol=0.05)
    evaluate, asked = counted(lambda w: float(w.sum()))
    np.testing.assert_allclose(best(bounded_search(evaluate, 2, 40)).weights, [1.5, 1.5], atol=0.05)
