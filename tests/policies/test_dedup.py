from __future__ import annotations

import sys

import numpy as np
import pytest
from embedding_worlds import clustered
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import scores_of, unit

from curator.errors import MissingDependencyError
from curator.policies import Dedup, find_duplicates
from curator.rng import Noise

NOISE = Noise(seed=3, step=5)


def with_copies(
    seed: int, num: int = 60, copies: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows, each some times over with a little noise; and which is which."""
    rng = np.random.default_rng(seed)
    distinct = unit(rng.standard_normal((num, 16)))
    of = rng.permutation(np.repeat(np.arange(num), copies))
    rows = distinct[of] + 0.01 * rng.standard_normal((len(of), 16))
    return unit(rows).astype(np.float32), of


@pytest.mark.parametrize("keep", ["hard", "easy", "random"])
def test_groups_are_the_copies_and_one_of_each_stays(keep):
    rows, of = with_copies(0)

    found = find_duplicates(
        rows, np.arange(len(rows)), 0.95, NOISE, keep=keep, num_clusters=1
    )

    assert found.kept.sum() == 60
    assert len(np.unique(of[found.kept])) == 60
    np.testing.assert_array_equal(of[found.group], of)
    assert found.kept[found.group].all()
    np.testing.assert_array_equal(found.group[found.kept], np.flatnonzero(found.kept))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num=st.integers(1, 40),
    num_clusters=st.integers(1, 5),
    threshold=st.floats(-1, 1),
)
def test_what_stays_is_what_the_definition_says(seed, num, num_clusters, threshold):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num, 3)).astype(np.float32)
    ids = rng.permutation(1000)[:num]

    found = find_duplicates(rows, ids, threshold, NOISE, num_clusters=num_clusters)

    exact = unit(rows.astype(np.float64))
    cosines = exact @ exact.T
    np.testing.assert_array_equal(found.kept, found.similarity <= threshold)
    for cluster in np.unique(found.cluster):
        members = np.flatnonzero(found.cluster == cluster)
        firsts = members[found.similarity[members] == -1]
        assert len(firsts) >= 1
        for member in members:
            others = cosines[member, members[members != member]]
            if found.similarity[member] > -1:
                assert np.abs(others - found.similarity[member]).min() < 1e-5
    assert found.kept[found.group].all()
    assert (found.cluster[found.group] == found.cluster).all()


def test_the_policy_takes_all_examples_up_to_a_threshold():
    rows, of = with_copies(1)
    ids = np.arange(len(rows)) * 7
    policy = Dedup(embeddings="pool.v", num_clusters=1)

    selection = policy.select(ids, {"pool.v": rows}, 60, NOISE)

    assert len(np.unique(of[selection.indices])) == 60
    threshold = selection.stats["max_similarity"]
    found = find_duplicates(rows, ids, threshold, NOISE, num_clusters=1)
    assert set(np.flatnonzero(found.kept)) == set(selection.indices)
    assert (np.diff(scores_of(selection)) <= 0).all()


def test_hard_keeps_the_farthest_from_the_centre_and_easy_the_nearest():
    rows = unit(np.array([[1.0, 0.0], [1.0, 0.02], [1.0, 0.1]])).astype(np.float32)
    ids = np.arange(3)

    kept = {
        keep: find_duplicates(rows, ids, 0.99, NOISE, keep=keep, num_clusters=1).kept
        for keep in ("hard", "easy")
    }

    np.testing.assert_array_equal(kept["hard"], [False, False, True])
    np.testing.assert_array_equal(kept["easy"], [False, True, False])


def test_one_more_example_that_stays_changes_nothing_for_the_rest():
    rows, _ = with_copies(2)
    ids = np.arange(len(rows))

    tight = find_duplicates(rows, ids, 0.99, NOISE)
    loose = find_duplicates(rows, ids, 0.9, NOISE)

    assert (loose.kept <= tight.kept).all()
    np.testing.assert_array_equal(loose.similarity, tight.similarity)


@pytest.mark.parametrize("by", ["numpy", "faiss"])
def test_order_of_the_rows_changes_nothing(by):
    rows, _ = with_copies(3)
    ids = np.random.default_rng(0).permutation(1000)[: len(rows)]
    order = np.random.default_rng(1).permutation(len(rows))

    def duplicates(rows: np.ndarray, ids: np.ndarray):
        return find_duplicates(rows, ids, 0.9, NOISE, num_clusters=5, by=by)

    plain, shuffled = duplicates(rows, ids), duplicates(rows[order], ids[order])

    np.testing.assert_array_equal(plain.kept[order], shuffled.kept)
    np.testing.assert_array_equal(ids[plain.group][order], ids[order][shuffled.group])


def test_rows_without_direction_stay_and_are_in_no_cluster():
    rows = np.array([[1.0, 0.0], [0.0, 0.0], [np.nan, 1.0], [1.0, 0.0]], np.float32)

    found = find_duplicates(rows, np.arange(4), 0.9, NOISE)

    np.testing.assert_array_equal(found.cluster, [0, -1, -1, 0])
    assert found.kept[[1, 2]].all()
    assert found.kept[[0, 3]].sum() == 1
    none = find_duplicates(rows[1:3], np.arange(2), 0.9, NOISE)
    assert none.kept.all()


@pytest.mark.parametrize("by", ["numpy", "faiss"])
def test_copies_are_found_in_clusters_too(by):
    rows = clustered(3000, seed=4)
    twice = np.concatenate([rows, rows])

    found = find_duplicates(
        twice, np.arange(6000), 0.9999, NOISE, num_clusters=12, by=by
    )

    # Equal rows are never in two clusters.
    assert found.kept.sum() == 3000
    assert len(np.unique(twice[found.kept], axis=0)) == 3000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 1.5}, r"threshold must be a cosine, in \[-1, 1\]"),
        ({"threshold": float("nan")}, r"threshold must be a cosine"),
        ({"threshold": 0.9, "num_clusters": -1}, "num_clusters must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    rows = np.eye(3, dtype=np.float32)

    with pytest.raises(ValueError, match=message):
        find_duplicates(rows, np.arange(3), noise=NOISE, **arguments)


def test_wrong_fields_are_refused():
    with pytest.raises(ValueError, match="num_clusters must be at least 1"):
        Dedup(num_clusters=-2)
    with pytest.raises(ValueError, match="must be the name of a feature"):
        Dedup(embeddings="vectors")
    # The checked constructor of the tests would refuse the type first.
    policy = Dedup()
    object.__setattr__(policy, "keep", "best")
    with pytest.raises(ValueError, match="keep must be one of hard, easy, random"):
        policy.__post_init__()
    policy = Dedup()
    object.__setattr__(policy, "k_means", "sklearn")
    with pytest.raises(ValueError, match="k_means must be one of numpy, faiss"):
        policy.__post_init__()


def test_the_policy_asks_the_k_means_it_is_told_to(monkeypatch):
    rows, _ = with_copies(5)
    features, ids = {"reference.embeddings": rows}, np.arange(len(rows))
    policy = Dedup(num_clusters=4, k_means="faiss")

    found = policy.select(ids, features, 60, NOISE)

    assert found.stats["max_similarity"] < 0.95
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match="needs faiss"):
        policy.select(ids, features, 60, NOISE)
