from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_worlds import draws, mean_weights, select

from curator.policies import SelectiveBackprop
from curator.policies._selective_backprop import draw_in_passes, percentiles
from curator.rng import Noise

IDS = np.arange(5) + 40
CHANCES = np.array([0.05, 0.6, 0.3, 0.9, 0.1])


def literal_passes(chances, num_drawn, rng):
    """Bernoulli passes in random order, until enough are kept, as one writes them."""
    order, kept = rng.permutation(len(chances)), []
    while True:
        for candidate in order:
            if candidate not in kept and rng.random() < chances[candidate]:
                kept.append(int(candidate))
                if len(kept) == num_drawn:
                    return tuple(kept)


@pytest.mark.slow
def test_law_is_that_of_passes_that_are_really_made():
    rng = np.random.default_rng(0)
    law, num_literal, num_steps = {}, 4000, 500
    for _ in range(num_literal):
        kept = literal_passes(CHANCES[:4], 2, rng)
        law[kept] = law.get(kept, 0) + 1 / num_literal
    counts = dict.fromkeys(law, 0)

    for step in range(num_steps):
        draw, _ = draw_in_passes(CHANCES[:4], IDS[:4], 2, Noise(seed=1, step=step))
        counts[tuple(draw.positions.tolist())] += 1

    # Both are samples: the variance of their difference is that of one, and an eighth.
    distance = sum(
        (counts[key] - share * num_steps) ** 2 / (share * num_steps)
        for key, share in law.items()
    )
    assert len(law) == 12
    assert distance / (1 + num_steps / num_literal) < 31.3  # 99.9 %, 11 d.f.


class FreeNoise(Noise):
    """Noise that is given for one example: its place in the order, and its passes."""

    def __init__(self, free_id: int, place: float, passes: float) -> None:
        super().__init__(seed=4, step=2)
        object.__setattr__(self, "free", (free_id, {1: place, 2: passes}))

    def uniform(self, ids, *, chunk=0):
        free_id, given_of_chunk = self.free
        values = super().uniform(ids, chunk=chunk)
        return np.where(ids == free_id, given_of_chunk.get(chunk, values), values)


@pytest.mark.parametrize("free", [0, 2, 3])
def test_chances_are_exact_whatever_the_noise_of_the_others(free):
    grid = (np.arange(20) + 0.5) / 20
    said, num_times = set(), 0
    for place in grid:
        for passes in grid:
            noise = FreeNoise(int(IDS[free]), float(place), float(passes))
            draw, _ = draw_in_passes(CHANCES, IDS, 3, noise)
            num_times += int((draw.positions == free).sum())
            said.update(draw.chances[draw.positions == free].round(12).tolist())

    (chance,) = said
    assert num_times / 20**2 == pytest.approx(chance, abs=1.5 / 20)


@pytest.mark.slow
def test_weights_make_every_candidate_count_once():
    policy = SelectiveBackprop(beta=1.0, p_min=0.2, weights="horvitz_thompson")

    mean, error = mean_weights(draws(policy, [1.0, 3.0, 2.0, 9.0, 5.0], 3, 400), 5)

    assert (np.abs(mean - 1) < 4 * error).all()
    assert (error < 0.2).all()


@pytest.mark.slow
@pytest.mark.parametrize(("num_lowest", "first"), [(4, 4), (6, 0)])
def test_weights_preserve_the_mean_over_those_that_may_be_kept(num_lowest, first):
    """Many share the lowest loss: they are out, or in where the others are too few."""
    policy = SelectiveBackprop(beta=1.0, weights="horvitz_thompson")
    scores = [0.0] * num_lowest + list(range(1, 9 - num_lowest))

    mean, error = mean_weights(draws(policy, scores, 3, 400), 8)

    assert (np.abs(mean[first:] * (8 - first) / 8 - 1) <= 4 * error[first:]).all()
    assert (mean[:first] == 0).all()


def test_weights_are_in_proportion_to_one_over_chance_within_one_pass():
    scores = np.arange(100.0)
    policy = SelectiveBackprop(beta=1.0, p_min=0.1, weights="horvitz_thompson")

    selection = select(policy, scores, 10)

    chances = np.maximum(selection.indices / 100, 0.1)
    assert selection.stats["num_passes"] == 1
    products = selection.weights * chances
    np.testing.assert_allclose(products, products[0], rtol=1e-5)


@settings(max_examples=60)
@given(
    st.lists(st.floats(-5, 5, width=32), max_size=30),
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=30),
)
def test_percentile_is_the_share_strictly_below(ring, values):
    ring, values = np.array(ring, np.float32), np.array(values, np.float32)

    found = percentiles(values, ring)

    expected = [(ring < value).sum() / max(len(ring), 1) for value in values]
    np.testing.assert_allclose(found, expected)


def test_candidates_enter_the_ring_before_percentiles_are_taken():
    # Alone in the ring, the lowest has percentile 0 and the highest 3/4.
    stats = select(SelectiveBackprop(beta=1.0), [4.0, 1.0, 3.0, 2.0], 1).stats

    assert stats["keep_mean"] == pytest.approx((0 + 1 + 2 + 3) / 4 / 4)


def test_losses_of_past_steps_count_too():
    high_past = select(SelectiveBackprop(beta=1.0), [1.0, 2.0], 1, memory=[9.0] * 6)
    low_past = select(SelectiveBackprop(beta=1.0), [1.0, 2.0], 1, memory=[0.0] * 6)

    assert high_past.stats["keep_mean"] == pytest.approx((0 + 1) / 8 / 2)
    assert low_past.stats["keep_mean"] == pytest.approx((6 + 7) / 8 / 2)


def test_ring_drops_the_oldest():
    policy = SelectiveBackprop(beta=1.0, ring_size=4)

    stats = select(policy, [1.0, 2.0], 1, memory=[0.0, 0.0, 9.0, 9.0]).stats

    assert stats["keep_mean"] == pytest.approx((0 + 1) / 4 / 2)
    assert policy.memory_rows == 4


@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_share_that_a_pass_keeps(beta):
    losses = np.random.default_rng(0).gamma(2.0, size=1000)

    stats = select(SelectiveBackprop(beta=beta), losses, 1).stats

    assert stats["keep_mean"] == pytest.approx(1 / (beta + 1), abs=0.01)


def test_remembered_losses_compare_as_equal_when_they_come_back():
    # 0.1 in float64 is below 0.1 in float32: compared so, it would be below itself.
    losses = np.array([0.1, 0.3, 0.7])
    policy = SelectiveBackprop(beta=1.0)
    remembered = select(policy, losses, 1).remember

    again = select(policy, losses, 1, memory=remembered.ravel().tolist())

    assert again.stats["keep_mean"] == pytest.approx((0 + 2 + 4) / 6 / 3)


def test_remembers_every_usable_candidate_once():
    selection = select(SelectiveBackprop(), [3.0, np.nan, 1.0, np.inf, 2.0], 2)

    assert selection.remember.shape == (3, 1)
    assert sorted(selection.remember.ravel()) == [1, 2, 3]
    few = select(SelectiveBackprop(ring_size=2), [3.0, 1.0, 2.0], 2)
    assert few.remember.shape == (2, 1)


def test_losses_beyond_float32_are_remembered_finite():
    selection = select(SelectiveBackprop(), [1e300, -1e300, 0.0], 2)

    assert selection.remember is not None
    assert np.isfinite(selection.remember).all()


def test_only_ranks_count():
    scores = np.random.default_rng(1).gamma(2.0, size=40)

    first = select(SelectiveBackprop(), scores, 10)
    second = select(SelectiveBackprop(), np.exp(scores), 10)

    np.testing.assert_array_equal(first.indices, second.indices)


def test_high_losses_are_preferred():
    counts = np.zeros(8)
    for selection in draws(SelectiveBackprop(beta=2.0), np.arange(8.0), 2, 150):
        counts[selection.indices] += 1

    assert counts[7] > counts[5] > counts[3] > counts[1] >= counts[0] == 0


def test_least_chance_lets_the_lowest_in():
    policy = SelectiveBackprop(p_min=0.5)

    chosen = [selection.indices for selection in draws(policy, np.arange(8.0), 2, 60)]

    assert 0 in np.concatenate(chosen)


def test_equal_losses_have_no_chance_and_are_drawn_uniformly():
    # Nothing is strictly below anything: without an end, passes would go on for ever.
    counts = np.zeros(4)

    for selection in draws(SelectiveBackprop(), np.ones(4), 2, 200):
        assert selection.stats["num_passes"] == 0
        counts[selection.indices] += 1

    deviation = ((counts - 100) ** 2 / (100 * 0.5)).sum() * 3 / 4
    assert deviation < 16.3  # 99.9 %, 3 degrees of freedom


@pytest.mark.parametrize("beta", [3.0, 40.0, 107.0, 1000.0])
def test_tiny_chances_take_no_longer_and_leave_no_infinity(beta):
    policy = SelectiveBackprop(beta=beta, weights="horvitz_thompson")

    selection = select(policy, np.arange(1.0, 1025.0), 1023)

    assert len(set(selection.indices.tolist())) == 1023
    assert all(math.isfinite(value) for value in selection.stats.values())
    assert np.isfinite(selection.weights).all()


def test_draws_in_one_pass_what_is_certain():
    draw, num_passes = draw_in_passes(np.ones(5), IDS, 3, Noise(seed=0, step=0))

    assert num_passes == 1
    assert len(draw.positions) == 3
    assert (draw.chances > 0).all()


def test_number_of_passes_is_that_of_the_last_kept():
    chances = np.full(5, 1e-3)

    _, num_passes = draw_in_passes(chances, IDS, 1, Noise(seed=0, step=0))

    assert 5 < num_passes < 3000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beta": -1.0}, "beta must be finite and at least 0; got -1"),
        ({"ring_size": 0}, "ring_size must be finite and at least 1; got 0"),
        ({"p_min": 1.5}, r"p_min must be in \[0, 1\]; got 1.5"),
        ({"p_min": math.nan}, r"p_min must be in \[0, 1\]; got nan"),
    ],
)
def test_field_out_of_range_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        SelectiveBackprop(**fields)
