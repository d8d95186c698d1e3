from __future__ import annotations

import itertools

import numpy as np
import pytest
from embedding_worlds import clustered, naive_greedy
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import scores_of, unit

from curator.policies import LogDet
from curator.rng import Noise

NOISE = Noise(seed=3, step=5)


def kernel(rows: np.ndarray, ridge: float = 1e-2) -> np.ndarray:
    exact = unit(rows.astype(np.float64))
    return exact @ exact.T + ridge * np.eye(len(rows))


def log_det(matrix: np.ndarray, chosen: list[int]) -> float:
    return float(np.linalg.slogdet(matrix[np.ix_(chosen, chosen)])[1])


def select(rows: np.ndarray, num: int, losses: np.ndarray | None = None, **fields):
    policy = LogDet(embeddings="pool.v", **fields)
    features = {"pool.v": rows}
    if losses is not None:
        features["learner.loss"] = losses
    return policy.select(np.arange(len(rows)) * 7, features, num, NOISE)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(3, 25), width=st.integers(2, 6))
def test_gains_are_those_of_naive_greedy(seed, num, width):
    # More examples than dimensions: the kernel without its ridge has no full rank.
    rows = np.random.default_rng(seed).standard_normal((num, width)).astype(np.float32)
    matrix = kernel(rows)

    selection = select(rows, num)

    taken: list[int] = []
    for chosen, score in zip(
        selection.indices.tolist(), scores_of(selection), strict=True
    ):
        before = log_det(matrix, taken) if taken else 0.0
        free = [i for i in range(num) if i not in taken]
        gains = {i: log_det(matrix, [*taken, i]) - before for i in free}
        assert score == pytest.approx(gains[chosen], abs=1e-4)
        assert gains[chosen] >= max(gains.values()) - 1e-4
        taken.append(chosen)
    assert selection.stats["log_det"] == pytest.approx(log_det(matrix, taken), abs=1e-3)


def test_choices_are_those_of_naive_greedy():
    rows = clustered(60, width=8, seed=5)
    ids = np.arange(60) * 7
    matrix = kernel(rows)

    def gain(taken: list[int], i: int) -> float:
        return round(log_det(matrix, [*taken, i]), 9)

    wanted, _ = naive_greedy(60, ids, 20, gain)

    np.testing.assert_array_equal(select(rows, 20).indices, wanted)


def test_gains_never_grow_and_fewer_are_a_prefix_of_more():
    rows = clustered(3000, width=32, seed=6)

    many, few = select(rows, 300), select(rows, 40)

    assert (np.diff(scores_of(many)) <= 1e-4).all()
    np.testing.assert_array_equal(many.indices[:40], few.indices)
    chosen = many.indices.tolist()
    assert many.stats["log_det"] == pytest.approx(
        log_det(kernel(rows), chosen), rel=1e-4
    )


def test_volume_is_near_the_best_one():
    for seed in range(5):
        rows = np.random.default_rng(seed).standard_normal((10, 4)).astype(np.float32)
        matrix = kernel(rows)

        found = np.exp(select(rows, 3).stats["log_det"])

        best = max(
            np.exp(log_det(matrix, list(chosen)))
            for chosen in itertools.combinations(range(10), 3)
        )
        assert best / 6**2 <= found <= best * (1 + 1e-5)  # of (K!)^2


def test_copies_come_last():
    distinct = clustered(12, width=16, seed=7)
    rows = np.repeat(distinct, 3, axis=0)

    selection = select(rows, 24)

    assert len(np.unique(rows[selection.indices[:12]], axis=0)) == 12
    # Given itself, what is left of an example is about twice the ridge.
    assert (scores_of(selection)[12:] < np.log(0.03)).all()


def test_quality_decides_among_equally_diverse_examples():
    rows = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    losses = np.random.default_rng(0).gamma(2.0, size=20)

    selection = select(rows, 4, losses, score="loss")

    best = losses.reshape(4, 5).argmax(axis=1) + np.arange(4) * 5
    assert set(selection.indices) == set(best.tolist())
    assert list(losses[selection.indices]) == sorted(losses[best], reverse=True)


def test_quality_of_a_deviation_is_worth_its_weight():
    rows = np.eye(3, dtype=np.float32)
    losses = np.array([1.0, 2.0, 3.0])

    scores = scores_of(select(rows, 3, losses, score="loss", quality=2.0))

    z = (losses - 2) / losses.std()
    np.testing.assert_allclose(scores, np.log(1.01) + 2 * np.sort(z)[::-1], rtol=1e-6)


def test_large_quality_is_top_k():
    rows = clustered(200, seed=8)
    losses = np.random.default_rng(1).permutation(200).astype(np.float64)

    selection = select(rows, 20, losses, score="loss", quality=10.0)

    assert losses[selection.indices].mean() > 170


def test_equal_scores_leave_diversity_alone():
    rows = clustered(100, seed=9)

    plain = select(rows, 30)
    scored = select(rows, 30, np.full(100, 1e300), score="loss")

    np.testing.assert_array_equal(plain.indices, scored.indices)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embeddings": "v"}, "must be the name of a feature"),
        ({"quality": -1.0}, r"quality must be in \[0, 10\]"),
        ({"quality": 11.0}, r"quality must be in \[0, 10\]"),
        ({"ridge": 0.0}, r"ridge must be in \[0.0001, 1\]"),
        ({"ridge": 2.0}, r"ridge must be in \[0.0001, 1\]"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LogDet(**fields)
