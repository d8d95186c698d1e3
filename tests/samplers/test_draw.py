import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.samplers._draw import draw


@given(
    members=st.lists(st.booleans(), max_size=700),
    seed=st.integers(-(2**63), 2**63 - 1),
    data=st.data(),
)
def test_so_many_members_are_drawn(members, seed, data):
    members = np.array(members, np.bool_)
    num_drawn = data.draw(st.integers(0, int(members.sum())))
    drawn = draw(num_drawn, members, seed, "test", epoch=1)

    assert drawn.sum() == num_drawn
    assert not (drawn & ~members).any()


@pytest.mark.parametrize("size", [10_000, 300_000])
def test_exactly_so_many_of_a_large_pool_are_drawn(size):
    # Far more examples than keys, so that many are equal.
    members = np.arange(size) % 3 > 0
    for num_drawn in (0, 1, size // 7, int(members.sum()) - 1, int(members.sum())):
        drawn = draw(num_drawn, members, 0, "test", epoch=0)

        assert drawn.sum() == num_drawn
        assert not (drawn & ~members).any()


@pytest.mark.parametrize(("size", "num_drawn"), [(4, 2), (6, 3), (5, 1), (5, 4)])
def test_every_subset_is_as_likely(size, num_drawn):
    members = np.zeros(size + 2, np.bool_)
    members[1:-1] = True
    subsets = list(itertools.combinations(range(1, size + 1), num_drawn))
    counts = dict.fromkeys(subsets, 0)
    num_draws = 50 * len(subsets)
    for epoch in range(num_draws):
        drawn = draw(num_drawn, members, 0, "test", epoch=epoch)
        counts[tuple(np.flatnonzero(drawn).tolist())] += 1
    chi_square = sum((count - 50) ** 2 / 50 for count in counts.values())
    freedom = len(subsets) - 1

    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_examples_of_a_large_pool_are_drawn_alike_wherever_they_are():
    members = np.ones(100_000, np.bool_)
    drawn = np.sum(
        [draw(30_000, members, 0, "test", epoch=e) for e in range(50)], axis=0
    )
    parts = drawn.reshape(100, 1000).sum(1)
    # Of 50 draws of 1,000 examples each, at 0.3.
    variance = 50 * 1000 * 0.3 * 0.7 * (1 - 1000 / 100_000)

    assert abs(parts - 15_000).max() < 5 * np.sqrt(variance)
    assert drawn.var() == pytest.approx(50 * 0.3 * 0.7, rel=0.05)


def test_those_with_equal_keys_are_drawn_alike_wherever_they_are():
    # Of some ten examples with the least of 256 keys, one.
    members = np.ones(2560, np.bool_)
    first = [draw(1, members, 0, "test", epoch=e).argmax() for e in range(300)]

    assert abs(np.mean(first) - 1279.5) < 5 * 2560 / np.sqrt(12 * 300)


def test_draws_of_other_addresses_are_others():
    members = np.ones(1000, np.bool_)
    first = draw(500, members, 0, "test", epoch=0)

    assert np.array_equal(first, draw(500, members, 0, "test", epoch=0))
    for other in (
        draw(500, members, 1, "test", epoch=0),
        draw(500, members, 0, "other", epoch=0),
        draw(500, members, 0, "test", epoch=1),
    ):
        assert 400 < (first == other).sum() < 600


def test_draw_is_that_of_the_first_release():
    # A change here changes every session that is resumed.
    drawn = draw(5, np.ones(40, np.bool_), 0, "test", epoch=0)

    assert np.flatnonzero(drawn).tolist() == [24, 25, 26, 33, 39]
