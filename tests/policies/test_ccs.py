from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from pair_worlds import scores_of

from curator.policies import CCS
from curator.policies._stratified import strata_of
from curator.rng import Noise

NOISE = Noise(seed=3, step=5)


def select(policy: CCS, values: np.ndarray, num: int, noise: Noise = NOISE):
    ids = np.arange(len(values)) * 7
    return policy.select(ids, {"learner.loss": values}, num, noise)


def pieces(ids: np.ndarray, values: np.ndarray, size: int):
    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(ids), size):
            yield ids[start : start + size], values[start : start + size]

    return chunks


def fair_counts(sizes: list[int], total: int) -> list[int]:
    """As equal as sizes allow, by handing out one at a time."""
    counts = [0] * len(sizes)
    for _ in range(total):
        free = [g for g in range(len(sizes)) if counts[g] < sizes[g]]
        counts[min(free, key=lambda g: counts[g])] += 1
    return counts


@settings(max_examples=50, deadline=None)
@given(
    values=nps.arrays(
        np.float32,
        st.integers(2, 120),
        elements=st.floats(-(2.0**99), 2.0**99, width=32)
        | st.integers(-3, 3).map(float),
    ),
    share=st.floats(0.01, 1),
    drop=st.floats(0, 0.9),
    num_strata=st.integers(1, 12),
    size=st.integers(1, 130),
)
def test_a_stream_brings_what_the_definition_says(
    values, share, drop, num_strata, size
):
    num = max(1, int(share * len(values)))
    policy = CCS(drop_hardest=drop, num_strata=num_strata)
    ids = np.arange(len(values)) * 7

    streamed = policy.stream(pieces(ids, values, size), num, NOISE)
    whole = select(policy, values.astype(np.float64), num)

    np.testing.assert_array_equal(ids[whole.indices], streamed.ids)
    num_kept = len(values) - min(round(drop * len(values)), len(values) - num)
    cut = np.sort(values)[num_kept - 1]
    kept = values[values <= cut].astype(np.float64)
    assert streamed.stats["num_dropped"] == len(values) - len(kept)
    assert (streamed.scores <= cut).all()
    width = kept.max() - kept.min()
    strata = min(num_strata, num)

    def stratum(value: np.ndarray) -> np.ndarray:
        places = (value - kept.min()) / width * strata if width else value * 0
        return np.clip(places, 0, strata - 1).astype(int)

    sizes = np.bincount(stratum(kept), minlength=strata)
    counts = np.bincount(stratum(streamed.scores), minlength=strata)
    assert sorted(counts) == sorted(fair_counts(sizes.tolist(), num))


def test_strata_are_those_of_the_stratified_policy():
    values = np.random.default_rng(0).gamma(2.0, size=500).astype(np.float32)
    policy = CCS(drop_hardest=0.0, num_strata=10)

    chosen = select(policy, values.astype(np.float64), 50).indices

    counts = np.bincount(strata_of(values.astype(np.float64), 10)[chosen], minlength=10)
    sizes = np.bincount(strata_of(values.astype(np.float64), 10), minlength=10)
    assert sorted(counts) == sorted(fair_counts(sizes.tolist(), 50))


def test_the_hardest_share_is_dropped_on_the_side_that_is_hard():
    values = np.random.default_rng(1).permutation(100).astype(np.float64)

    high = values[select(CCS(drop_hardest=0.3), values, 70).indices]
    low = values[select(CCS(drop_hardest=0.3, hard="low"), values, 70).indices]

    assert set(high) == set(range(70))
    assert set(low) == set(range(30, 100))


def test_equal_values_are_not_parted_and_enough_are_left():
    equal = select(CCS(drop_hardest=0.5), np.full(10, 2.0), 3)
    few = select(CCS(drop_hardest=0.5), np.arange(10.0), 8)

    assert equal.stats["num_dropped"] == 0
    assert few.stats["num_dropped"] == 2


def test_weights_make_the_mean_unbiased():
    values = np.random.default_rng(2).gamma(1.0, size=300)
    policy = CCS(drop_hardest=0.0, num_strata=7, weights="horvitz_thompson")
    counted = np.random.default_rng(3).standard_normal(300)

    means = []
    for seed in range(100):
        selection = select(policy, values, 40, Noise(seed, 0))
        means.append((selection.weights * counted[selection.indices]).mean())

    error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - counted.mean()) < 4 * error


def test_each_example_of_a_stratum_is_equally_likely():
    values = np.repeat([0.0, 1.0], [20, 60])
    policy = CCS(drop_hardest=0.0, num_strata=2)

    drawn = np.zeros(80)
    for seed in range(120):
        drawn[select(policy, values, 20, Noise(seed, 0)).indices] += 1

    # 10 of 20, and 10 of 60; five standard deviations.
    for part, chance in ((drawn[:20], 1 / 2), (drawn[20:], 1 / 6)):
        spread = np.sqrt(120 * chance * (1 - chance))
        assert (abs(part - 120 * chance) < 5 * spread).all()


def test_scores_are_the_values_as_given():
    values = np.random.default_rng(4).standard_normal(50).astype(np.float32)

    selection = select(CCS(hard="low"), values, 20)

    np.testing.assert_array_equal(scores_of(selection), values[selection.indices])


def test_a_large_stream_of_small_chunks_is_that_of_one_chunk():
    rng = np.random.default_rng(5)
    ids, values = (
        rng.permutation(60_000),
        rng.standard_normal(60_000).astype(np.float32),
    )
    values[::1000] = np.nan

    many = CCS().stream(pieces(ids, values, 7_777), 6_000, NOISE)
    one = CCS().stream(pieces(ids, values, 60_000), 6_000, NOISE)

    np.testing.assert_array_equal(many.ids, one.ids)
    np.testing.assert_array_equal(many.scores, one.scores)
    assert many.stats == one.stats
    assert many.stats["num_quarantined"] == 60


def test_what_float32_cannot_hold_is_set_aside():
    selection = select(CCS(), np.array([1.0, 1e300, 2.0, np.nan]), 3)

    assert selection.stats["num_quarantined"] == 2
    assert selection.stats["num_topped_up"] == 1


@pytest.mark.parametrize("num", [0, 3])
def test_a_stream_with_too_few_values_is_an_error(num):
    values = np.array([1.0, np.nan, 2.0])

    with pytest.raises(ValueError, match=f"number of finite values.*got {num} for 2"):
        CCS().stream(pieces(np.arange(3), values, 2), num, NOISE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"by": "loss"}, "must be the name of a feature"),
        ({"num_strata": 0}, "num_strata must be finite and at least 1"),
        ({"drop_hardest": 1.0}, r"drop_hardest must be in \[0, 1\)"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CCS(**fields)


def test_unknown_side_is_refused():
    # The checked constructor of the tests would refuse the type first.
    policy = CCS()
    object.__setattr__(policy, "hard", "both")

    with pytest.raises(ValueError, match="hard must be 'high' or 'low'; got 'both'"):
        policy.__post_init__()
