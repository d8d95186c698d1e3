"""Gumbel draws, their chances given the one that just missed, and their weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_worlds import plackett_luce

from curator.policies._draws import Draw, draw_by_logits, fill
from curator.rng import Noise

IDS = np.arange(8) + 40
LOGITS = np.log([0.5, 2.0, 1.0, 3.0, 0.25])


def law_of(exponent=1.0):
    return plackett_luce(np.exp(exponent * LOGITS), 2)


def chi_square(law, num_steps):
    counts = dict.fromkeys(law, 0)
    for step in range(num_steps):
        draw = draw_by_logits(LOGITS, IDS[:5], 2, Noise(seed=3, step=step))
        counts[tuple(draw.positions.tolist())] += 1
    expected = {key: share * num_steps for key, share in law.items()}
    return sum((counts[key] - mean) ** 2 / mean for key, mean in expected.items())


@pytest.mark.slow
def test_ordered_pairs_have_the_law_of_plackett_and_luce():
    law = law_of()

    assert math.fsum(law.values()) == pytest.approx(1)
    assert chi_square(law, 1000) < 43.8  # 99.9 %, 19 degrees of freedom


def test_another_law_is_told_apart():
    assert chi_square(law_of(exponent=2.0), 500) > 60


class FreeNoise(Noise):
    """Gumbel noise that is given for one example, to integrate over it."""

    def __init__(self, free_id: int, gumbel: float) -> None:
        super().__init__(seed=1, step=2)
        object.__setattr__(self, "free", (free_id, gumbel))

    def gumbel(self, ids, *, chunk=0):
        free_id, gumbel = self.free
        return np.where(ids == free_id, gumbel, super().gumbel(ids, chunk=chunk))


@pytest.mark.parametrize("num_drawn", [2, 5])
@pytest.mark.parametrize("free", [0, 4, 7])
def test_chances_are_exact_whatever_the_noise_of_the_others(free, num_drawn):
    # How often one candidate is drawn over its own noise, by the midpoint rule, is the
    # chance that is said, for any noise of the others. So E[drawn / chance] is 1.
    logits = np.linspace(-2, 0, 8)
    said = set()
    num_points = 200
    num_times = 0
    for uniform in (np.arange(num_points) + 0.5) / num_points:
        noise = FreeNoise(int(IDS[free]), float(-np.log(-np.log(uniform))))
        draw = draw_by_logits(logits, IDS, num_drawn, noise)
        num_times += int((draw.positions == free).sum())
        said.update(draw.chances[draw.positions == free].round(12).tolist())

    (chance,) = said
    assert num_times / num_points == pytest.approx(chance, abs=1 / num_points)


@settings(max_examples=60)
@given(
    st.lists(st.floats(-700, 0), min_size=1, max_size=12), st.integers(0, 12), st.data()
)
def test_weights_are_finite_and_at_least_their_floor(logits, num_drawn, data):
    num_drawn = min(num_drawn, len(logits))
    ids = np.arange(len(logits))
    noise = Noise(seed=data.draw(st.integers(0, 1000)), step=0)

    draw = draw_by_logits(np.array(logits), ids, num_drawn, noise)

    assert len(set(draw.positions.tolist())) == num_drawn
    assert ((draw.chances > 0) & (draw.chances <= 1)).all()
    weights = draw.weights("horvitz_thompson", len(logits))
    assert weights is not None
    assert np.isfinite(weights).all()
    assert (weights >= num_drawn / len(logits) * (1 - 1e-12)).all()


def test_an_example_of_little_chance_keeps_its_precision():
    # 1 - exp(-x) of its x, about 1e-18, is 0 in floats, and 1 / 0 is not a weight.
    logits = np.array([0.0] * 7 + [-40.0])
    others = np.sort(Noise(seed=1, step=2).gumbel(IDS[:7]))

    draw = draw_by_logits(logits, IDS, 2, FreeNoise(int(IDS[7]), 50.0))

    assert draw.positions[0] == 7
    assert draw.chances[0] == pytest.approx(np.exp(-40 - others[-2]), rel=1e-9, abs=0)


def test_everything_drawn_has_weight_one():
    draw = draw_by_logits(np.linspace(-5, 0, 8), IDS, 8, Noise(seed=0, step=0))

    np.testing.assert_array_equal(draw.weights("horvitz_thompson", 8), np.ones(8))


def test_no_weights_were_asked_for():
    assert Draw(np.array([1]), np.array([0.5])).weights("none", 4) is None


def test_those_without_a_chance_come_last_and_uniformly():
    logits = np.array([0.0, -np.inf, -1.0, -np.inf, -np.inf])
    ids = np.arange(5)
    counts = np.zeros(5)

    for step in range(300):
        draw = draw_by_logits(logits, ids, 3, Noise(seed=0, step=step))
        assert set(draw.positions[:2].tolist()) == {0, 2}
        np.testing.assert_allclose(draw.chances, [1, 1, 1 / 3])
        counts[draw.positions[2]] += 1

    assert counts[[0, 2]].sum() == 0
    assert ((counts[[1, 3, 4]] - 100) ** 2 / 100).sum() < 13.8  # 99.9 %, 2 d.f.


def test_fill_adds_nothing_to_a_full_draw():
    draw = Draw(np.array([2]), np.array([0.5]))

    assert fill(draw, np.array([2]), IDS, 1, Noise(seed=0, step=0)) is draw
