from __future__ import annotations

import itertools

import numpy as np

from curator.policies import Uniform
from curator.rng import Noise


def test_every_subset_is_equally_likely():
    ids = np.array([3, 14, 15, 92, 65])
    counts = dict.fromkeys(itertools.combinations(range(5), 2), 0)

    for step in range(1000):
        selection = Uniform().select(ids, {}, 2, Noise(seed=1, step=step))
        counts[tuple(sorted(selection.indices.tolist()))] += 1

    chi_square = sum((count - 100) ** 2 / 100 for count in counts.values())
    assert chi_square < 27.9  # 99.9 % of chi-square with 9 degrees of freedom


def test_needs_nothing_and_ranks_by_nothing():
    selection = Uniform().select(np.arange(4), {}, 2, Noise(seed=0, step=0))

    assert Uniform().needs == frozenset()
    assert selection.scores is None
    assert selection.weights.tolist() == [1, 1]


def test_steps_draw_differently():
    ids = np.arange(1000)

    first, second = (
        Uniform().select(ids, {}, 10, Noise(seed=0, step=step)) for step in (0, 1)
    )

    assert set(first.indices.tolist()) != set(second.indices.tolist())
