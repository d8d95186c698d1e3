from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.policies._ranking import highest
from curator.rng import mix


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_highest_is_a_full_sort_cut_short(data):
    # Few distinct values: ties, also across the cut.
    values = st.sampled_from([-np.inf, -1.0, 0.0, 0.5])
    keys = np.array(data.draw(st.lists(values, min_size=1, max_size=20)))
    ids = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(len(keys))
    num_wanted = data.draw(st.integers(0, len(keys)))

    found = highest(keys, ids, num_wanted)

    hashes = mix(ids.astype(np.uint64))
    expected = sorted(range(len(keys)), key=lambda i: (-keys[i], hashes[i]))
    assert found.tolist() == expected[:num_wanted]


def test_ties_follow_the_id_and_not_the_position():
    ids = np.arange(100)
    keys = np.zeros(100)

    found = highest(keys, ids, 10)
    reversed_found = ids[::-1][highest(keys, ids[::-1], 10)]

    np.testing.assert_array_equal(reversed_found, found)
    assert found.max() >= 50  # neither the first candidates nor the smallest ids


@pytest.mark.parametrize("num_wanted", [0, 3])
def test_positions_are_int64(num_wanted):
    assert highest(np.zeros(3), np.arange(3), num_wanted).dtype == np.int64
