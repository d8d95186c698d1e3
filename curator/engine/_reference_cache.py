"""What the fixed reference has said before, so that it is asked once per example."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from curator.store import FeatureStore
from curator.types import Feature, PairEmbeddings

__all__ = ["Cached", "ReferenceCache"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Cached:
    """What is stored of some candidates.

    Attributes:
        features: By output; rows that are not stored are NaN.
        rows: Positions of the candidates for which an output is lacking.
        lacking: The outputs that are lacking for any of them.
    """

    features: dict[str, Feature]
    rows: Int64[np.ndarray, " n"]
    lacking: frozenset[str]


class ReferenceCache:
    """The stored outputs of one reference over one pool."""

    def __init__(self, stores: Mapping[str, FeatureStore]) -> None:
        """Keeps the stores.

        Args:
            stores: By output; an output without one is computed every time.
        """
        self._stores = stores

    def look_up(self, ids: Int64[np.ndarray, " B"], outputs: frozenset[str]) -> Cached:
        """Returns what is stored.

        Raises:
            StorageError: The disk cannot be read.
        """
        found: dict[str, Feature] = {}
        absent = np.zeros(len(ids), np.bool_)
        lacking: set[str] = set()
        for name in outputs:
            cached = self._stores[name].get(ids) if name in self._stores else None
            present = np.zeros(len(ids), np.bool_)
            if cached is not None:
                present, found[name] = cached
            if not present.all():
                lacking.add(name)
                absent |= ~present
        return Cached(found, np.flatnonzero(absent), frozenset(lacking))

    def complete(
        self,
        cached: Cached,
        ids: Int64[np.ndarray, " B"],
        fresh: Mapping[str, Feature],
    ) -> dict[str, Feature]:
        """Stores fresh outputs, and returns those of all candidates.

        Args:
            cached: What :meth:`look_up` returned; changed.
            ids: The candidates.
            fresh: The lacking outputs of ``ids[cached.rows]``.

        Raises:
            StorageError: The disk is full, or fails.
        """
        features = cached.features
        for name, feature in fresh.items():
            if name in self._stores:
                self._stores[name].put(ids[cached.rows], feature)
            features[name] = _merged(features.get(name), cached.rows, feature)
        return features


def _merged(
    cached: Feature | None, rows: Int64[np.ndarray, " n"], fresh: Feature
) -> Feature:
    """Returns a cached feature with some rows replaced; the fresh one without it.

    Without it all rows are fresh: what has never been stored is absent for all.
    """
    if isinstance(cached, PairEmbeddings) and isinstance(fresh, PairEmbeddings):
        cached.queries[rows] = fresh.queries
        cached.targets[rows] = fresh.targets
        return cached
    if isinstance(cached, np.ndarray) and isinstance(fresh, np.ndarray):
        cached[rows] = fresh
        return cached
    return fresh
