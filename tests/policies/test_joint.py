"""The joint policy on embeddings: its choices, its promises, its configuration."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pair_worlds import (
    DenseScores,
    learnability_matrix,
    noisy_world,
    random_embeddings,
    scores_of,
)

from curator.policies import Joint
from curator.policies._joint import chunk_sizes, draw_jointly
from curator.rng import Noise

pytestmark = pytest.mark.usefixtures("costs_of_few_candidates_wait")
NOISE = Noise(seed=0, step=0)


def learner_of(embeddings):
    return {"learner.embeddings": embeddings}


@pytest.mark.parametrize("num_chunks", [1, 3, 16])
@pytest.mark.parametrize("scale", [10.0, 20.0])
def test_float32_tiles_choose_what_the_float64_matrix_chooses(num_chunks, scale):
    features, _ = noisy_world(seed=3, num=700, scale=scale)
    ids = np.arange(700)
    matrix = learnability_matrix(features)

    selection = Joint(num_chunks=num_chunks).select(ids, features, 140, NOISE)

    dense = DenseScores(matrix)
    expected = draw_jointly(dense, ids, chunk_sizes(140, num_chunks), 1.0, NOISE)
    np.testing.assert_array_equal(selection.indices, expected)
    np.testing.assert_allclose(
        scores_of(selection), dense.scores()[expected], rtol=1e-5, atol=1e-4
    )


def test_float64_embeddings_choose_what_float32_ones_choose():
    features, _ = noisy_world(seed=3, num=500)
    wide = {
        name: dataclasses.replace(
            value,
            queries=value.queries.astype(np.float64),
            targets=value.targets.astype(np.float64),
        )
        for name, value in features.items()
    }

    chosen = [
        Joint().select(np.arange(500), given, 100, NOISE).indices
        for given in (features, wide)
    ]

    np.testing.assert_array_equal(chosen[0], chosen[1])


def test_half_precision_choices_overlap_with_those_of_float32(record_property):
    features, _ = noisy_world(seed=3, num=500)
    half = {
        name: dataclasses.replace(
            value,
            queries=value.queries.astype(np.float16),
            targets=value.targets.astype(np.float16),
        )
        for name, value in features.items()
    }
    chosen = [
        set(Joint().select(np.arange(500), given, 100, NOISE).indices.tolist())
        for given in (features, half)
    ]

    overlap = len(chosen[0] & chosen[1]) / 100

    record_property("overlap", overlap)  # what it is depends on the logit scale
    assert overlap > 0.8


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_logits_of_ten_thousands_are_selected_from(loss):
    embeddings = random_embeddings(np.random.default_rng(0), 200, scale=1e4)
    policy = Joint(score="hard_learner", loss=loss, num_chunks=4)

    selection = policy.select(np.arange(200), learner_of(embeddings), 50, NOISE)

    assert len(set(selection.indices.tolist())) == 50
    assert np.isfinite(scores_of(selection)).all()


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_exchanging_queries_and_targets_changes_nothing(loss):
    embeddings = random_embeddings(np.random.default_rng(0), 100)
    swapped = dataclasses.replace(
        embeddings, queries=embeddings.targets, targets=embeddings.queries
    )
    policy = Joint(score="easy_reference", loss=loss, num_chunks=4)

    chosen = [
        policy.select(np.arange(100), {"reference.embeddings": given}, 30, NOISE)
        for given in (embeddings, swapped)
    ]

    np.testing.assert_array_equal(chosen[0].indices, chosen[1].indices)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_learner_equal_to_reference_scores_everything_zero_but_for_rounding(loss):
    embeddings = random_embeddings(np.random.default_rng(0), 100)
    features = {"learner.embeddings": embeddings, "reference.embeddings": embeddings}

    selection = Joint(loss=loss).select(np.arange(100), features, 40, NOISE)

    np.testing.assert_allclose(scores_of(selection), np.zeros(40), atol=1e-5)


def test_softmax_form_avoids_mismatched_pairs_too():
    features, mismatched = noisy_world(seed=0, num=600)

    selection = Joint(loss="softmax").select(np.arange(600), features, 120, NOISE)

    assert mismatched[selection.indices].mean() < 0.35 < mismatched.mean()


@pytest.mark.parametrize("seed", [0, 1])
def test_mismatched_pairs_are_avoided_or_sought_as_the_score_says(seed):
    features, mismatched = noisy_world(seed=seed, num=640)
    shares = {}
    for score in ("learnability", "easy_reference", "hard_learner"):
        selection = Joint(score=score).select(np.arange(640), features, 128, NOISE)
        shares[score] = mismatched[selection.indices].mean()

    assert mismatched.mean() > 0.4
    assert shares["learnability"] < 0.15
    assert shares["easy_reference"] < 0.05
    assert shares["hard_learner"] > 0.9


def test_copies_are_not_preferred_under_learnability():
    # Two copies of a pair are false negatives of each other in both models, so that
    # the difference cancels; to the learner alone they are the hardest there is.
    features, _ = noisy_world(seed=0, num=400)
    rows = np.concatenate([np.arange(400), np.arange(100)])
    copied = {
        name: dataclasses.replace(
            value, queries=value.queries[rows], targets=value.targets[rows]
        )
        for name, value in features.items()
    }
    num_copied, num_twice = {}, {}
    for score in ("learnability", "hard_learner"):
        chosen = [
            rows[Joint(score=score).select(np.arange(500), copied, 100, noise).indices]
            for noise in (Noise(seed=seed, step=0) for seed in range(4))
        ]
        num_copied[score] = np.mean([(originals < 100).sum() for originals in chosen])
        num_twice[score] = np.mean([100 - len(np.unique(each)) for each in chosen])

    assert num_copied["learnability"] <= 40  # 200 of 500 candidates have a copy
    assert num_twice["learnability"] < 0.6 * num_twice["hard_learner"]


def test_too_many_chunks_are_an_error():
    features = learner_of(random_embeddings(np.random.default_rng(0), 20))

    with pytest.raises(ValueError, match="got num_chunks=16 for num_selected=8"):
        Joint(score="hard_learner").select(np.arange(20), features, 8, NOISE)


@pytest.mark.parametrize("num_usable", [0, 1, 5])
def test_fewer_usable_candidates_than_chunks_still_fill_the_batch(num_usable):
    embeddings = random_embeddings(np.random.default_rng(0), 20)
    embeddings.queries[num_usable:] = np.nan
    policy = Joint(score="hard_learner", num_chunks=8)

    selection = policy.select(np.arange(20), learner_of(embeddings), 10, NOISE)

    assert sorted(selection.indices[:num_usable]) == list(range(num_usable))
    assert len(set(selection.indices.tolist())) == 10
    assert selection.stats["num_topped_up"] == 10 - num_usable


def test_one_bad_row_spoils_no_other_score():
    features, _ = noisy_world(seed=0, num=200)
    features["reference.embeddings"].targets[17] = np.inf
    without = {
        name: dataclasses.replace(
            value,
            queries=np.delete(value.queries, 17, axis=0),
            targets=np.delete(value.targets, 17, axis=0),
        )
        for name, value in features.items()
    }
    ids = np.arange(200)

    selection = Joint().select(ids, features, 50, NOISE)
    expected = Joint().select(np.delete(ids, 17), without, 50, NOISE)

    np.testing.assert_array_equal(
        selection.indices, np.delete(ids, 17)[expected.indices]
    )
    np.testing.assert_array_equal(scores_of(selection), scores_of(expected))


def test_stats_say_whether_joint_terms_matter():
    near, far = (noisy_world(seed=0, num=300, scale=scale)[0] for scale in (20.0, 5.0))
    policy = Joint(num_chunks=4)

    strong, weak = (
        policy.select(np.arange(300), features, 60, NOISE) for features in (near, far)
    )
    single = dataclasses.replace(policy, num_chunks=1).select(
        np.arange(300), near, 60, NOISE
    )

    assert set(strong.stats) == {
        "num_quarantined",
        "num_topped_up",
        "score_mean",
        "diagonal_std",
        "interaction_mean",
        "interaction_std",
    }
    assert strong.stats["interaction_std"] > strong.stats["diagonal_std"]
    assert weak.stats["interaction_std"] < 0.1 * weak.stats["diagonal_std"]
    assert single.stats["interaction_mean"] == single.stats["interaction_std"] == 0


def test_stats_are_those_of_the_definition():
    features, _ = noisy_world(seed=0, num=120, scale=15.0)
    matrix = learnability_matrix(features)
    diagonal = matrix.diagonal()

    selection = Joint(num_chunks=2).select(np.arange(120), features, 30, NOISE)

    first = selection.indices[:15]
    others = np.setdiff1d(np.arange(120), first)
    interactions = (matrix[first].sum(axis=0) + matrix[:, first].sum(axis=1))[others]
    stats = selection.stats
    assert stats["diagonal_std"] == pytest.approx(diagonal.std(), rel=1e-5)
    assert stats["interaction_mean"] == pytest.approx(interactions.mean(), rel=1e-4)
    assert stats["interaction_std"] == pytest.approx(interactions.std(), rel=1e-4)


@pytest.mark.parametrize(
    ("policy", "needs"),
    [
        (Joint(), {"learner.embeddings", "reference.embeddings"}),
        (Joint(score="easy_reference"), {"reference.embeddings"}),
        (Joint(score="hard_learner", loss="softmax"), {"learner.embeddings"}),
    ],
)
def test_needs_only_what_the_score_reads(policy, needs):
    assert policy.needs == needs


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("score", "loss", "score must be one of easy_reference.*; got 'loss'"),
        ("loss", "scalar", "loss must be one of sigmoid, softmax; got 'scalar'"),
        ("num_chunks", 0, "num_chunks must be at least 1; got 0"),
        ("temperature", -0.1, "temperature must be finite and at least 0 .*; got -0.1"),
        ("temperature", np.inf, "temperature must be finite .*; got inf"),
        ("temperature", np.nan, "temperature must be finite .*; got nan"),
    ],
)
def test_impossible_field_is_an_error(field, value, message):
    # The checked constructor of the tests would refuse a wrong type first.
    policy = Joint()
    object.__setattr__(policy, field, value)

    with pytest.raises(ValueError, match=message):
        policy.__post_init__()
