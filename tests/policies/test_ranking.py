from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.policies._ranking import highest, mean_ranks, random_order
from curator.rng import Noise, mix


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


def test_random_order_belongs_to_the_ids():
    ids = np.random.default_rng(0).permutation(100)[:30]
    shuffle = np.random.default_rng(1).permutation(30)
    noise = Noise(seed=0, step=0)

    order = random_order(ids, noise)
    other = random_order(ids[shuffle], noise)

    assert sorted(order.tolist()) == list(range(30))
    np.testing.assert_array_equal(ids[order], ids[shuffle][other])
    assert order.tolist() != random_order(ids, noise, chunk=1).tolist()


@settings(max_examples=60)
@given(st.lists(st.integers(-3, 3), max_size=20))
def test_mean_ranks_count_the_higher_and_half_of_the_equal(scores):
    ranks = mean_ranks(np.array(scores, np.float64))

    expected = [
        sum(other > score for other in scores) + (scores.count(score) + 1) / 2
        for score in scores
    ]
    np.testing.assert_array_equal(ranks, expected)
