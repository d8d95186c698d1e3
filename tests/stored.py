"""Embeddings that are a function of the id, and a check that they came back."""

from __future__ import annotations

import numpy as np

from curator.store import EmbeddingStore
from curator.types import PairEmbeddings

NUM_EXAMPLES = 1000
DIM = 24


def embeddings_of(
    ids: np.ndarray, dim: int = DIM, scale: float = 10.0, bias: float | None = -10.0
) -> PairEmbeddings:
    """Embeddings that are a function of the id, so that a reader can tell."""
    both = np.sin(np.outer(ids + 1, np.arange(1, 2 * dim + 1))).astype(np.float32)
    return PairEmbeddings(both[:, :dim], both[:, dim:], scale, bias)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def check_present(store: EmbeddingStore, ids: np.ndarray, dim: int = DIM) -> np.ndarray:
    """Checks that rows that are present are right, the others NaN; returns which."""
    found = store.get(ids)
    if found is None:
        return np.zeros(len(ids), np.bool_)
    present, embeddings = found
    expected = embeddings_of(ids, dim)
    for name in ("queries", "targets"):
        rows = getattr(embeddings, name)
        assert np.array_equal(rows[present], getattr(expected, name)[present])
        assert np.isnan(rows[~present]).all()
    return present
