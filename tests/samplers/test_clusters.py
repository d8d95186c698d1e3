import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.samplers._clusters import group_starts


def cost_of(losses, starts):
    """Returns the sum of squared distances to the means of groups."""
    group = np.searchsorted(starts, losses, side="right")
    exact = losses.astype(np.float64)
    return sum(
        ((exact[group == g] - exact[group == g].mean()) ** 2).sum()
        for g in np.unique(group)
    )


def least_cost(losses, num_groups):
    """The textbook dynamic programme, O(k n^2), one group after the other."""
    ordered = np.sort(losses).astype(np.float64)
    size = len(ordered)
    costs = np.full(size + 1, np.inf)
    costs[0] = 0
    within = np.zeros((size + 1, size + 1))
    for i in range(size):
        sums = np.cumsum(ordered[i:] - ordered[i])
        squares = np.cumsum((ordered[i:] - ordered[i]) ** 2)
        within[i, i + 1 :] = squares - sums**2 / np.arange(1, size - i + 1)
    for _ in range(num_groups):
        costs = np.array(
            [min(costs[: i + 1] + within[: i + 1, i]) for i in range(size + 1)]
        )
    return costs[-1]


@given(
    losses=st.lists(
        st.floats(-100, 100, width=32) | st.integers(0, 5).map(float),
        min_size=1,
        max_size=60,
    ),
    num_groups=st.integers(1, 8),
)
def test_groups_are_as_good_as_the_best(losses, num_groups):
    losses = np.array(losses, np.float32)
    starts = group_starts(losses, num_groups)

    assert cost_of(losses, starts) == pytest.approx(
        least_cost(losses, num_groups), rel=1e-9, abs=1e-7
    )
    assert starts[0] == losses.min()
    assert (np.diff(starts) > 0).all()
    assert len(starts) <= min(num_groups, len(np.unique(losses)))


@pytest.mark.parametrize("num_groups", [2, 5, 10])
@pytest.mark.parametrize("size", [7, 64, 65, 200])
def test_groups_of_skewed_losses_are_as_good_as_the_best(size, num_groups):
    losses = np.random.default_rng(size).standard_gamma(0.3, size).astype(np.float32)
    starts = group_starts(losses, num_groups)

    assert len(starts) == min(size, num_groups)
    assert cost_of(losses, starts) == pytest.approx(
        least_cost(losses, num_groups), rel=1e-9, abs=1e-12
    )


def test_losses_that_are_apart_are_grouped_as_they_are():
    losses = np.array([9, 0, 1, 5, 5.5, 0.5, 9.5, 10], np.float32)

    assert group_starts(losses, 3).tolist() == [0.0, 5.0, 9.0]


@pytest.mark.parametrize("value", [0.0, 3.0, np.log(10), 1e30])
def test_equal_losses_are_one_group(value):
    assert len(group_starts(np.full(50_000, value, np.float32), 5)) == 1


def test_fewer_values_than_groups_are_a_group_each():
    losses = np.array([2, 1, 2, 1, 7], np.float32)

    assert group_starts(losses, 5).tolist() == [1.0, 2.0, 7.0]


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_bins_cost_little_more_than_the_best(offset):
    losses = (np.random.default_rng(0).standard_gamma(0.5, 3000) + offset).astype("f4")
    binned = group_starts(losses, 5, max_points=400)
    best = cost_of(losses, group_starts(losses, 5))

    assert cost_of(losses, binned) <= best * 1.001
    assert cost_of(losses, binned) >= best * (1 - 1e-9)


@pytest.mark.parametrize("max_points", [400, 1 << 16])
@pytest.mark.parametrize("huge", [1e4, 1e20, 3e38, -1e20, -3e38])
def test_one_huge_loss_leaves_the_others_their_groups(huge, max_points):
    losses = np.random.default_rng(0).random(10_000).astype(np.float32)
    losses[17] = huge
    starts = group_starts(losses, 5, max_points)

    assert len(starts) == 5
    assert np.float32(huge) in starts
    others = starts[starts != np.float32(huge)]
    assert others == pytest.approx([0, 0.25, 0.5, 0.75], abs=0.03)


def test_many_copies_of_a_loss_are_in_one_group():
    losses = np.concatenate([np.full(9000, 1.5), np.linspace(0, 3, 5000)]).astype("f4")
    starts = group_starts(losses, 3, max_points=64)

    assert len(starts) == 3
    assert 1.5 in starts or not ((starts > 1.49) & (starts < 1.51)).any()


def test_a_million_losses_are_grouped():
    losses = np.random.default_rng(0).standard_gamma(2, 10**6).astype(np.float32)
    starts = group_starts(losses, 5)
    group = np.searchsorted(starts, losses, side="right")
    means = [losses[group == g].mean(dtype=np.float64) for g in range(1, 6)]

    # Lloyd's condition: each boundary is half-way between two means, up to a bin.
    halves = (np.array(means[1:]) + means[:-1]) / 2
    assert starts[1:] == pytest.approx(halves, abs=1e-3)
