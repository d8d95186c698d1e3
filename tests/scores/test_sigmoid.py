from __future__ import annotations

import numpy as np
import pytest
from pair_worlds import DenseScores, all_scores, random_embeddings, sigmoid_costs, unit

from curator.scores import PairModel, PairScores
from curator.types import PairEmbeddings


def model_of(embeddings, coefficient=1.0):
    return PairModel.of(embeddings, coefficient, np.arange(len(embeddings.queries)))


@pytest.mark.parametrize(
    ("scale", "bias"),
    [(10.0, -10.0), (30.0, -10.0), (100.0, -2.7), (1.0, 0.0), (5.0, 20.0)],
)
def test_tiles_agree_with_the_dense_matrix(scale, bias):
    # More candidates than a block of columns, chunks of more rows than a tile.
    embeddings = random_embeddings(
        np.random.default_rng(0), 1300, 16, scale=scale, bias=bias
    )
    tiles = PairScores("sigmoid", [model_of(embeddings)])
    dense = DenseScores(sigmoid_costs(embeddings))
    order = np.random.default_rng(1).permutation(1300)

    np.testing.assert_allclose(all_scores(tiles), dense.scores(), rtol=1e-5, atol=1e-9)
    for chunk in (order[:300], order[300:301], order[301:333]):
        tiles.add(chunk)
        dense.add(chunk)
        np.testing.assert_allclose(all_scores(tiles), dense.scores(), rtol=1e-5)


def test_errors_of_tiles_do_not_add_up_in_a_difference():
    rng = np.random.default_rng(0)
    learner, reference = (
        random_embeddings(rng, 1100, 16, scale=20.0) for _ in range(2)
    )
    tiles = PairScores("sigmoid", [model_of(learner), model_of(reference, -1.0)])
    costs = sigmoid_costs(learner), sigmoid_costs(reference)
    dense = DenseScores(costs[0] - costs[1])
    size = DenseScores(costs[0] + costs[1])  # what a relative error is relative to

    for chunk in np.split(rng.permutation(1100)[:800], 4):
        for scores in (tiles, dense, size):
            scores.add(chunk)

    error = np.abs(all_scores(tiles) - dense.scores()) / size.scores()
    assert error.max() < 2e-6


def test_tiny_costs_of_far_negatives_are_not_lost():
    # exp(-20) is below half the spacing of float32 at 1: added to 1 it disappears.
    embeddings = random_embeddings(np.random.default_rng(0), 900, scale=1.0, bias=-20.0)
    tiles = PairScores("sigmoid", [model_of(embeddings)])
    dense = DenseScores(sigmoid_costs(embeddings))
    alone = all_scores(tiles)

    tiles.add(np.arange(800))
    dense.add(np.arange(800))

    change = (all_scores(tiles) - alone)[800:]
    expected = (dense.scores() - sigmoid_costs(embeddings).diagonal())[800:]
    assert expected.max() < 1e-4
    np.testing.assert_allclose(change, expected, rtol=1e-5, atol=1e-13)


def test_identical_candidates_do_not_overflow_the_product():
    # All logits 0: every factor is 2, the largest there is.
    ones = np.ones((700, 4), np.float32)
    model = PairModel(1.0, ones / 2, ones / 2, 10.0, -10.0)
    tiles = PairScores("sigmoid", [model])

    tiles.add(np.arange(600))

    expected = np.log(2) * (1 + 2 * 600)
    np.testing.assert_allclose(all_scores(tiles)[600:], expected, rtol=1e-6)


def test_column_that_overflows_spoils_no_other():
    # Candidate 0 is close to everything, the others are far from each other: only the
    # product of its column leaves the range of float32.
    rng = np.random.default_rng(0)
    queries = unit(np.c_[np.zeros(300), rng.standard_normal((300, 63))])
    queries[0] = np.eye(64)[0]
    targets = unit(queries + np.eye(64)[0])
    embeddings = PairEmbeddings(
        queries.astype(np.float32), targets.astype(np.float32), 40.0, -20.0
    )
    tiles = PairScores("sigmoid", [model_of(embeddings)])
    dense = DenseScores(sigmoid_costs(embeddings))

    tiles.add(np.arange(100, 300))
    dense.add(np.arange(100, 300))

    assert dense.scores()[0] > 800 > 10 * np.median(dense.scores())
    np.testing.assert_allclose(all_scores(tiles), dense.scores(), rtol=1e-5)


def test_each_model_has_its_own_scale_and_bias():
    rng = np.random.default_rng(0)
    learner = random_embeddings(rng, 40, scale=5.0, bias=-1.0)
    reference = random_embeddings(rng, 40, scale=50.0, bias=-20.0)
    tiles = PairScores("sigmoid", [model_of(learner), model_of(reference, -1.0)])
    dense = DenseScores(sigmoid_costs(learner) - sigmoid_costs(reference))

    tiles.add(np.arange(10))
    dense.add(np.arange(10))

    np.testing.assert_allclose(all_scores(tiles), dense.scores(), rtol=1e-4, atol=1e-4)


def test_adding_all_candidates_leaves_their_scores():
    tiles = PairScores(
        "sigmoid", [model_of(random_embeddings(np.random.default_rng(0), 5))]
    )
    alone = all_scores(tiles)

    tiles.add(np.arange(5))

    np.testing.assert_array_equal(all_scores(tiles), alone)
