from __future__ import annotations

import numpy as np
import pytest
from embedding_worlds import clustered
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import scores_of, unit

from curator.policies import Density
from curator.policies._density import _densities
from curator.rng import Noise

NOISE = Noise(seed=3, step=5)


def select(rows, num, noise=NOISE, **fields):
    policy = Density(embeddings="pool.v", **fields)
    return policy.select(np.arange(len(rows)) * 7, {"pool.v": rows}, num, noise)


def densities(rows: np.ndarray, bandwidth: float) -> np.ndarray:
    """By the definition: pair by pair, from distances."""
    rows = rows.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    squares = ((rows[:, None] - rows[None]) ** 2).sum(axis=-1)
    return np.exp(-squares / (2 * bandwidth**2)).sum(axis=1)


def capped(shares: np.ndarray, num: int) -> np.ndarray:
    """In proportion to shares, one at a time: who would have more than 1 has 1."""
    chances, rest = np.zeros(len(shares)), shares.copy()
    left = float(num)
    while rest.any() and left * rest.max() / rest.sum() >= 1:
        one = int(rest.argmax())
        chances[one], rest[one], left = 1.0, 0.0, left - 1
    return chances + (left * rest / rest.sum() if rest.any() else 0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 40),
    bandwidth=st.floats(0.05, 3),
    num_anchors=st.sampled_from([0, 1000]),
    share=st.floats(0.01, 1),
)
def test_chances_are_the_inverse_of_the_definition(
    seed, size, bandwidth, num_anchors, share
):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((size, 3)).astype(np.float32)
    rows[rng.random(size) < 0.3] = rows[0]  # copies
    num = max(int(share * size), 1)

    found = select(
        rows, num, Noise(seed, 0), bandwidth=bandwidth, num_anchors=num_anchors
    )

    exact = densities(rows, bandwidth)
    chances = capped(1 / exact, num)
    np.testing.assert_allclose(scores_of(found), chances[found.indices], rtol=1e-3)
    assert found.stats["density_mean"] == pytest.approx(exact.mean(), rel=1e-3)
    chosen = exact[found.indices].mean()
    assert found.stats["density_chosen"] == pytest.approx(chosen, rel=1e-3)


def test_densities_of_a_few_anchors_are_right_in_the_mean():
    rows = unit(clustered(400, seed=1)).astype(np.float32)
    exact = densities(rows, 0.5)

    found = np.array(
        [
            _densities(
                rows,
                np.sort(np.random.default_rng(seed).choice(400, 40, replace=False)),
                0.5,
            )
            for seed in range(300)
        ]
    )

    error = found.std(axis=0) / np.sqrt(len(found))
    # Of 400 that are tested, one may be off by four standard errors.
    assert (np.abs(found.mean(axis=0) - exact) < 4 * error + 1e-9).mean() > 0.99
    assert (found >= 1).all()
    assert (found <= 400 * (1 + 1e-6)).all()


@pytest.mark.parametrize("num_anchors", [0, 300])
def test_a_small_topic_is_drawn_about_as_often_as_a_large_one(num_anchors):
    rng = np.random.default_rng(0)
    topics = np.eye(8)[[0, 1]]
    of = np.repeat([0, 1], [950, 50])
    rows = (topics[of] + 0.03 * rng.standard_normal((1000, 8))).astype(np.float32)

    counts = np.array(
        [
            np.bincount(
                of[select(rows, 20, Noise(s, 0), num_anchors=num_anchors).indices],
                minlength=2,
            )
            for s in range(40)
        ]
    )

    np.testing.assert_allclose(counts.mean(axis=0), [10, 10], atol=1.5)


def test_the_weighted_mean_is_unbiased():
    rows = clustered(300, seed=2)
    losses = np.random.default_rng(0).gamma(2.0, size=300)

    means = []
    for seed in range(300):
        found = select(rows, 30, Noise(seed, 0), weights="horvitz_thompson")
        means.append((found.weights * losses[found.indices]).mean())

    error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - losses.mean()) < 4 * error


def test_equal_rows_are_drawn_uniformly_and_their_density_is_their_number():
    rows = np.repeat(np.array([[1.0, 2.0]], np.float32), 12, axis=0)

    found = select(rows, 4)

    assert found.stats["density_mean"] == pytest.approx(12)
    np.testing.assert_allclose(scores_of(found), 1 / 3)
    np.testing.assert_array_equal(found.weights, 1)


def test_scale_of_a_row_changes_nothing():
    rows = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    factors = 2.0 ** np.random.default_rng(1).integers(-20, 20, 30)

    plain, scaled = select(rows, 9), select(rows * factors[:, None], 9)

    np.testing.assert_array_equal(plain.indices, scaled.indices)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embeddings": "v"}, "embeddings must be the name of a feature"),
        ({"bandwidth": 0.0}, "bandwidth must be a distance of at least 0.001"),
        ({"bandwidth": float("nan")}, "bandwidth must be a distance"),
        ({"bandwidth": float("inf")}, "bandwidth must be a distance"),
        ({"num_anchors": -1}, "num_anchors must be at least 1, or 0 for all"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Density(**fields)
