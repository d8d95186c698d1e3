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


@pytest.mark.parametrize(
    "changed",
    [
        # All by products; all by pairs.
        {"_MAX_SHARE": 0.0},
        {"_MAX_SHARE": 1.0},
        # Little is foreseen right: all pairs are looked at again, or those missing.
        {"_SAMPLE": 1, "_LIKELY": 0.0, "_MIN_LIKELY": 1, "_MAX_MISSING": 0},
        {"_SAMPLE": 1, "_LIKELY": 0.0, "_MIN_LIKELY": 1, "_MAX_MISSING": 1},
        {"_SAMPLE": 1, "_LIKELY": 0.0, "_MAX_FORESEEN": 3, "_MAX_SHARE": 1 / 40},
        {"_LARGER_SAMPLE": 100, "_MIN_LIKELY": 1},
        {"_ACTIVE": 3, "_LOOKED_AT": 1, "_MAX_LOOKED_AT": 2},
    ],
    ids=" ".join,
)
def test_how_it_is_computed_changes_no_choice(changed, monkeypatch):
    rows = clustered(700, seed=2)
    plain = select(rows, 70)

    for name, value in changed.items():
        monkeypatch.setattr(module, name, value)
    other = select(rows, 70)

    np.testing.assert_array_equal(plain.indices, other.indices)
    np.testing.assert_allclose(scores_of(plain), scores_of(other), atol=1e-6)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num=st.integers(2, 60),
    num_copies=st.integers(1, 3),
    likely=st.sampled_from([1, 2, 128]),
    larger=st.sampled_from([1, 5, 8192]),
    sample=st.sampled_from([1, 3, 1024]),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_what_was_foreseen_wrong_changes_no_choice(
    seed, num, num_copies, likely, larger, sample, missing, share
):
    distinct = np.random.default_rng(seed).standard_normal((num, 4))
    rows = np.repeat(distinct, num_copies, axis=0).astype(np.float32)
    num_taken = max(2, len(rows) // 2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MIN_LIKELY", likely)
        patch.setattr(module, "_LARGER_SAMPLE", larger)
        patch.setattr(module, "_SAMPLE", sample)
        patch.setattr(module, "_MAX_MISSING", missing)
        patch.setattr(module, "_MAX_SHARE", share)
        selection = select(rows, num_taken)

    matrix = similarities(rows)
    covered = np.zeros(len(rows))
    for chosen, score in zip(selection.indices, scores_of(selection), strict=True):
        gains = np.maximum(matrix - covered, 0).mean(axis=1)
        assert score == pytest.approx(gains[chosen], abs=1e-6)
        assert gains[chosen] >= gains.max() * (1 - 1e-4) - 1e-6
        covered = np.maximum(covered, matrix[chosen])
    assert len(np.unique(selection.indices)) == num_taken


@pytest.mark.parametrize("missing", [0.0, 1.0])
def test_a_choice_that_was_not_foreseen_is_made_all_the_same(missing, monkeypatch):
    rows = clustered(1300, seed=6, topics=40)
    plain = select(rows, 100)
    foresee = module.Coverage._foresee

    def foresee_the_opposite(coverage, num_taken):
        foreseen = foresee(coverage, num_taken)
        covered = [foreseen.covered[0]]
        for example in range(len(foreseen.covered) - 1):
            cosines = coverage._rows @ -coverage._rows[example]
            covered.append(np.maximum(covered[-1], cosines))
        return foreseen._replace(covered=np.stack(covered))

    monkeypatch.setattr(module.Coverage, "_foresee", foresee_the_opposite)
    monkeypatch.setattr(module, "_MAX_MISSING", missing)
    other = select(rows, 100)

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
