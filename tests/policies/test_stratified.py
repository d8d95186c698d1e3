from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_worlds import draws, mean_weights, select

from curator.policies import Stratified
from curator.policies._stratified import strata_of
from curator.rng import Noise

ALL = Stratified(drop_highest=0.0, weights="horvitz_thompson")
# Ten easy, three middling, one hard: strata of width 1 from 0 to 3.
SKEWED = np.array([0.0, *[0.1] * 9, 1.2, 1.3, 1.4, 3.0])


@settings(max_examples=80)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.integers(1, 12))
def test_strata_have_equal_width_over_the_range(scores, num_strata):
    scores = np.array(scores)

    strata = strata_of(scores, num_strata)

    low, high = scores.min(), scores.max()
    if low == high:
        assert set(strata.tolist()) == {0}
        return
    width = (high - low) / num_strata
    slack = 1e-9 * (abs(low) + abs(high))
    assert (scores >= low + strata * width - slack).all()
    assert (scores <= low + (strata + 1) * width + slack).all()
    assert strata.max() == num_strata - 1
    assert strata.min() == 0


@pytest.mark.parametrize("shift", [-50.0, -9.0, 0.0, 5.0])
def test_highest_score_is_in_a_stratum_whatever_its_sign(shift):
    # An upper edge of 1.0001 times the maximum lies below a maximum below 0.
    scores = np.linspace(0, 9, 10) + shift

    assert strata_of(scores, 5).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e307, 1.7e308])
def test_strata_of_scores_at_the_ends_of_the_floats(scale):
    assert strata_of(np.array([-1.0, 0.0, 1.0]) * scale, 2).tolist() == [0, 1, 1]


def test_every_part_of_the_range_gets_its_share():
    for selection in draws(Stratified(drop_highest=0.0, num_strata=3), SKEWED, 6, 20):
        chosen = SKEWED[selection.indices]
        assert [(chosen < 1).sum(), ((chosen > 1) & (chosen < 2)).sum()] == [3, 2]
        assert (chosen == 3).sum() == 1
        assert selection.stats["num_strata"] == 3
        assert selection.weights.tolist() == [1] * 6


def test_weights_are_size_over_number_drawn_with_mean_one():
    selection = select(dataclasses.replace(ALL, num_strata=3), SKEWED, 6)

    expected = np.where(SKEWED < 1, 10 / 3, np.where(SKEWED < 2, 3 / 2, 1)) * 6 / 14
    np.testing.assert_allclose(
        selection.weights, expected[selection.indices], rtol=1e-6
    )
    assert selection.weights.mean() == pytest.approx(1)


@pytest.mark.slow
def test_weights_make_every_candidate_count_once():
    policy = dataclasses.replace(ALL, num_strata=3)

    mean, error = mean_weights(draws(policy, SKEWED, 5, 500), len(SKEWED))

    assert (np.abs(mean - 1) < 4 * error + 1e-6).all()
    assert (error < 0.15).all()


@pytest.mark.parametrize(
    ("share", "num_candidates", "num_dropped"),
    [(0.0, 100, 0), (0.3, 10, 3), (0.29, 100, 29), (0.7, 10, 7), (0.9, 10, 8)],
)
def test_highest_scores_are_dropped(share, num_candidates, num_dropped):
    # 0.29 * 100 is below 29 in floats; and of ten, two have to be left.
    scores = np.random.default_rng(0).permutation(
        float(num_candidates) + np.arange(num_candidates)
    )
    policy = Stratified(drop_highest=share)

    for selection in draws(policy, scores, 2, 10):
        assert selection.stats["num_dropped"] == num_dropped
        assert (selection.scores < 2 * num_candidates - num_dropped).all()


def test_ties_at_the_cut_are_dropped_at_random():
    # 3 of 6 equal ones are dropped: in the end each has been chosen.
    counts = np.zeros(8)
    scores = np.array([0.0, 0.0, *[5.0] * 6])
    policy = Stratified(drop_highest=0.375, num_strata=2)

    for selection in draws(policy, scores, 4, 240):
        counts[selection.indices] += 1

    assert counts[:2].tolist() == [240, 240]
    assert ((counts[2:] - 80) ** 2 / (80 * 2 / 3)).sum() * 5 / 6 < 20.5  # 99.9 %


def test_what_is_kept_of_ties_is_not_preferred_inside_its_stratum():
    # 5 and 5.1 share a stratum; half of the fives are dropped, the tens of 4.9 stay.
    scores = np.array([0.0] * 10 + [4.9] * 10 + [5.0] * 20)
    policy = Stratified(drop_highest=0.25, num_strata=2)
    num_of_ties = 0

    for selection in draws(policy, scores, 10, 150):
        num_of_ties += int((selection.scores == 5.0).sum())

    # 5 of the 20 that are kept, 10 of them ties, per step.
    expected, sd = 150 * 2.5, math.sqrt(150 * 5 * 0.25 * 15 / 19)
    assert abs(num_of_ties - expected) < 4 * sd


def test_small_batches_have_a_stratum_per_example():
    for num_selected in (1, 2, 5):
        selection = select(ALL, np.linspace(0, 1, 40), num_selected)
        assert selection.stats["num_strata"] == num_selected


def test_equal_scores_are_drawn_uniformly():
    counts = np.zeros(6)

    for selection in draws(Stratified(), np.full(6, -2.0), 2, 150):
        assert selection.stats["num_strata"] == 1
        counts[selection.indices] += 1

    assert ((counts - 50) ** 2 / (50 * 2 / 3)).sum() * 5 / 6 < 20.5  # 99.9 %, 5 d.f.


@settings(max_examples=30)
@given(
    st.lists(st.integers(-50, 50), min_size=3, max_size=30),
    st.sampled_from([(2.0, 0.0), (0.25, 0.0), (1.0, 64.0), (4.0, -16.0)]),
)
def test_positive_affine_maps_change_nothing(scores, affine):
    factor, shift = affine
    scores = np.array(scores, np.float64)
    policy = Stratified(num_strata=4, weights="horvitz_thompson")

    first, second = (
        select(policy, given, 3) for given in (scores, factor * scores + shift)
    )

    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_array_equal(first.weights, second.weights)


def test_everything_unusable_is_topped_up():
    selection = select(ALL, np.full(4, np.nan), 2)

    assert selection.stats["num_topped_up"] == 2
    assert selection.weights.tolist() == [1, 1]


def test_steps_draw_differently():
    scores = np.linspace(0, 1, 30)
    chosen = {
        tuple(select(Stratified(), scores, 6, noise=Noise(seed=0, step=step)).indices)
        for step in range(5)
    }

    assert len(chosen) == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"drop_highest": 1.0}, r"drop_highest must be in \[0, 1\); got 1.0"),
        ({"drop_highest": -0.1}, r"drop_highest must be in \[0, 1\); got -0.1"),
        ({"drop_highest": math.nan}, r"drop_highest must be in \[0, 1\); got nan"),
        ({"num_strata": 0}, "num_strata must be finite and at least 1; got 0"),
    ],
)
def test_field_out_of_range_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        Stratified(**fields)
