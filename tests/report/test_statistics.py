"""Statistics read in blocks are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curator.report._statistics import (
    GroupCounts,
    Histogram,
    Nearest,
    Quantiles,
    Survey,
    sample_of,
)

SHARES = (0.0, 0.001, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999, 1.0)

arrays = hnp.arrays(
    np.float32,
    st.integers(0, 60),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)
blocks_of = st.integers(1, 20)


def blocks(values: np.ndarray, size: int):
    ids = np.arange(len(values))[::-1].copy()  # ids need not ascend
    for start in range(0, len(values), size):
        yield ids[start : start + size], values[start : start + size]


def survey_of(values: np.ndarray, size: int = 7, num_kept: int = 5) -> Survey:
    survey = Survey(num_kept)
    for ids, block in blocks(values, size):
        survey.add(ids, block)
    return survey


@given(values=arrays, size=blocks_of)
@settings(max_examples=60, deadline=None)
def test_quantiles_are_exact(values: np.ndarray, size: int) -> None:
    survey = survey_of(values, size)
    quantiles = Quantiles(survey)
    quantiles.want(*SHARES)
    for _, block in blocks(values, size):
        quantiles.add(block)

    finite = values[np.isfinite(values)]
    found = [quantiles.at(share) for share in SHARES]

    if len(finite):
        expected = np.quantile(finite, SHARES, method="inverted_cdf")
        np.testing.assert_array_equal(np.array(found, np.float32), expected)
    else:
        assert np.isnan(found).all()


@given(values=arrays, size=blocks_of)
@settings(max_examples=60, deadline=None)
def test_a_survey_counts_and_ranks_what_is_finite(
    values: np.ndarray, size: int
) -> None:
    survey = survey_of(values, size, num_kept=3)

    ids = np.arange(len(values))[::-1]
    finite = np.isfinite(values)
    assert survey.count == finite.sum()
    assert survey.num_nan == np.isnan(values).sum()
    assert survey.num_infinite == np.isinf(values).sum()
    ranked = sorted(zip(values[finite].tolist(), ids[finite].tolist(), strict=True))
    assert survey.lowest.ids.tolist() == [i for _, i in ranked[:3]]
    ranked.sort(key=lambda pair: (-pair[0], pair[1]))
    assert survey.highest.ids.tolist() == [i for _, i in ranked[:3]]
    assert survey.highest.values.tolist() == [v for v, _ in ranked[:3]]


def test_mean_and_deviation_do_not_cancel_far_from_zero() -> None:
    rng = np.random.default_rng(0)
    values = (20_000 + rng.standard_normal(5000)).astype(np.float32)

    survey = survey_of(values, 300)

    assert survey.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    assert survey.deviation == pytest.approx(values.astype(np.float64).std(), rel=1e-9)
    assert (survey.minimum, survey.maximum) == (values.min(), values.max())


def test_a_histogram_counts_inside_and_outside() -> None:
    histogram = Histogram(np.array([0.0, 1.0, 2.0]))

    histogram.add(np.array([-1, 0, 0.5, 1, 2, 2.5, np.nan, np.inf], np.float32))

    assert histogram.counts.tolist() == [2, 2]
    assert histogram.num_outside == 2


def test_the_nearest_come_in_order_of_their_numbers() -> None:
    nearest = Nearest(1.0, 3)

    nearest.add(np.arange(3), np.array([5, 1.25, np.nan], np.float32))
    nearest.add(np.arange(3, 6), np.array([0.5, 1.0, -9], np.float32))

    assert nearest.nearest.ids.tolist() == [3, 4, 1]


def test_groups_have_the_quantiles_of_their_own() -> None:
    rng = np.random.default_rng(0)
    groups = rng.choice([-1, 0, 1], 4000)
    values = (rng.random(4000) + groups).astype(np.float32)
    counts = GroupCounts(0.0, 2.0, 3)

    for start in range(0, 4000, 900):
        part = slice(start, start + 900)
        counts.add(groups[part], values[part])

    assert counts.sizes.tolist() == [(groups == 0).sum(), (groups == 1).sum(), 0]
    found = counts.quantiles(0.25, 0.5)
    for group in (0, 1):
        expected = np.quantile(values[groups == group], [0.25, 0.5])
        np.testing.assert_allclose(found[group], expected, atol=0.005)
    assert np.isnan(found[2]).all()


def test_a_sample_is_the_same_every_time_and_all_where_all_fit() -> None:
    assert sample_of(10, 10) is None
    chosen = sample_of(1000, 10)
    assert chosen is not None
    assert chosen.sum() == 10
    np.testing.assert_array_equal(chosen, sample_of(1000, 10))
