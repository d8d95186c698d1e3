from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import unit

from curator.offline import Negatives
from curator.offline import _negatives as module
from curator.offline._negatives import negatives_of


def by_definition(batches, queries, targets, labels, places) -> Negatives | None:
    """Means over pairs of a batch, one pair after the other."""
    queries, targets = unit(queries), unit(targets)
    cosines, hardest = [], []
    for place in places:
        batch = batches[place // batches.shape[1]]
        one = batches.ravel()[place]
        found = [
            float(queries[one] @ targets[other])
            for other in batch
            if other != one and (labels is None or labels[one] != labels[other])
        ]
        cosines += found
        hardest += [max(found)] if found else []
    if not cosines:
        return None
    return Negatives(float(np.mean(cosines)), float(np.mean(hardest)))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_batches=st.integers(1, 6),
    size=st.integers(1, 9),
    most=st.integers(1, 60),
    labelled=st.booleans(),
)
def test_they_are_those_of_the_definition(seed, num_batches, size, most, labelled):
    rng = np.random.default_rng(seed)
    num = num_batches * size + 3
    queries, targets = rng.standard_normal((2, num, 5)).astype(np.float32)
    labels = rng.integers(0, 3, num) if labelled else None
    batches = rng.permutation(num)[: num_batches * size].reshape(num_batches, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MAX_QUERIES", most)
        patch.setattr(module, "_BLOCK", 2)
        found = negatives_of(batches, queries, targets, labels)

    step = -(-batches.size // most)
    places = range(0, batches.size, step)
    wanted = by_definition(batches, queries, targets, labels, places)
    if wanted is None:
        assert found is None
    else:
        assert found is not None
        assert found.mean == pytest.approx(wanted.mean, abs=1e-6)
        assert found.hardest == pytest.approx(wanted.hardest, abs=1e-6)


def test_a_batch_of_one_has_none():
    rows = np.eye(4, dtype=np.float32)

    assert negatives_of(np.arange(4)[:, None], rows, rows) is None
