from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from embedding_worlds import clustered, coverage, naive_greedy, similarities
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import scores_of

import curator.policies._coverage as module
from curator.policies import FacilityLocation
from curator.rng import Noise

NOISE = Noise(seed=3, step=5)


def select(rows: np.ndarray, num: int):
    policy = FacilityLocation(embeddings="pool.v")
    return policy.select(np.arange(len(rows)) * 7, {"pool.v": rows}, num, NOISE)


def naive(rows: np.ndarray, num: int) -> tuple[list[int], list[float]]:
    matrix = similarities(rows)

    def gain(taken: list[int], i: int) -> float:
        before = matrix[taken].max(axis=0) if taken else np.zeros(len(rows))
        return round(float(np.maximum(matrix[i] - before, 0).mean()), 9)

    return naive_greedy(len(rows), np.arange(len(rows)) * 7, num, gain)


def test_choices_and_gains_are_those_of_naive_greedy():
    rows = clustered(150, seed=1)

    selection = select(rows, 40)

    chosen, gains = naive(rows, 40)
    np.testing.assert_array_equal(selection.indices, chosen)
    np.testing.assert_allclose(scores_of(selection), gains, atol=1e-6)
    assert selection.stats["coverage"] == pytest.approx(
        coverage(rows, np.array(chosen))
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(2, 40), width=st.integers(1, 5))
def test_every_choice_gains_as_much_as_any_other_would(seed, num, width):
    rows = np.random.default_rng(seed).standard_normal((num, width)).astype(np.float32)
    matrix = similarities(rows)

    selection = select(rows, num)

    covered = np.zeros(num)
    for chosen, score in zip(selection.indices, scores_of(selection), strict=True):
        gains = np.maximum(matrix - covered, 0).mean(axis=1)
        assert score == pytest.approx(gains[chosen], abs=1e-6)
        assert gains[chosen] >= gains.max() * (1 - 1e-4) - 1e-6
        covered = np.maximum(covered, matrix[chosen])
    assert selection.stats["coverage"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kept", [0, 1 << 28])
@pytest.mark.parametrize("share", [0.0, 1 / 16, 1.0])
def test_how_it_is_computed_changes_no_choice(kept, share, monkeypatch):
    rows = clustered(700, seed=2)
    plain = select(rows, 70)

    monkeypatch.setattr(module, "_MAX_KEPT", kept)
    monkeypatch.setattr(module, "_MAX_SHARE", share)
    other = select(rows, 70)

    np.testing.assert_array_equal(plain.indices, other.indices)
    np.testing.assert_allclose(scores_of(plain), scores_of(other), atol=1e-6)


def test_coverage_is_at_least_63_percent_of_the_best():
    for seed in range(5):
        rows = np.random.default_rng(seed).standard_normal((10, 3)).astype(np.float32)

        found = select(rows, 3).stats["coverage"]

        best = max(
            coverage(rows, np.array(chosen))
            for chosen in itertools.combinations(range(10), 3)
        )
        assert (1 - 1 / math.e) * best <= found <= best + 1e-6


def test_gains_never_grow_and_fewer_are_a_prefix_of_more():
    rows = clustered(1100, seed=3)

    many, few = select(rows, 90), select(rows, 30)

    assert (np.diff(scores_of(many)) <= 1e-6).all()
    np.testing.assert_array_equal(many.indices[:30], few.indices)


def test_copies_come_after_all_distinct_examples_with_no_gain():
    distinct = clustered(30, seed=4)
    rows = np.repeat(distinct, 4, axis=0)

    selection = select(rows, 60)

    assert len(np.unique(rows[selection.indices[:30]], axis=0)) == 30
    assert (scores_of(selection)[30:] == 0).all()


def test_dense_parts_come_before_outliers():
    rows = clustered(300, seed=5, topics=2)
    rows[7] = -rows.mean(axis=0)

    selection = select(rows, 10)

    assert 7 not in selection.indices[:1]
    assert coverage(rows, selection.indices) > coverage(rows, np.arange(10))


def test_wrong_field_is_refused():
    with pytest.raises(ValueError, match="must be the name of a feature"):
        FacilityLocation(embeddings="rows")
