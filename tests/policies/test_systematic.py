from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.policies._systematic import draw_systematically


def exact_inclusion(chances, num_drawn):
    """How often each is drawn, over all starts: what is drawn is constant between the
    fractional parts of the partial sums."""
    edges = np.unique(np.concatenate([[0, 1], np.cumsum(chances) % 1]))
    shares = np.zeros(len(chances))
    for low, high in itertools.pairwise(edges):
        drawn = draw_systematically(chances, num_drawn, float(low + high) / 2)
        shares[drawn] += high - low
    return shares


@settings(max_examples=80)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=12), st.data())
def test_inclusion_is_exact_over_all_starts(lengths, data):
    num_drawn = data.draw(st.integers(1, len(lengths) - 1))
    chances = np.array(lengths) / sum(lengths) * num_drawn
    if chances.max() > 1:  # an admissible case: all equal
        chances = np.full(len(lengths), num_drawn / len(lengths))

    np.testing.assert_allclose(exact_inclusion(chances, num_drawn), chances, atol=1e-12)


def test_certain_candidates_are_always_drawn_and_come_first():
    chances = np.array([0.5, 1.0, 0.25, 1.0, 0.25])

    for start in np.linspace(0, 0.999, 50):
        drawn = draw_systematically(chances, 3, float(start))
        assert drawn[:2].tolist() == [1, 3]
        assert len(set(drawn.tolist())) == 3


@pytest.mark.parametrize("start", [0.0, 0.5, 1 - 2.0**-53])
@pytest.mark.parametrize("excess", [-(2.0**-50), 2.0**-50])
def test_rounding_draws_nobody_twice_and_nobody_beyond_the_end(start, excess):
    # Chances just below 1, a sum that misses the whole number on either side.
    chances = np.full(3000, 1 - 2.0**-53)
    chances[::7] = 0.25
    num_drawn = round(float(chances.sum()))
    chances[-1] += excess

    drawn = draw_systematically(chances, num_drawn, start)

    assert len(np.unique(drawn)) == num_drawn
    assert drawn.min() >= 0
    assert drawn.max() < 3000


def test_all_or_none():
    assert draw_systematically(np.ones(4), 4, 0.3).tolist() == [0, 1, 2, 3]
    assert draw_systematically(np.zeros(4), 0, 0.3).tolist() == []
