"""Splits made here cover the rows once, keep units together, are stratified and repeatable."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from deltaproof.data.splits import THREE_WAYS, apportion, nested_sample, quantile_bins, row_keys, split_rows
from deltaproof.data.units import find_units

labelled_rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 25)), min_size=12, max_size=150)


def one_hot(classes):
    return np.asarray(classes)[:, None] == np.arange(max(classes) + 1)


def texts_of(n):
    return [(f"text number {i}",) for i in range(n)]


@settings(max_examples=150, deadline=None)
@given(labelled_rows, st.integers(0, 5))
def test_splits_cover_every_row_once_and_part_no_unit(rows, seed):
    classes, units = map(np.array, zip(*rows, strict=True))
    parts = split_rows(one_hot(classes), units, row_keys(texts_of(len(rows)), seed, "split"), THREE_WAYS)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(len(rows)))
    homes = {}
    for name, indices in parts.items():
        for unit in units[indices]:
            assert homes.setdefault(unit, name) == name


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=15, max_size=300), st.integers(0, 5))
def test_single_rows_are_stratified_to_rounding(classes, seed):
    present = one_hot(classes)
    parts = split_rows(present, np.arange(len(classes)), row_keys(texts_of(len(classes)), seed, "split"), THREE_WAYS)
    for column in present.T:
        for name, share in THREE_WAYS.items():
            n, wanted = column[parts[name]].sum(), share * column.sum()
            assert abs(n - wanted) <= 2 if column.sum() < 10 else abs(n - wanted) < 1
            assert n >= 1 or column.sum() < 3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=10, max_size=100), st.randoms(use_true_random=False))
def test_the_split_of_a_text_does_not_depend_on_the_order_of_the_file(classes, random):
    texts = texts_of(len(classes))

    def homes(order):
        parts = split_rows(
            one_hot([*(classes[i] for i in order), 2])[:-1],
            np.arange(len(order)),
            row_keys([texts[i] for i in order], 0, "split"),
            THREE_WAYS,
        )
        return {texts[order[i]]: name for name, indices in parts.items() for i in indices}

    shuffled = list(range(len(classes)))
    random.shuffle(shuffled)
    assert homes(list(range(len(classes)))) == homes(shuffled)


def test_shares_agree_with_scikit_learn_stratification():
    classes = np.repeat([0, 1, 2], [700, 200, 100])
    parts = split_rows(one_hot(classes), np.arange(1000), row_keys(texts_of(1000), 0, "split"), THREE_WAYS)
    rest, test = train_test_split(np.arange(1000), test_size=0.2, stratify=classes, random_state=0)
    train, validation = train_test_split(rest, test_size=0.125, stratify=classes[rest], random_state=0)
    for name, theirs in (("train", train), ("validation", validation), ("test", test)):
        np.testing.assert_array_equal(np.bincount(classes[parts[name]]), np.bincount(classes[theirs]))


def test_another_seed_gives_another_split():
    classes = [0, 1] * 50
    one, other = (
        split_rows(one_hot(classes), np.arange(100), row_keys(texts_of(100), seed, "split"), THREE_WAYS)
        for seed in (0, 1)
    )
    assert one["test"].tolist() != other["test"].tolist()


def test_groups_are_stratified_about_as_well_as_their_sizes_allow():
    random = np.random.default_rng(0)
    groups = random.integers(0, 120, 2000)
    classes = (random.random(2000) < 0.1 + 0.4 * (groups % 3 == 0)).astype(int)
    parts = split_rows(one_hot(classes), groups, row_keys(texts_of(2000), 0, "split"), THREE_WAYS)
    for name, share in THREE_WAYS.items():
        assert len(parts[name]) / 2000 == pytest.approx(share, abs=0.03)
        assert classes[parts[name]].mean() == pytest.approx(classes.mean(), abs=0.04)


def test_labels_of_a_multi_label_task_are_stratified_each():
    random = np.random.default_rng(0)
    present = random.random((1500, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]
    parts = split_rows(present, np.arange(1500), row_keys(texts_of(1500), 0, "split"), THREE_WAYS)
    for column in present.T:
        for name, share in THREE_WAYS.items():
            assert column[parts[name]].sum() == pytest.approx(
                share * column.sum(), abs=max(3, 0.25 * share * column.sum())
            )


def test_a_class_of_three_reaches_every_split():
    classes = [0] * 97 + [1] * 3
    parts = split_rows(one_hot(classes), np.arange(100), row_keys(texts_of(100), 0, "split"), THREE_WAYS)
    assert all(np.sum(np.array(classes)[indices]) == 1 for indices in parts.values())


@settings(max_examples=100)
@given(st.integers(0, 200), st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_apportioned_counts_add_up_and_keep_the_least(n, weights):
    counts = apportion(n, np.array(weights), np.ones(len(weights), dtype=int))
    assert counts.sum() == n
    assert counts.min() >= (1 if n >= len(weights) else 0)


def test_quantile_bins_hold_about_equally_many():
    values = np.random.default_rng(0).exponential(size=1000)
    assert quantile_bins(values).sum(axis=0).tolist() == [100] * 10
    assert quantile_bins(np.zeros(100)).sum(axis=1).tolist() == [1] * 100


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=10, max_size=200), st.data())
def test_a_smaller_sample_is_a_subset_of_a_larger_one_and_holds_every_class(classes, data):
    present, keys = one_hot(classes), row_keys(texts_of(len(classes)), 0, "sample")
    larger = data.draw(st.integers(4, len(classes)))
    smaller = data.draw(st.integers(4, larger))
    small, large = nested_sample(present, keys, smaller), nested_sample(present, keys, larger)
    assert (len(small), len(large)) == (smaller, larger)
    assert set(small) <= set(large)
    assert set(np.array(classes)[small]) == set(classes)


def test_a_sample_keeps_the_shares_of_the_classes():
    classes = np.repeat([0, 1, 2], [700, 200, 100])
    sample = nested_sample(one_hot(classes), row_keys(texts_of(1000), 0, "sample"), 100)
    np.testing.assert_allclose(np.bincount(classes[sample]), [70, 20, 10], atol=1)


def test_equal_texts_are_one_unit_and_tie_their_groups_together():
    texts = [("a",), ("b",), ("a",), ("c",), ("d",), ("e",), ("f",), ("g",)]
    alone, name = find_units(texts, None)
    assert name == "distinct texts"
    assert alone[0] == alone[2]
    assert len(set(alone)) == 7
    tied, name = find_units(texts, ["x", "x", "y", "z", "z", "u", "v", "w"])
    assert name == "groups"
    assert tied[0] == tied[1] == tied[2] != tied[3]


def test_a_text_that_every_group_has_does_not_tie_all_of_them():
    groups = [f"g{i}" for i in range(10) for _ in range(3)]
    texts = [("thanks",) if i % 3 == 0 else (f"t{i}",) for i in range(30)]
    units, _ = find_units(texts, groups)
    assert len(set(units)) == 10
