"""Statistical tests use fixed seeds, so that they pass or fail for good.

Bounds are five standard deviations: a sound permutation misses one in 10^6 of them.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.samplers import Permutation
from curator.samplers._permutation import _permute, _unpermute

FIRST_NETWORK = (1 << 16) + 1  # the smallest pool that is not a table
NUM_EPOCHS = 50


def whole(num_examples, seed=0, epoch=0):
    return Permutation(num_examples, seed, epoch).at(np.arange(num_examples))


@pytest.fixture(
    scope="module", params=[1 << 16, FIRST_NETWORK], ids=["table", "network"]
)
def epochs(request):
    """Some epochs of a pool, one per row."""
    return np.stack([whole(request.param, 7, epoch) for epoch in range(NUM_EPOCHS)])


def deviations(statistic, mean, variance):
    """Returns how many standard deviations from its mean the mean of a statistic is."""
    return (np.mean(statistic) - mean) / np.sqrt(variance / np.size(statistic))


def chi_square(rows, columns, num_buckets):
    """Returns the normalised chi-square of two arrays being independent."""
    cells = np.bincount(rows * num_buckets + columns, minlength=num_buckets**2)
    table = cells.reshape(num_buckets, num_buckets)
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    freedom = (num_buckets - 1) ** 2
    return (((table - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


# -- exactly a permutation


def test_every_small_pool_is_permuted():
    for num_examples in range(1, 2001):
        ids = whole(num_examples, seed=num_examples)

        assert np.array_equal(np.sort(ids), np.arange(num_examples))


@pytest.mark.parametrize(
    "num_examples",
    [
        *range((1 << 16) - 2, (1 << 16) + 40),
        257 * 257 - 1,
        257 * 257,
        257 * 257 + 1,
        257 * 258,
        *((1 << 17) + d for d in (-1, 0, 1)),
        *((1 << 20) + d for d in (-1, 0, 1)),
        10**6,
    ],
)
def test_every_large_pool_is_permuted(num_examples):
    ids = whole(num_examples)

    assert ids.dtype == np.int64
    assert (np.bincount(ids, minlength=num_examples) == 1).all()
    assert len(ids) == num_examples


@given(
    num_examples=st.integers(FIRST_NETWORK, 1 << 48)
    | st.integers(17, 48).flatmap(lambda k: st.integers((1 << k) - 3, (1 << k) + 3))
    | st.just(10**12),
    seed=st.integers(-(2**63), 2**63 - 1),
    epoch=st.integers(0, 10**6),
    data=st.data(),
)
def test_any_window_of_a_huge_pool_has_no_repeats(num_examples, seed, epoch, data):
    num_examples = min(num_examples, 1 << 48)
    start = data.draw(st.integers(0, num_examples - 5000))

    ids = Permutation(num_examples, seed, epoch).at(np.arange(start, start + 5000))

    assert len(np.unique(ids)) == 5000
    assert 0 <= ids.min() <= ids.max() < num_examples


@given(
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    keys=st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8),
)
def test_network_is_a_bijection_for_any_sides_and_keys(sides, keys):
    a, b = sides
    values = np.arange(a * b, dtype=np.uint64)

    permuted = _permute(
        values, (np.uint64(a), np.uint64(b)), [np.uint64(key) for key in keys]
    )

    assert np.array_equal(np.sort(permuted), values)


@pytest.mark.parametrize("num_examples", [1000, 70_000, 10**9])
def test_a_position_has_its_id_whatever_it_is_asked_with(num_examples):
    permutation = Permutation(num_examples, 3, 2)
    positions = np.random.default_rng(0).integers(0, num_examples, 30_000)

    ids = permutation.at(positions)

    assert np.array_equal(permutation.at(positions[::-1]), ids[::-1])
    assert np.array_equal(permutation.at(positions[:1]), ids[:1])
    assert len(permutation.at(positions[:0])) == 0


def test_ids_are_those_of_the_first_release():
    # A change here changes every session that is resumed.
    assert Permutation(1000, 0, 0).at(np.arange(5)).tolist() == [237, 91, 931, 43, 552]
    assert Permutation(10**12, 0, 0).at(np.arange(3)).tolist() == [
        442220108347,
        491869052170,
        485189303325,
    ]


@pytest.mark.parametrize("num_examples", [0, -1, 2**48 + 1])
def test_size_out_of_range_is_refused(num_examples):
    with pytest.raises(ValueError, match=rf"in \[1, 2\*\*48\]; got {num_examples}"):
        Permutation(num_examples, 0, 0)


@pytest.mark.parametrize("num_examples", [100, 10**6])
def test_position_out_of_range_is_refused(num_examples):
    permutation = Permutation(num_examples, 0, 0)

    with pytest.raises(
        ValueError, match=rf"in \[0, {num_examples}\); got some from -1"
    ):
        permutation.at(np.array([-1, 3]))
    with pytest.raises(ValueError, match=rf"got some from 3 to {num_examples}"):
        permutation.at(np.array([3, num_examples]))


# -- as good as a random one


@pytest.mark.parametrize("num_buckets", [8, 64, 200])
def test_ids_do_not_depend_on_positions(epochs, num_buckets):
    size = epochs.shape[1]
    position = np.broadcast_to(np.arange(size) * num_buckets // size, epochs.shape)
    bucket = epochs * num_buckets // size
    every = [
        chi_square(p, i, num_buckets) for p, i in zip(position, bucket, strict=True)
    ]
    together = chi_square(position.ravel(), bucket.ravel(), num_buckets)

    assert abs(deviations(every, 0, 1)) < 5
    assert 0.5 < np.std(every) < 1.5
    assert abs(together) < 5


def test_low_bits_of_ids_do_not_depend_on_those_of_positions(epochs):
    position = np.broadcast_to(np.arange(epochs.shape[1]) % 16, epochs.shape)

    assert abs(chi_square(position.ravel(), epochs.ravel() % 16, 16)) < 5


@pytest.mark.parametrize("lag", [1, 2, 256, 257])
def test_neighbours_are_not_correlated(epochs, lag):
    size = epochs.shape[1]
    every = [np.corrcoef(ids[:-lag], ids[lag:])[0, 1] * np.sqrt(size) for ids in epochs]

    assert abs(deviations(every, 0, 1)) < 5


def test_neighbours_follow_each_other_as_often_as_by_chance(epochs):
    steps = np.diff(epochs, axis=1)

    assert abs(deviations((steps == 1).sum(1), 1, 1)) < 5
    assert abs(deviations((steps == -1).sum(1), 1, 1)) < 5


def test_examples_stay_in_place_as_often_as_by_chance(epochs):
    fixed = (epochs == np.arange(epochs.shape[1])).sum(1)

    assert abs(deviations(fixed, 1, 1)) < 5
    assert 0.4 < np.var(fixed) < 1.9


def test_epochs_are_independent(epochs):
    size = epochs.shape[1]
    one, next_one = epochs[:-1], epochs[1:]
    every = [
        np.corrcoef(a, b)[0, 1] * np.sqrt(size)
        for a, b in zip(one, next_one, strict=True)
    ]

    assert abs(deviations(every, 0, 1)) < 5
    assert abs(deviations((one == next_one).sum(1), 1, 1)) < 5
    together = chi_square(one.ravel() * 16 // size, next_one.ravel() * 16 // size, 16)
    assert abs(together) < 5


@pytest.mark.parametrize("size", [1 << 16, FIRST_NETWORK])
def test_seeds_are_independent(size):
    seeds = [whole(size, seed) for seed in range(40)]
    pairs = list(itertools.pairwise(seeds))
    every = [np.corrcoef(a, b)[0, 1] * np.sqrt(size) for a, b in pairs]

    assert abs(deviations(every, 0, 1)) < 5
    assert abs(deviations([(a == b).sum() for a, b in pairs], 1, 1)) < 5


def test_every_order_of_a_tiny_pool_comes_as_often():
    counts = np.zeros((4, 4, 4))
    for epoch in range(2400):
        counts[tuple(whole(4, 0, epoch)[:3])] += 1

    seen = counts[counts > 0]
    assert len(seen) == 24
    assert ((seen - 100) ** 2 / 100).sum() < 23 + 5 * np.sqrt(2 * 23)


# -- and back


@pytest.mark.parametrize(
    "num_examples",
    [1, 2, 1000, FIRST_NETWORK - 1, FIRST_NETWORK, 257 * 258, 10**6, 10**12, 2**48],
)
@pytest.mark.parametrize("seed", [0, -5])
def test_positions_are_where_the_ids_are(num_examples, seed):
    permutation = Permutation(num_examples, seed, 3)
    positions = np.linspace(0, num_examples - 1, 20_000).astype(np.int64)

    assert np.array_equal(permutation.positions(permutation.at(positions)), positions)
    assert np.array_equal(permutation.at(permutation.positions(positions)), positions)


@given(
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    keys=st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8),
)
def test_network_can_be_run_back_for_any_sides_and_keys(sides, keys):
    network = (np.uint64(sides[0]), np.uint64(sides[1])), [np.uint64(k) for k in keys]
    values = np.arange(sides[0] * sides[1], dtype=np.uint64)

    assert np.array_equal(_unpermute(_permute(values, *network), *network), values)


@pytest.mark.parametrize("num_examples", [100, 10**6])
def test_id_out_of_range_is_refused(num_examples):
    message = (
        rf"ids must be in \[0, {num_examples}\); got some from 3 to {num_examples}"
    )
    with pytest.raises(ValueError, match=message):
        Permutation(num_examples, 0, 0).positions(np.array([3, num_examples]))
