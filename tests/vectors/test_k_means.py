from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import MissingDependencyError
from curator.vectors import equal_clusters, k_means, nearest, top_neighbours


def blobs(num: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tight groups far from each other; and which row is of which."""
    rng = np.random.default_rng(seed)
    of = rng.permutation(np.repeat(np.arange(num), each))
    centres = 20 * rng.standard_normal((num, 6))
    return (centres[of] + rng.standard_normal((len(of), 6))).astype(np.float32), of


def keys_of(rows: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(len(rows))


def test_nearest_is_the_nearest():
    rows, _ = blobs(5, 40)
    centres = rows[:17]

    labels, distances = nearest(rows, centres)

    exact = ((rows[:, None].astype(np.float64) - centres[None]) ** 2).sum(-1)
    np.testing.assert_allclose(distances, exact.min(axis=1), atol=2e-3)
    np.testing.assert_array_equal(labels, exact.argmin(axis=1))


def test_top_neighbours_are_the_most_similar_in_order():
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((30, 5)).astype(np.float32)
    targets = rng.standard_normal((50, 5)).astype(np.float32)
    wanted = np.argsort(-(queries @ targets.T), axis=1, kind="stable")

    for num in (0, 1, 7, 50):
        found = top_neighbours(queries, targets, num)
        np.testing.assert_array_equal(found, wanted[:, :num])


def test_equal_neighbours_are_in_order_of_their_place():
    rows = np.ones((6, 2), np.float32)

    found = top_neighbours(rows[:1], rows, 6)

    np.testing.assert_array_equal(found, [np.arange(6)])


@pytest.mark.parametrize("by", ["numpy", "faiss"])
def test_clusters_of_blobs_do_not_mix_them(by):
    rows, of = blobs(4, 100)

    clusters = k_means(rows, 12, keys_of(rows), by)

    for cluster in np.unique(clusters.labels):
        assert len(np.unique(of[clusters.labels == cluster])) == 1


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6), num=st.integers(1, 60), num_clusters=st.integers(1, 70)
)
def test_every_row_is_with_its_nearest_centre(seed, num, num_clusters):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-3, 4, (num, 2)).astype(np.float32)

    clusters = k_means(rows, num_clusters, keys_of(rows, seed))

    assert clusters.centres.shape == (min(num, num_clusters), 2)
    assert np.isfinite(clusters.centres).all()
    exact = ((rows[:, None] - clusters.centres[None]) ** 2).sum(-1)
    own = exact[np.arange(num), clusters.labels]
    np.testing.assert_allclose(own, exact.min(axis=1), atol=1e-4)
    np.testing.assert_allclose(clusters.squared_distances, own, atol=1e-4)


def test_more_rounds_than_one_lower_the_cost():
    rows, _ = blobs(8, 50, seed=3)
    keys = keys_of(rows)

    found = k_means(rows, 8, keys).squared_distances.sum()
    _, at_start = nearest(rows, rows[np.argsort(keys)[:8]])

    assert found < 0.8 * at_start.sum()


def test_large_pools_are_clustered_by_a_sample():
    rows, of = blobs(2, 2000)

    clusters = k_means(rows, 2, keys_of(rows))

    assert len(clusters.labels) == 4000
    assert clusters.squared_distances.mean() < 10 or len(np.unique(of)) == 2


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(1, 80), size=st.integers(1, 20))
def test_equal_clusters_have_equal_sizes(seed, num, size):
    rows = np.random.default_rng(seed).integers(-2, 3, (num, 2)).astype(np.float32)

    clusters, centres = equal_clusters(rows, size, keys_of(rows, seed))

    sizes = np.bincount(clusters, minlength=len(centres))
    rest = num % size
    assert sorted(sizes, reverse=True) == [size] * (num // size) + [rest] * (rest > 0)


def test_equal_clusters_of_blobs_are_the_blobs():
    for seed in range(20):
        rows, of = blobs(2, 30, seed)

        clusters, _ = equal_clusters(rows, 30, keys_of(rows, seed))

        assert len({*zip(clusters.tolist(), of.tolist(), strict=True)}) == 2


def test_equal_clusters_of_copies_are_full():
    rows = np.ones((1000, 3), np.float32)

    clusters, _ = equal_clusters(rows, 10, keys_of(rows))

    assert (np.bincount(clusters) == 10).all()


def test_clusters_are_a_function_of_rows_and_keys():
    rows, _ = blobs(5, 60)
    keys = keys_of(rows)

    first, second = k_means(rows, 9, keys), k_means(rows.copy(), 9, keys.copy())

    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.squared_distances.sum() == pytest.approx(
        second.squared_distances.sum()
    )


def test_faiss_finds_clusters_about_as_tight():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3000, 8)).astype(np.float32)

    ours, theirs = (k_means(rows, 40, keys_of(rows), by) for by in ("numpy", "faiss"))

    spread = [found.squared_distances.mean() for found in (ours, theirs)]
    assert spread[1] == pytest.approx(spread[0], rel=0.02)
    assert (ours.labels == theirs.labels).mean() > 0.9  # from the same first centres
    assert not np.array_equal(ours.centres, theirs.centres)  # it really is another one


def test_faiss_says_the_same_each_time_and_starts_where_the_keys_say():
    rows, _ = blobs(7, 30)

    first, again = (k_means(rows, 7, keys_of(rows), "faiss") for _ in range(2))
    other = k_means(rows, 7, keys_of(rows, 1), "faiss")

    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.centres, again.centres)
    assert not np.array_equal(first.labels, other.labels)


@pytest.mark.parametrize("num", [1, 2, 40, 99])
def test_faiss_takes_any_number_of_clusters(num):
    rows = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)

    found = k_means(rows, num, keys_of(rows), "faiss")

    assert len(found.centres) == min(num, 40)
    assert np.isfinite(found.centres).all()


def test_without_faiss_asking_for_it_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    rows, _ = blobs(2, 10)

    with pytest.raises(
        MissingDependencyError, match=r"pip install 'batch-curator\[faiss"
    ):
        k_means(rows, 2, keys_of(rows), "faiss")
