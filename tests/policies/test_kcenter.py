from __future__ import annotations

import itertools

import numpy as np
import pytest
from embedding_worlds import clustered
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from pair_worlds import random_embeddings, scores_of, unit

from curator.errors import FeatureError
from curator.policies import KCenter
from curator.policies._embeddings import check_metric
from curator.rng import Noise

NOISE = Noise(seed=3, step=5)
EUCLIDEAN = KCenter(embeddings="pool.v", metric="euclidean")


def distances_to(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    exact = rows.astype(np.float64)
    return np.sqrt(((exact[:, None] - exact[chosen][None]) ** 2).sum(-1))


def select(policy: KCenter, rows: np.ndarray, num: int, noise: Noise = NOISE):
    return policy.select(np.arange(len(rows)) * 7, {"pool.v": rows}, num, noise)


def test_each_choice_is_the_farthest_from_those_before():
    rows = clustered(3000, seed=1)

    selection = select(KCenter(embeddings="pool.v"), rows, 300)

    nearest = np.full(len(rows), np.inf)
    for turn, chosen in enumerate(selection.indices):
        if turn:
            assert nearest[chosen] == pytest.approx(nearest.max(), rel=1e-5)
            assert scores_of(selection)[turn] == pytest.approx(
                nearest[chosen], rel=1e-5
            )
        nearest = np.minimum(nearest, distances_to(rows, np.array([chosen]))[:, 0])
    assert selection.stats["radius"] == pytest.approx(nearest.max(), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    rows=nps.arrays(
        np.float32,
        st.tuples(st.integers(2, 30), st.integers(1, 4)),
        elements=st.integers(-3, 3).map(float),
    ),
    share=st.floats(0.01, 1),
)
def test_on_a_grid_every_choice_is_a_farthest_one(rows, share):
    num = max(1, int(share * len(rows)))

    selection = select(EUCLIDEAN, rows, num)

    for turn in range(1, num):
        nearest = distances_to(rows, selection.indices[:turn]).min(axis=1)
        assert nearest[selection.indices[turn]] == pytest.approx(
            nearest.max(), abs=1e-5
        )


def test_radius_is_at_most_twice_that_of_the_best_choice():
    for seed in range(10):
        rows = np.random.default_rng(seed).standard_normal((11, 2)).astype(np.float32)

        radius = select(EUCLIDEAN, rows, 3).stats["radius"]

        best = min(
            distances_to(rows, np.array(chosen)).min(axis=1).max()
            for chosen in itertools.combinations(range(len(rows)), 3)
        )
        assert best * (1 - 1e-6) <= radius <= 2 * best * (1 + 1e-6)


def test_radii_never_grow_and_fewer_are_a_prefix_of_more():
    rows = clustered(2000, seed=2)

    many = select(KCenter(embeddings="pool.v"), rows, 200)
    few = select(KCenter(embeddings="pool.v"), rows, 50)

    assert (np.diff(scores_of(many)) <= 1e-6).all()
    np.testing.assert_array_equal(many.indices[:50], few.indices)


def test_copies_come_after_all_distinct_examples():
    distinct = clustered(20, seed=3)
    rows = np.repeat(distinct, 5, axis=0)

    selection = select(KCenter(embeddings="pool.v"), rows, 40)

    assert len(np.unique(rows[selection.indices[:20]], axis=0)) == 20
    assert (scores_of(selection)[20:] == 0).all()
    assert selection.stats["radius"] == 0


def test_near_copies_are_told_apart_far_from_the_origin():
    # Squares are 1e6 and distances 1e-2: products alone would lose all digits.
    rows = np.array([[1000.0, 0.0], [1000.01, 0.0], [1000.04, 0.0]], np.float32)

    selection = select(EUCLIDEAN, rows, 3)

    first = distances_to(rows, selection.indices[:1])[:, 0]
    assert scores_of(selection)[0] == pytest.approx(first.max(), rel=1e-3)


def test_first_choice_is_random_and_the_seed_decides():
    rows = clustered(50)
    policy = KCenter(embeddings="pool.v")

    firsts = {int(select(policy, rows, 1, Noise(s, 0)).indices[0]) for s in range(40)}

    assert len(firsts) > 15


def test_trim_passes_over_outliers():
    rows = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    rows[:3] *= 1000
    trimmed = KCenter(embeddings="pool.v", metric="euclidean", trim=0.02)

    assert set(select(EUCLIDEAN, rows, 5).indices) & {0, 1, 2}
    assert not set(select(trimmed, rows, 5).indices) & {0, 1, 2}
    assert len(set(select(trimmed, rows, 200).indices)) == 200


def test_trim_takes_the_candidate_at_that_rank():
    rows = clustered(1500, seed=9)
    policy = KCenter(embeddings="pool.v", trim=0.01)

    selection = select(policy, rows, 30)

    for turn in range(1, 30):
        nearest = distances_to(rows, selection.indices[:turn]).min(axis=1)
        wanted = np.sort(nearest)[-1 - 15]
        assert nearest[selection.indices[turn]] == pytest.approx(wanted, rel=1e-5)


def test_cosine_ignores_length_and_euclidean_does_not():
    rows = clustered(60, seed=4)
    longer = rows * np.linspace(1, 9, 60, dtype=np.float32)[:, None]

    by_cosine = [select(KCenter(embeddings="pool.v"), r, 20) for r in (rows, longer)]

    np.testing.assert_array_equal(by_cosine[0].indices, by_cosine[1].indices)
    assert select(EUCLIDEAN, longer, 20).stats["radius"] > 2


def test_scale_of_the_numbers_changes_nothing():
    rows = np.random.default_rng(6).standard_normal((300, 5)).astype(np.float32)

    plain = select(EUCLIDEAN, rows, 40)

    for scale in (np.float32(2**-60), np.float32(2**60)):
        scaled = select(EUCLIDEAN, rows * scale, 40)
        np.testing.assert_array_equal(plain.indices, scaled.indices)
        assert scaled.stats["radius"] == pytest.approx(plain.stats["radius"] * scale)


def test_pairs_count_with_both_sides():
    embeddings = random_embeddings(np.random.default_rng(0), 40)
    both = np.concatenate([embeddings.queries, embeddings.targets], axis=1)

    of_pairs = KCenter().select(
        np.arange(40) * 7, {"reference.embeddings": embeddings}, 9, NOISE
    )

    np.testing.assert_array_equal(
        of_pairs.indices, select(KCenter(embeddings="pool.v"), unit(both), 9).indices
    )


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (np.zeros((3, 2), np.float32), "shape"),
        (np.zeros(4, np.float32), "shape"),
        (np.zeros((4, 2), np.int64), "int64"),
        (np.zeros((4, 0), np.float32), "shape"),
    ],
)
def test_other_features_are_refused(rows, wanted):
    with pytest.raises(FeatureError, match=wanted):
        EUCLIDEAN.select(np.arange(4), {"pool.v": rows}, 2, NOISE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embeddings": "embeddings"}, "must be the name of a feature"),
        ({"embeddings": "pool."}, "must be the name of a feature"),
        ({"trim": 1.0}, r"trim must be in \[0, 1\)"),
        ({"trim": float("nan")}, r"trim must be in \[0, 1\)"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        KCenter(**fields)


def test_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="metric must be one of cosine, euclidean"):
        check_metric("manhattan")
