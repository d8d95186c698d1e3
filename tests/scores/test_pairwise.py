from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import (
    all_scores,
    random_embeddings,
    unit,
)

from curator.scores import (
    PAIR_COSTS,
    JointScores,
    PairModel,
    PairScores,
    _joint,
    pair_models,
    usable_rows,
)
from curator.types import PairEmbeddings

pytestmark = pytest.mark.usefixtures("costs_of_few_candidates_wait")
SMALL_BLOCK = 50


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


@pytest.mark.parametrize("loss", PAIR_COSTS)
def test_joint_scores_keep_their_protocol(loss):
    models = [model_of(random_embeddings(np.random.default_rng(0), 9))]
    joint = PairScores(loss, models)
    assert isinstance(joint, JointScores)

    alone = joint.bounds()
    kept = alone.copy()
    alone[:] = np.nan  # the caller owns what it is given
    joint.add(np.array([2, 5]))
    given_two = all_scores(joint)
    joint.add(np.array([0]))
    given_three = all_scores(joint)

    assert np.isfinite(given_three).all()
    np.testing.assert_array_equal(given_three[[2, 5]], kept[[2, 5]])
    assert given_three[0] == given_two[0]
    others = [1, 3, 4, 6, 7, 8]
    assert (given_two[others] != kept[others]).all()
    assert (given_three[others] != given_two[others]).all()


@pytest.mark.parametrize("loss", PAIR_COSTS)
def test_joint_scores_of_two_models_are_the_weighted_sum(loss):
    rng = np.random.default_rng(0)
    first, second = random_embeddings(rng, 20), random_embeddings(rng, 20, width=5)
    both = PairScores(loss, [model_of(first, 2.0), model_of(second, -1.0)])
    single = [PairScores(loss, [model_of(each)]) for each in (first, second)]

    for chunk in (np.array([1, 7]), np.array([3])):
        for joint in (both, *single):
            joint.add(chunk)

    others = np.setdiff1d(np.arange(20), [1, 7, 3])
    expected = 2 * all_scores(single[0]) - all_scores(single[1])
    np.testing.assert_allclose(all_scores(both)[others], expected[others], atol=1e-12)


@pytest.mark.parametrize("loss", PAIR_COSTS)
def test_logits_of_ten_thousands_give_finite_scores(loss):
    embeddings = random_embeddings(np.random.default_rng(0), 600, scale=2e4)
    joint = PairScores(loss, [model_of(embeddings)])

    joint.add(np.arange(300))

    assert np.isfinite(all_scores(joint)).all()
    assert np.ptp(all_scores(joint)) > 1e4


@pytest.mark.parametrize("loss", PAIR_COSTS)
def test_taking_rows_and_adding_them_is_adding_candidates(loss):
    rng = np.random.default_rng(0)
    learner, reference = random_embeddings(rng, 50), random_embeddings(rng, 50, width=3)
    whole, parts = (
        PairScores(loss, [model_of(learner), model_of(reference, -1.0)])
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
        np.testing.assert_array_equal(all_scores(parts), all_scores(whole))


@pytest.mark.parametrize("loss", PAIR_COSTS)
def test_examples_of_another_shard_score_like_own_ones(loss):
    embeddings = random_embeddings(np.random.default_rng(0), 40)
    whole = PairScores(loss, [model_of(embeddings)])
    mine = PairScores(loss, [PairModel.of(embeddings, 1.0, np.arange(25))])
    theirs = PairScores(loss, [PairModel.of(embeddings, 1.0, np.arange(25, 40))])

    whole.add(np.arange(25, 33))
    mine.add_rows(theirs.take_rows(np.arange(8)))

    np.testing.assert_allclose(
        all_scores(mine), all_scores(whole)[:25], rtol=1e-5, atol=1e-6
    )


@settings(max_examples=60)
@given(data=st.data())
def test_rounding_depends_on_nothing_outside_the_block(data):
    # Some candidates are unusable: what is left has places with gaps.
    num_blocks = data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    loss = data.draw(st.sampled_from(list(PAIR_COSTS)))
    learner, reference = (
        random_embeddings(rng, SMALL_BLOCK * num_blocks, scale=20.0) for _ in range(2)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_joint, "BLOCK_SIZE", SMALL_BLOCK)
        places = np.flatnonzero(rng.random(SMALL_BLOCK * num_blocks) < 0.8)
        block = places // SMALL_BLOCK
        mine = np.flatnonzero(
            block == data.draw(st.sampled_from(np.unique(block).tolist()))
        )

        def joint_of(rows):
            models = [
                PairModel.of(learner, 1.0, places[rows]),
                PairModel.of(reference, -1.0, places[rows]),
            ]
            return PairScores(loss, models, places[rows])

        whole, part = joint_of(np.arange(len(places))), joint_of(mine)
        order = rng.permutation(len(places))
        for chunk in np.array_split(order[: len(order) // 2], 3):
            own = np.flatnonzero(np.isin(mine, chunk))
            part.take_rows(own)
            rows = whole.take_rows(chunk)
            whole.add_rows(rows)
            part.add_rows(rows)
            asked = rng.random(len(places)) < 0.3
            settled = whole.settle(np.flatnonzero(asked))
            ours = part.settle(np.flatnonzero(asked[mine]))
            np.testing.assert_array_equal(
                ours, settled[np.isin(np.flatnonzero(asked), mine)]
            )
            np.testing.assert_array_equal(part.bounds(), whole.bounds()[mine])


@settings(max_examples=60)
@given(data=st.data())
def test_bounds_are_never_below_scores_and_settled_ones_are_equal(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    loss = data.draw(st.sampled_from(list(PAIR_COSTS)))
    factors = data.draw(st.sampled_from([(1.0, -1.0), (-1.0, -0.5), (2.0, 0.0)]))
    parts = [random_embeddings(rng, 60, scale=20.0) for _ in factors]

    def joint_of():
        both = zip(parts, factors, strict=True)
        return PairScores(loss, [model_of(*part) for part in both])

    lazy, eager = joint_of(), joint_of()
    for chunk in np.array_split(rng.permutation(60)[:40], 4):
        for joint in (lazy, eager):
            joint.add(chunk)
        scores = all_scores(eager)  # each time, so that nothing is ever left alone
        asked = np.flatnonzero(rng.random(60) < data.draw(st.floats(0, 1)))
        np.testing.assert_allclose(lazy.settle(asked), scores[asked], atol=1e-4)
        bounds = lazy.bounds()
        np.testing.assert_allclose(bounds[asked], scores[asked], atol=1e-4)
        assert (bounds > scores - 1e-4).all()


def test_scores_of_all_costs_that_wait_are_computed_for_who_is_settled_only():
    embeddings = random_embeddings(np.random.default_rng(0), 200, scale=20.0)
    joint = PairScores("sigmoid", [model_of(embeddings, -1.0)])
    alone = joint.bounds()

    joint.add(np.arange(50))
    joint.settle(np.arange(100, 110))

    changed = np.flatnonzero(joint.bounds() != alone)
    np.testing.assert_array_equal(changed, np.arange(100, 110))


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
