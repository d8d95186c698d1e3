import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.samplers import Permutation
from curator.samplers._rounds import Rounds


def rounds(num_examples, size, seed=0, *, replace=False):
    return Rounds(num_examples, size, seed, replace)


def ids_of(rounds_, epoch):
    return rounds_.at(epoch, np.arange(rounds_.size))


def check_use(rounds_, num_rounds):
    """Checks that no round has repeats, and uses differ by one at most after each."""
    uses = np.zeros(rounds_.num_examples, np.int64)
    for epoch in range(num_rounds):
        ids = ids_of(rounds_, epoch)
        assert len(np.unique(ids)) == rounds_.size
        uses[ids] += 1
        assert uses.max() - uses.min() <= 1


def test_every_size_of_every_small_pool_is_used_equally():
    for num_examples in range(1, 10):
        for size in range(1, num_examples + 1):
            check_use(rounds(num_examples, size, seed=size), 2 * num_examples)


@settings(max_examples=40)
@given(
    num_examples=st.integers(1, 300),
    seed=st.integers(-(2**63), 2**63 - 1),
    data=st.data(),
)
def test_all_examples_are_used_equally_often(num_examples, seed, data):
    size = data.draw(st.integers(1, num_examples))

    check_use(rounds(num_examples, size, seed), 15)


@pytest.mark.parametrize("size", [7_000, 33_333, 35_001, 60_000])
def test_large_pool_is_used_equally_often(size):
    check_use(rounds(70_001, size), 12)


def test_far_round_of_a_huge_pool_is_found_at_once():
    wrapping = next(
        epoch
        for epoch in itertools.count(10**9)
        if epoch * (10**11 + 3) // 10**12 < ((epoch + 1) * (10**11 + 3) - 1) // 10**12
    )
    positions = np.linspace(0, 10**11 + 2, 5000).astype(np.int64)
    ids = rounds(10**12, 10**11 + 3).at(wrapping, positions)

    assert len(np.unique(ids)) == 5000
    assert 0 <= ids.min() <= ids.max() < 10**12


@pytest.mark.parametrize("size", [30, 45, 70])
def test_part_of_a_round_is_that_part(size):
    for epoch in range(12):
        whole = ids_of(rounds(101, size), epoch)
        for start, stop in ((0, 3), (10, 29), (size - 1, size)):
            part = rounds(101, size).at(epoch, np.arange(start, stop))
            assert np.array_equal(part, whole[start:stop])


def test_rounds_that_fit_are_slices_of_permutations():
    for epoch in range(9):
        cycle, start = divmod(epoch * 30, 90)
        order = Permutation(90, 0, cycle).at(np.arange(start, start + 30))
        assert np.array_equal(ids_of(rounds(90, 30), epoch), order)


@pytest.mark.parametrize("epoch", [2, 3])
@pytest.mark.parametrize("size", [2, 3])
def test_every_round_is_any_subset_as_likely(size, epoch):
    # Over seeds. Round 2 goes on into the next cycle, or leaves out what does.
    subsets = {s: i for i, s in enumerate(itertools.combinations(range(5), size))}
    counts = np.zeros(10)
    for seed in range(400):
        ids = np.sort(ids_of(rounds(5, size, seed), epoch))
        counts[subsets[tuple(ids.tolist())]] += 1
    chi_square = ((counts - 40) ** 2 / 40).sum()

    assert abs(chi_square - 9) < 5 * np.sqrt(2 * 9)


@pytest.mark.parametrize("size", [30, 45, 70, 99])
def test_order_in_a_round_is_random(size):
    whole = [ids_of(rounds(101, size, seed), seed % 12) for seed in range(300)]
    ids, positions = np.concatenate(whole), np.tile(np.arange(size), 300)

    assert abs(np.corrcoef(ids, positions)[0, 1]) * np.sqrt(len(ids)) < 5


@pytest.mark.parametrize("size", [40, 60])
def test_rounds_of_other_cycles_share_as_many_as_by_chance(size):
    shared = []
    for seed in range(40):
        sets = [set(ids_of(rounds(101, size, seed), e).tolist()) for e in range(13)]
        shared += [len(sets[e] & sets[e + 8]) for e in range(5)]
    expected = size**2 / 101
    variance = size**2 / 101 * (1 - size / 101) ** 2 * 101 / 100

    assert abs(np.mean(shared) - expected) < 5 * np.sqrt(variance / len(shared) * 3)
    assert np.var(shared) == pytest.approx(variance, rel=0.5)


def test_rounds_with_replacement_are_independent_and_uniform():
    independent = rounds(101, 30, replace=True)
    uses = np.zeros(101)
    for epoch in range(1000):
        ids = ids_of(independent, epoch)
        assert len(np.unique(ids)) == 30
        uses[ids] += 1
    # Draws without replacement inside a round: less variance than a binomial's.
    chi_square = ((uses - 300 / 1.01) ** 2 / (300 / 1.01)).sum() / (1 - 30 / 101)

    assert abs(chi_square - 100) < 5 * np.sqrt(200)
    assert uses.max() - uses.min() > 1
