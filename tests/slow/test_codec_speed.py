"""The code of ternary vectors is fast enough that loading a small file is no slower than fetching a large one."""

import time

import numpy as np
import pytest

from deltaproof.compression.codec import decode, encode


@pytest.mark.slow
def test_twenty_million_values_take_less_than_a_second_each_way():
    """By processor time, so that what else the machine does counts little; the least of three."""
    draw = np.random.default_rng(0)
    n_values = 20_000_000
    signs = np.where(draw.random(n_values, np.float32) < 0.5, np.int8(-1), np.int8(1))
    signs *= draw.random(n_values, np.float32) < 0.2
    writing, reading = [], []
    for _ in range(3):
        started = time.process_time()
        code = encode(signs)
        written = time.process_time()
        found = decode(code)
        reading.append(time.process_time() - written)
        writing.append(written - started)
    assert np.array_equal(found, signs)
    assert min(writing) < 1
    assert min(reading) < 1
