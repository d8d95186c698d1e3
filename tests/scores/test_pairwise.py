from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import random_embeddings, unit

from curator.scores import (
    PAIR_SCORES,
    JointScores,
    PairModel,
    PairScores,
    pair_models,
    usable_rows,
)
from curator.scores._pairwise import BLOCK_SIZE, Remaining
from curator.types import PairEmbeddings


def model_of(embeddings: PairEmbeddings, coefficient: float = 1.0) -> PairModel:
    return PairModel.of(embeddings, coefficient, np.arange(len(embeddings.queries)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_are_normalised_again_in_float32(dtype):
    embeddings = random_embeddings(np.random.default_rng(0), 50, dtype=dtype)
    stretched = dataclasses.replace(embeddings, queries=embeddings.queries * dtype(1.5))

    model = model_of(stretched)

    for side in (model.queries, model.targets):
        assert side.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(side, axis=1), 1, atol=1e-6)
    exact = unit(stretched.queries.astype(np.float64))
    np.testing.assert_allclose(model.queries, exact, atol=1e-6)


def test_only_the_rows_asked_for_are_kept_in_their_order():
    embeddings = random_embeddings(np.random.default_rng(0), 6)

    model = PairModel.of(embeddings, 1.0, np.array([4, 1]))

    np.testing.assert_allclose(model.queries, embeddings.queries[[4, 1]], rtol=1e-6)
    np.testing.assert_allclose(model.targets, embeddings.targets[[4, 1]], rtol=1e-6)


@pytest.mark.parametrize("side", ["queries", "targets"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_row_with_a_value_that_float32_cannot_hold_is_unusable(side, value):
    embeddings = random_embeddings(np.random.default_rng(0), 4, dtype=np.float64)
    getattr(embeddings, side)[2, 3] = value

    assert usable_rows(embeddings).tolist() == [True, True, False, True]


def test_row_of_length_zero_is_unusable():
    embeddings = random_embeddings(np.random.default_rng(0), 3)
    embeddings.targets[0] = 0

    assert usable_rows(embeddings).tolist() == [False, True, True]


@pytest.mark.parametrize("loss", PAIR_SCORES)
def test_joint_scores_keep_their_protocol(loss):
    models = [model_of(random_embeddings(np.random.default_rng(0), 9))]
    joint = PAIR_SCORES[loss](models)
    assert isinstance(joint, JointScores)
    assert isinstance(joint, PairScores)

    alone = joint.scores()
    kept = alone.copy()
    alone[:] = np.nan  # the caller owns what it is given
    joint.add(np.array([2, 5]))
    given_two = joint.scores()
    joint.add(np.array([0]))
    given_three = joint.scores()

    assert np.isfinite(given_three).all()
    np.testing.assert_array_equal(given_three[[2, 5]], kept[[2, 5]])
    assert given_three[0] == given_two[0]
    others = [1, 3, 4, 6, 7, 8]
    assert (given_two[others] != kept[others]).all()
    assert (given_three[others] != given_two[others]).all()


@pytest.mark.parametrize("loss", PAIR_SCORES)
def test_joint_scores_of_two_models_are_the_weighted_sum(loss):
    rng = np.random.default_rng(0)
    first, second = random_embeddings(rng, 20), random_embeddings(rng, 20, width=5)
    both = PAIR_SCORES[loss]([model_of(first, 2.0), model_of(second, -1.0)])
    single = [PAIR_SCORES[loss]([model_of(each)]) for each in (first, second)]

    for chunk in (np.array([1, 7]), np.array([3])):
        for joint in (both, *single):
            joint.add(chunk)

    others = np.setdiff1d(np.arange(20), [1, 7, 3])
    expected = 2 * single[0].scores() - single[1].scores()
    np.testing.assert_allclose(both.scores()[others], expected[others], atol=1e-12)


@pytest.mark.parametrize("loss", PAIR_SCORES)
def test_logits_of_ten_thousands_give_finite_scores(loss):
    embeddings = random_embeddings(np.random.default_rng(0), 600, scale=2e4)
    joint = PAIR_SCORES[loss]([model_of(embeddings)])

    joint.add(np.arange(300))

    assert np.isfinite(joint.scores()).all()
    assert np.ptp(joint.scores()) > 1e4


@pytest.mark.parametrize("loss", PAIR_SCORES)
def test_taking_rows_and_adding_them_is_adding_candidates(loss):
    rng = np.random.default_rng(0)
    learner, reference = random_embeddings(rng, 50), random_embeddings(rng, 50, width=3)
    whole, parts = (
        PAIR_SCORES[loss]([model_of(learner), model_of(reference, -1.0)])
        for _ in range(2)
    )
    order = rng.permutation(50)

    for chunk in np.split(order, [20, 21, 48]):
        rows = parts.take_rows(chunk)
        whole.add(chunk)
        parts.add_rows(rows)
        for found, embeddings in zip(rows, (learner, reference), strict=True):
            expected = embeddings.queries[chunk], embeddings.targets[chunk]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(parts.scores(), whole.scores())


@pytest.mark.parametrize("loss", PAIR_SCORES)
def test_examples_of_another_shard_score_like_own_ones(loss):
    embeddings = random_embeddings(np.random.default_rng(0), 40)
    whole = PAIR_SCORES[loss]([model_of(embeddings)])
    mine = PAIR_SCORES[loss]([PairModel.of(embeddings, 1.0, np.arange(25))])
    theirs = PAIR_SCORES[loss]([PairModel.of(embeddings, 1.0, np.arange(25, 40))])

    whole.add(np.arange(25, 33))
    mine.add_rows(theirs.take_rows(np.arange(8)))

    np.testing.assert_allclose(mine.scores(), whole.scores()[:25], rtol=1e-5, atol=1e-6)


@settings(max_examples=60)
@given(seed=st.integers(0, 999), num=st.integers(0, 30), stride=st.integers(1, 400))
def test_what_remains_stays_in_the_block_of_its_place(seed, num, stride):
    rng = np.random.default_rng(seed)
    names = np.arange(num, dtype=np.float32)[:, None]
    places = np.arange(num) * stride
    remaining = Remaining([PairModel(1.0, names, -names, 1.0, 0.0)], places)
    blocks = [block.tolist() for block in remaining.blocks]
    left = set(range(num))

    for chunk in np.array_split(rng.permutation(num), rng.integers(1, 5)):
        (rows,) = remaining.take(chunk)
        left -= set(chunk.tolist())
        assert rows[0, :, 0].tolist() == (-rows[1, :, 0]).tolist() == chunk.tolist()
        assert [block.tolist() for block in remaining.blocks] == [
            [candidate for candidate in block if candidate in left] for block in blocks
        ]

    of_candidates = [
        {place // BLOCK_SIZE for place in places[block]} for block in blocks
    ]
    assert all(len(of_block) == 1 for of_block in of_candidates if of_block)
    assert len(set().union(*of_candidates)) == len(blocks) or num == 0


def test_models_keep_only_rows_that_all_can_use():
    rng = np.random.default_rng(0)
    first, second = random_embeddings(rng, 6), random_embeddings(rng, 6)
    first.queries[1] = np.nan
    second.targets[4] = 0

    order = np.arange(6)[::-1]
    places, models = pair_models([(1.0, first), (-1.0, second)], order)

    assert places.tolist() == [0, 2, 3, 5]
    rows = order[places]
    for model, embeddings in zip(models, (first, second), strict=True):
        np.testing.assert_allclose(model.queries, embeddings.queries[rows], rtol=1e-5)
        np.testing.assert_allclose(model.targets, embeddings.targets[rows], rtol=1e-5)
