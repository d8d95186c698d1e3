from __future__ import annotations

import numpy as np
import pytest
from embedding_worlds import clustered
from pair_worlds import scores_of

from curator.policies import Sensitivity
from curator.rng import Noise

NOISE = Noise(seed=3, step=5)


def select(rows, losses, num, noise=NOISE, **fields):
    policy = Sensitivity(embeddings="pool.v", **fields)
    features = {"pool.v": rows, "learner.loss": losses}
    return policy.select(np.arange(len(rows)) * 7, features, num, noise)


def chances(rows, losses, num, **fields) -> np.ndarray:
    """Of all examples, from a draw of all: there nothing is capped before scaling."""
    drawn = np.zeros(len(rows))
    for seed in range(250):
        drawn[select(rows, losses, num, Noise(seed, 0), **fields).indices] += 1
    return drawn / 250


def test_the_weighted_mean_is_unbiased():
    rows = clustered(200, seed=1)
    losses = np.random.default_rng(0).gamma(2.0, size=200)
    counted = losses + np.random.default_rng(1).gamma(2.0, size=200)

    means = []
    for seed in range(200):
        # One clustering: what is estimated is not a function of it.
        selection = select(rows, losses, 25, Noise(seed, 0), num_clusters=10)
        means.append((selection.weights * counted[selection.indices]).mean())

    error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - counted.mean()) < 4 * error


def test_more_examples_estimate_better_than_few_and_better_than_uniform():
    rows = clustered(300, seed=2, topics=12)
    # Losses belong to topics: a rare one is costly.
    rare = rows @ rows[np.argmin(rows @ rows.mean(axis=0))] > 0.5
    losses = np.where(rare, 50.0, 1.0)

    def error(means: list[float]) -> float:
        return float(np.sqrt(np.mean((np.array(means) / losses.mean() - 1) ** 2)))

    def of_policy(num: int) -> float:
        found = [
            select(rows, losses, num, Noise(s, 0), num_clusters=20) for s in range(40)
        ]
        return error([(s.weights * losses[s.indices]).mean() for s in found])

    rng = np.random.default_rng(0)
    uniform = [losses[rng.choice(300, 40, replace=False)].mean() for _ in range(200)]
    assert of_policy(160) < 0.8 * of_policy(10)
    assert of_policy(40) < 0.7 * error(uniform)


def test_chances_are_by_the_loss_of_the_cluster_alone_where_distances_have_no_share():
    rows = np.repeat(np.eye(2, dtype=np.float32), 20, axis=0)
    losses = np.repeat([1.0, 3.0], 20)

    found = chances(rows, losses, 8, num_clusters=2, distance_share=0.0)

    assert found[:20].mean() == pytest.approx(8 * 1 / 80, abs=0.035)
    assert found[20:].mean() == pytest.approx(8 * 3 / 80, abs=0.035)


def test_chances_are_by_distance_alone_where_losses_have_no_share():
    rows = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0]], np.float32)
    losses = np.linspace(1, 9, 7)

    found = chances(
        rows, losses, 1, metric="euclidean", num_clusters=1, distance_share=1.0
    )

    squares = (np.arange(7) - 3.0) ** 2
    np.testing.assert_allclose(found, squares / squares.sum(), atol=0.11)


def test_power_of_one_is_less_extreme_than_two():
    rows = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0]], np.float32)
    fields = {"metric": "euclidean", "num_clusters": 1, "distance_share": 1.0}

    one = chances(rows, np.ones(7), 1, power=1.0, **fields)

    distances = np.abs(np.arange(7) - 3.0)
    np.testing.assert_allclose(one, distances / distances.sum(), atol=0.11)


def test_only_the_loss_nearest_to_the_centre_is_read():
    rows = np.array([[0.0], [1.0], [2.0]], np.float32)

    plain, other = (
        select(rows, losses, 2, metric="euclidean", num_clusters=1, distance_share=0.0)
        for losses in (np.array([1.0, 1.0, 1.0]), np.array([9.0, 1.0, 100.0]))
    )

    np.testing.assert_array_equal(plain.indices, other.indices)
    np.testing.assert_allclose(scores_of(plain), scores_of(other))


def test_losses_below_zero_are_set_aside():
    rows = clustered(10)

    selection = select(rows, np.array([-1.0, np.nan] + [1.0] * 8), 9)

    assert selection.stats["num_quarantined"] == 2
    assert selection.stats["num_topped_up"] == 1


def test_nothing_to_prefer_is_uniform():
    rows = np.repeat(np.array([[1.0, 2.0]], np.float32), 12, axis=0)

    selection = select(rows, np.zeros(12), 4)

    np.testing.assert_allclose(selection.weights, 1)
    np.testing.assert_allclose(scores_of(selection), 1 / 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embeddings": "v"}, "embeddings must be the name of a feature"),
        ({"loss": "loss"}, "loss must be the name of a feature"),
        ({"num_clusters": -1}, "num_clusters must be at least 1, or 0"),
        ({"distance_share": 1.5}, r"distance_share must be in \[0, 1\]"),
        ({"power": 0.0}, "power must be above 0"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Sensitivity(**fields)
