from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.policies._allocation import (
    capped_shares,
    first_of_groups,
    round_shares,
    water_fill,
)

positive = st.floats(1e-6, 1e6)


@st.composite
def shares_and_caps(draw):
    num = draw(st.integers(1, 8))
    shares = np.array(draw(st.lists(positive, min_size=num, max_size=num)))
    caps = np.array(draw(st.lists(st.integers(0, 9), min_size=num, max_size=num)))
    return shares, caps, draw(st.integers(0, int(caps.sum())))


def capped_by_bisection(shares, caps, total):
    """min(cap, level * share) for the level at which the sum is the total."""
    low, high = 0.0, 1.0 + max(caps / shares)
    for _ in range(200):
        middle = (low + high) / 2
        if np.minimum(caps, middle * shares).sum() < total:
            low = middle
        else:
            high = middle
    return np.minimum(caps, high * shares)


@settings(max_examples=100)
@given(shares_and_caps())
def test_capped_shares_are_those_of_one_level(case):
    shares, caps, total = case

    split = capped_shares(shares, caps.astype(float), float(total))

    np.testing.assert_allclose(
        split, capped_by_bisection(shares, caps, total), rtol=1e-7, atol=1e-7
    )
    assert (split <= caps).all()


@settings(max_examples=100)
@given(shares_and_caps(), st.integers(0, 99))
def test_whole_numbers_sum_up_and_are_within_one_of_their_share(case, seed):
    shares, caps, total = case
    split = capped_shares(shares, caps.astype(float), float(total))

    rng = np.random.default_rng(seed)
    counts = round_shares(split, total, rng.random(len(caps)), rng.random())

    assert counts.sum() == total
    assert ((counts >= 0) & (counts <= caps)).all()
    assert (np.abs(counts - split) < 1 + 1e-6).all()


def test_each_share_is_rounded_to_itself_in_the_mean():
    split = np.array([9.92, 5.76, 0.32])  # largest remainders up: never the third
    starts = (np.arange(1000) + 0.5) / 1000

    for order in itertools.permutations([0.1, 0.2, 0.3]):
        counts = [round_shares(split, 16, np.array(order), float(s)) for s in starts]
        np.testing.assert_allclose(np.mean(counts, axis=0), split, atol=2e-3)


def test_rounding_just_off_a_whole_number_changes_nothing():
    for shares in ([3 - 1e-12, 7 - 1e-12], [3 + 1e-12, 7 - 1e-12]):
        for start in (0.0, 0.5, 1 - 1e-9):
            counts = round_shares(np.array(shares), 10, np.array([0.1, 0.2]), start)
            assert counts.tolist() == [3, 7]


def fairest(sizes, total):
    """By exhaustive search: the allocation whose sorted counts are lexicographically
    largest, which is max-min fairness."""
    ranges = [range(min(size, total) + 1) for size in sizes]
    feasible = (found for found in itertools.product(*ranges) if sum(found) == total)
    return max(sorted(found) for found in feasible)


@settings(max_examples=100)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data())
def test_water_filling_is_the_fairest_of_all_allocations(sizes, data):
    total = data.draw(st.integers(0, sum(sizes)))
    ties = np.random.default_rng(0).random(len(sizes))

    counts = water_fill(np.array(sizes), total, ties)

    assert counts.sum() == total
    assert (counts <= sizes).all()
    assert sorted(counts.tolist()) == fairest(sizes, total)
    assert total < len(sizes) or (counts >= 1).all()


def test_odd_ones_go_to_the_highest_tie():
    counts = water_fill(np.array([5, 5, 5]), 7, np.array([0.2, 0.9, 0.1]))

    assert counts.tolist() == [2, 3, 2]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4), max_size=20), st.data())
def test_first_of_each_group_are_counted_off_in_order(groups, data):
    counts = [data.draw(st.integers(0, groups.count(group))) for group in range(5)]

    found = first_of_groups(np.array(groups, np.int64), np.array(counts))

    left, expected = list(counts), []
    for group in groups:
        expected.append(left[group] > 0)
        left[group] -= expected[-1]
    assert found.tolist() == expected
