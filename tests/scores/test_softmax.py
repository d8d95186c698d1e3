from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pair_worlds import all_scores, random_embeddings, unit

from curator.scores import PairModel, PairScores
from curator.types import PairEmbeddings


def model_of(embeddings, coefficient=1.0):
    return PairModel.of(embeddings, coefficient, np.arange(len(embeddings.queries)))


def anchor_loss(embeddings: PairEmbeddings, chosen: np.ndarray, example: int) -> float:
    """The InfoNCE loss of one example in the batch that it joins, by definition."""
    batch = [*chosen, example]
    queries = unit(embeddings.queries.astype(np.float64))[batch]
    targets = unit(embeddings.targets.astype(np.float64))[batch]
    logits = embeddings.logit_scale * queries @ targets.T
    rows = np.logaddexp.reduce(logits[-1]) - logits[-1, -1]
    columns = np.logaddexp.reduce(logits[:, -1]) - logits[-1, -1]
    return (rows + columns) / 2


@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
def test_scores_are_the_losses_in_the_batch_joined(scale):
    rng = np.random.default_rng(0)
    embeddings = random_embeddings(rng, 60, scale=scale, bias=None)
    joint = PairScores("softmax", [model_of(embeddings)])
    order = rng.permutation(60)

    for stop, chunk in ((7, order[:7]), (20, order[7:20]), (21, order[20:21])):
        joint.add(chunk)
        expected = [anchor_loss(embeddings, order[:stop], i) for i in order[stop:]]
        found = all_scores(joint)[order[stop:]]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_tiles_of_several_blocks_agree_with_the_definition():
    rng = np.random.default_rng(0)
    embeddings = random_embeddings(rng, 1300, scale=30.0, bias=None)
    joint = PairScores("softmax", [model_of(embeddings, -1.0)])
    order = rng.permutation(1300)

    joint.add(order[:300])

    checked = order[300::97]
    expected = [-anchor_loss(embeddings, order[:300], example) for example in checked]
    np.testing.assert_allclose(
        all_scores(joint)[checked], expected, rtol=1e-5, atol=1e-5
    )


def test_score_given_nothing_is_the_self_term():
    embeddings = random_embeddings(np.random.default_rng(0), 30, scale=20.0, bias=None)

    joint = PairScores("softmax", [model_of(embeddings)])

    sides = (
        unit(side.astype(float)) for side in (embeddings.queries, embeddings.targets)
    )
    own = np.multiply(*sides).sum(axis=1)
    np.testing.assert_allclose(all_scores(joint), -20 * own, rtol=1e-5)


def test_logit_bias_changes_no_loss():
    without = random_embeddings(np.random.default_rng(0), 30, bias=None)
    scores = []
    for embeddings in (without, dataclasses.replace(without, logit_bias=-7.0)):
        joint = PairScores("softmax", [model_of(embeddings)])
        joint.add(np.arange(10))
        scores.append(all_scores(joint)[10:])

    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5, atol=1e-5)
