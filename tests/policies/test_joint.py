"""The joint policy's own tests: against its definition, its law, and its promises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import (
    DenseScores,
    joint_score,
    learnability_matrix,
    noisy_world,
    random_embeddings,
)

from curator.policies import Joint
from curator.policies._joint import chunk_sizes, draw_jointly
from curator.rng import Noise

NOISE = Noise(seed=0, step=0)


def draw(matrix, sizes, *, noise=NOISE, temperature=1.0):
    ids = np.arange(len(matrix))
    return draw_jointly(DenseScores(matrix), ids, sizes, temperature, noise)


def random_matrix(seed, num):
    return np.random.default_rng(seed).standard_normal((num, num))


# ---- sizes ------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(num_drawn=st.integers(0, 300), num_chunks=st.integers(1, 40))
def test_sizes_are_near_equal_positive_and_complete(num_drawn, num_chunks):
    sizes = chunk_sizes(num_drawn, num_chunks)

    assert sum(sizes) == num_drawn
    assert len(sizes) == min(num_chunks, num_drawn)
    assert sizes == sorted(sizes, reverse=True)
    if sizes:
        assert 1 <= sizes[-1] <= sizes[0] <= sizes[-1] + 1


# ---- the sampler, on any matrix ---------------------------------------------------


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


# ---- the policy, on embeddings ----------------------------------------------------


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
        selection.scores, dense.scores()[expected], rtol=1e-5, atol=1e-4
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

    np.testing.assert_array_equal(*chosen)


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
    assert selection.scores is not None
    assert np.isfinite(selection.scores).all()


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
def test_learner_equal_to_reference_scores_everything_zero(loss):
    embeddings = random_embeddings(np.random.default_rng(0), 100)
    features = {"learner.embeddings": embeddings, "reference.embeddings": embeddings}

    selection = Joint(loss=loss).select(np.arange(100), features, 40, NOISE)

    assert selection.scores is not None
    np.testing.assert_array_equal(selection.scores, np.zeros(40))


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
    # Two copies of a pair are false negatives of each other in both models; the
    # learner alone would take them for the hardest there is.
    features, _ = noisy_world(seed=0, num=400, scale=20.0)
    rows = np.concatenate([np.arange(400), np.arange(100)])
    copied = {
        name: dataclasses.replace(
            value, queries=value.queries[rows], targets=value.targets[rows]
        )
        for name, value in features.items()
    }
    shares = {}
    for score in ("learnability", "hard_learner"):
        shares[score] = np.mean(
            [
                (
                    Joint(score=score).select(ids, copied, 100, noise).indices >= 400
                ).mean()
                for ids, noise in [
                    (np.arange(500), Noise(seed=s, step=0)) for s in (0, 1)
                ]
            ]
        )

    assert shares["learnability"] <= 0.2  # their share of the super-batch
    assert shares["hard_learner"] > shares["learnability"]


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
    np.testing.assert_array_equal(selection.scores, expected.scores)


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


# ---- configuration ----------------------------------------------------------------


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
