"""Two masks hold a ternary vector, and multiply as the vector does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaproof.compression.codec import decode, encode
from deltaproof.compression.ternary import Masks
from deltaproof.errors import ConfigError

SIGNS = st.lists(st.sampled_from([-1, 0, 1]), max_size=400).map(lambda values: np.array(values, np.int8))


@settings(max_examples=200, deadline=None)
@given(SIGNS)
def test_masks_are_disjoint_take_two_bits_an_entry_and_come_back(signs):
    masks = Masks.of(signs, 0.5)
    assert masks.n_bytes == 2 * ((len(signs) + 7) // 8)
    assert not (masks.positive & masks.negative).any()
    assert np.array_equal(masks.signs(), signs)
    assert masks.n_kept == np.count_nonzero(signs)
    assert np.array_equal(Masks.of(decode(encode(signs))).signs(), signs)


@settings(max_examples=200, deadline=None)
@given(SIGNS, st.integers(0, 2**31))
def test_products_are_those_of_the_dense_vectors(signs, seed):
    other = np.random.default_rng(seed).integers(-1, 2, len(signs)).astype(np.int8)
    one, two = Masks.of(signs, 0.25), Masks.of(other, 3.0)
    dense = signs.astype(float) @ other.astype(float)
    assert one.agreement(two) == dense
    assert one.dot(two) == 0.75 * dense
    lengths = np.linalg.norm(signs) * np.linalg.norm(other)
    if lengths:
        assert one.cosine(two) == pytest.approx(dense / lengths)
    else:
        assert np.isnan(one.cosine(two))


def test_vectors_of_two_lengths_are_not_multiplied():
    with pytest.raises(ConfigError, match="must have one length to be multiplied, got 2 and 3"):
        Masks.of(np.ones(2, np.int8)).dot(Masks.of(np.ones(3, np.int8)))
