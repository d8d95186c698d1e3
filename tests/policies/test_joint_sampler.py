"""The joint sampler on matrices of any kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import DenseScores, joint_score

from curator.policies._joint import chunk_sizes, draw_jointly
from curator.rng import Noise

NOISE = Noise(seed=0, step=0)


def draw(matrix, sizes, *, noise=NOISE, temperature=1.0):
    ids = np.arange(len(matrix))
    return draw_jointly(DenseScores(matrix), ids, sizes, temperature, noise)


def random_matrix(seed, num):
    return np.random.default_rng(seed).standard_normal((num, num))


@settings(max_examples=100, deadline=None)
@given(num_drawn=st.integers(0, 300), num_chunks=st.integers(1, 40))
def test_sizes_are_near_equal_positive_and_complete(num_drawn, num_chunks):
    sizes = chunk_sizes(num_drawn, num_chunks)

    assert sum(sizes) == num_drawn
    assert len(sizes) == min(num_chunks, num_drawn)
    assert sizes == sorted(sizes, reverse=True)
    if sizes:
        assert 1 <= sizes[-1] <= sizes[0] <= sizes[-1] + 1


class Recorded(DenseScores):
    """Remembers the scores given each chunk, and the chunks."""

    def __init__(self, matrix):
        super().__init__(matrix)
        self.chunks = []

    def add(self, chunk):
        self.chunks.append(chunk)
        super().add(chunk)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_drawn_scores_telescope_to_the_score_of_the_batch(data):
    num = data.draw(st.integers(1, 12))
    num_drawn = data.draw(st.integers(1, num))
    sizes = chunk_sizes(num_drawn, data.draw(st.integers(1, num_drawn)))
    matrix = random_matrix(data.draw(st.integers(0, 999)), num)
    joint = Recorded(matrix)

    drawn = draw_jointly(joint, np.arange(num), sizes, 1.0, NOISE)

    last = drawn[sum(sizes[:-1]) :]
    within_chunks = sum(
        joint_score(matrix, chunk) - matrix.diagonal()[chunk].sum()
        for chunk in [*joint.chunks, last]
    )
    total = joint.scores()[drawn].sum() + within_chunks
    assert total == pytest.approx(joint_score(matrix, drawn), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), num_chunks=st.integers(1, 8))
def test_transposing_the_matrix_changes_nothing(seed, num_chunks):
    matrix = random_matrix(seed, 20)
    sizes = chunk_sizes(8, num_chunks)

    np.testing.assert_array_equal(draw(matrix.T, sizes), draw(matrix, sizes))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 999),
    diagonal=st.floats(-50, 50),
    off_diagonal=st.floats(-50, 50),
)
def test_adding_constants_changes_nothing(seed, diagonal, off_diagonal):
    matrix = random_matrix(seed, 20)
    sizes = [3, 3, 2]
    shifted = matrix + off_diagonal
    np.fill_diagonal(shifted, matrix.diagonal() + diagonal)

    np.testing.assert_array_equal(draw(shifted, sizes), draw(matrix, sizes))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), temperature=st.floats(0.05, 20))
def test_temperature_divides_the_scores(seed, temperature):
    matrix = random_matrix(seed, 20)
    sizes = [3, 3, 2]

    warm = draw(matrix, sizes, temperature=temperature)

    np.testing.assert_array_equal(warm, draw(matrix / temperature, sizes))


def test_temperature_zero_takes_the_highest_whatever_the_noise():
    matrix = random_matrix(0, 30)
    chosen: list[int] = []
    for _ in range(6):  # by definition: one at a time, the best given those before
        scores = {
            i: joint_score(matrix, np.array([*chosen, i]))
            for i in range(30)
            if i not in chosen
        }
        chosen.append(max(scores, key=scores.__getitem__))

    for seed in range(3):
        drawn = draw(matrix, [1] * 6, noise=Noise(seed=seed, step=0), temperature=0.0)
        assert drawn.tolist() == chosen


def test_temperature_zero_breaks_ties_by_id():
    ids = np.arange(50)
    matrix = np.zeros((50, 50))

    forwards = draw_jointly(DenseScores(matrix), ids, [4, 4], 0.0, NOISE)
    backwards = draw_jointly(DenseScores(matrix), ids[::-1], [4, 4], 0.0, NOISE)

    np.testing.assert_array_equal(ids[::-1][backwards], ids[forwards])
    assert forwards.max() >= 8


def test_candidates_whose_bounds_are_too_low_are_never_settled():
    matrix = random_matrix(0, 400)
    joint = DenseScores(matrix)

    draw_jointly(joint, np.arange(400), [5, 5, 5, 5], 1.0, NOISE)

    assert 15 <= joint.num_settled < 300  # of 390, 395 and 385 that could be drawn


def test_scores_beyond_the_range_of_exp_are_drawn_from():
    # Drawing from probabilities fails here: all but one underflow to zero.
    matrix = np.diag(np.linspace(-1e4, 1e4, 40))

    drawn = draw(matrix, [10, 10])

    assert sorted(drawn) == list(range(20, 40))


@pytest.mark.parametrize("num_shards", [1, 2, 4])
def test_shards_that_merge_their_highest_draw_the_same(num_shards):
    # Each shard holds some candidates, makes their noise, offers its highest.
    num, sizes = 40, [5, 5, 4]
    ids = np.random.default_rng(0).permutation(1000)[:num]
    matrix = random_matrix(1, num)
    shards = np.array_split(np.random.default_rng(2).permutation(num), num_shards)
    joint = DenseScores(matrix)
    merged: list[int] = []
    for chunk, size in enumerate(sizes):
        offers: list[tuple[float, int]] = []
        for shard in shards:
            left = np.setdiff1d(shard, merged)
            keys = joint.scores()[left] + NOISE.gumbel(ids[left], chunk=chunk)
            best = np.argsort(-keys)[:size]
            offers.extend(zip(keys[best], left[best], strict=True))
        drawn = [candidate for _, candidate in sorted(offers, reverse=True)[:size]]
        joint.add(np.array(drawn))
        merged.extend(drawn)

    whole = draw_jointly(DenseScores(matrix), ids, sizes, 1.0, NOISE)

    assert whole.tolist() == merged
