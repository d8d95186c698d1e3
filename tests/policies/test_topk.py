from __future__ import annotations

import numpy as np
import pytest
from pair_worlds import noisy_world, random_embeddings, scores_of, sigmoid_costs

from curator.policies import TopK
from curator.rng import Noise

NOISE = Noise(seed=0, step=0)
LOSSES = {
    "learner.loss": np.array([1.0, 5.0, 3.0, 4.0]),
    "reference.loss": np.array([0.5, 4.9, 0.1, 3.0]),
}


@pytest.mark.parametrize(
    ("score", "chosen", "scores"),
    [
        ("learnability", [2, 3], [2.9, 1.0]),
        ("hard_learner", [1, 3], [5.0, 4.0]),
        ("easy_reference", [2, 0], [-0.1, -0.5]),
    ],
)
def test_highest_scores_are_chosen_highest_first(score, chosen, scores):
    selection = TopK(score=score).select(np.arange(4), LOSSES, 2, NOISE)

    assert selection.indices.tolist() == chosen
    np.testing.assert_allclose(scores_of(selection), scores)
    assert selection.stats["score_mean"] == pytest.approx(np.mean(scores))


@pytest.mark.parametrize(
    ("policy", "needs"),
    [
        (TopK(), {"learner.loss", "reference.loss"}),
        (TopK(score="easy_reference"), {"reference.loss"}),
        (TopK(score="hard_learner", loss="softmax"), {"learner.embeddings"}),
    ],
)
def test_needs_only_what_the_score_reads(policy, needs):
    assert policy.needs == needs


def test_noise_changes_nothing():
    features = {name: losses[[0, 0, 0, 1]] for name, losses in LOSSES.items()}  # ties
    chosen = [
        TopK().select(np.arange(4), features, 2, Noise(seed=seed, step=0)).indices
        for seed in range(5)
    ]

    np.testing.assert_array_equal(chosen, [chosen[0]] * 5)


def test_sigmoid_ranks_by_the_cost_of_each_pair_with_itself():
    embeddings = random_embeddings(np.random.default_rng(0), 30)
    policy = TopK(score="hard_learner", loss="sigmoid")

    selection = policy.select(
        np.arange(30), {"learner.embeddings": embeddings}, 5, NOISE
    )

    costs = sigmoid_costs(embeddings).diagonal()
    assert selection.indices.tolist() == np.argsort(-costs)[:5].tolist()
    np.testing.assert_allclose(
        scores_of(selection), costs[selection.indices], rtol=1e-5
    )


def test_softmax_ranks_by_similarity_as_the_self_term_does():
    embeddings = random_embeddings(np.random.default_rng(0), 30, bias=None)
    policy = TopK(score="easy_reference", loss="softmax")

    selection = policy.select(
        np.arange(30), {"reference.embeddings": embeddings}, 5, NOISE
    )

    own = (embeddings.queries * embeddings.targets).sum(axis=1)
    assert selection.indices.tolist() == np.argsort(-own)[:5].tolist()


def test_losses_of_any_size_are_ranked():
    features = {"learner.loss": np.array([1e300, -1e300, 0.0])}

    selection = TopK(score="hard_learner").select(np.arange(3), features, 3, NOISE)

    assert selection.indices.tolist() == [0, 2, 1]


def test_mismatched_pairs_are_avoided_or_sought_as_the_score_says():
    features, mismatched = noisy_world(seed=0, num=600)
    shares = {}
    for score in ("learnability", "easy_reference", "hard_learner"):
        policy = TopK(score=score, loss="sigmoid")
        selection = policy.select(np.arange(600), features, 120, NOISE)
        shares[score] = mismatched[selection.indices].mean()

    assert shares["learnability"] < 0.2
    assert shares["easy_reference"] < 0.2
    assert shares["hard_learner"] > 0.8


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("score", "rho", "score must be one of easy_reference.*; got 'rho'"),
        ("loss", "hinge", "loss must be one of scalar, sigmoid, softmax; got 'hinge'"),
    ],
)
def test_unknown_choice_is_an_error(field, value, message):
    # The checked constructor of the tests would refuse the type first.
    policy = object.__new__(TopK)
    for name, default in (("score", "learnability"), ("loss", "scalar")):
        object.__setattr__(policy, name, value if name == field else default)

    with pytest.raises(ValueError, match=message):
        policy.__post_init__()
