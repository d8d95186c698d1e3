"""Features that are a function of the id, and a check that they came back."""

from __future__ import annotations

import numpy as np

from curator.store import FeatureStore
from curator.types import PairEmbeddings

NUM_EXAMPLES = 1000
DIM = 24


def values_of(ids: np.ndarray, *shape: int) -> np.ndarray:
    """Rows of a shape that are a function of the id, so that a reader can tell."""
    width = int(np.prod(shape))
    rows = np.sin(np.outer(ids + 1, np.arange(1, width + 1))).astype(np.float32)
    return rows.reshape(len(ids), *shape)


def embeddings_of(
    ids: np.ndarray, dim: int = DIM, scale: float = 10.0, bias: float | None = -10.0
) -> PairEmbeddings:
    both = values_of(ids, 2 * dim)
    return PairEmbeddings(both[:, :dim], both[:, dim:], scale, bias)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def stored_embeddings(
    store: FeatureStore, ids: np.ndarray
) -> tuple[np.ndarray, PairEmbeddings]:
    found = store.get(ids)
    assert found is not None
    present, embeddings = found
    assert isinstance(embeddings, PairEmbeddings)
    return present, embeddings


def check_present(store: FeatureStore, ids: np.ndarray, dim: int = DIM) -> np.ndarray:
    """Checks that rows that are present are right, the others NaN; returns which."""
    if store.get(ids) is None:
        return np.zeros(len(ids), np.bool_)
    present, embeddings = stored_embeddings(store, ids)
    expected = embeddings_of(ids, dim)
    for name in ("queries", "targets"):
        rows = getattr(embeddings, name)
        assert np.array_equal(rows[present], getattr(expected, name)[present])
        assert np.isnan(rows[~present]).all()
    return present


def check_present_rows(store: FeatureStore, ids: np.ndarray, *shape: int) -> np.ndarray:
    """As :func:`check_present`, of rows of a shape."""
    found = store.get(ids)
    if found is None:
        return np.zeros(len(ids), np.bool_)
    present, rows = found
    assert isinstance(rows, np.ndarray)
    assert np.array_equal(rows[present], values_of(ids, *shape)[present])
    assert np.isnan(rows[~present]).all()
    return present
