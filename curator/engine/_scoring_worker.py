"""What runs next to a model: rows in, features out. Knows no Ray and no wire."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from curator.errors import SnapshotError
from curator.models import Scorer
from curator.pools import Pool
from curator.store import EmbeddingStore
from curator.types import Features, PairEmbeddings

__all__ = ["ScoringWorker"]


class ScoringWorker:
    """Holds the learner and the reference, and reads the rows that they score."""

    def __init__(
        self,
        pool: Pool,
        *,
        learner: Scorer | None = None,
        reference: Scorer | None = None,
        reference_cache: EmbeddingStore | None = None,
    ) -> None:
        self._pool = pool
        self._learner = learner
        self._reference = reference
        self._cache = reference_cache
        self._loaded: Path | None = None

    def score(
        self,
        ids: Int64[np.ndarray, " B"],
        needs: frozenset[str],
        snapshot: Path | None,
    ) -> tuple[Features, float, dict[str, int]]:
        """Returns the features of candidates, the seconds and the forward passes.

        Args:
            ids: The candidates.
            needs: ``learner.embeddings``, ``reference.embeddings`` or both.
            snapshot: Weights of the learner; None for the ones it was built with.

        Raises:
            ScoringError: A model failed.
            PoolError: The rows cannot be read.
            SnapshotError: The snapshot does not fit the learner.
        """
        started = time.perf_counter()
        features: dict[str, PairEmbeddings] = {}
        num_scored: dict[str, int] = {}
        if "learner.embeddings" in needs and self._learner is not None:
            if snapshot is not None and snapshot != self._loaded:
                self._learner.load(snapshot)
                self._loaded = snapshot
            features["learner.embeddings"] = self._score(self._learner, ids)
            num_scored["learner"] = len(ids)
        if "reference.embeddings" in needs and self._reference is not None:
            embeddings, num_missing = self._score_reference(self._reference, ids)
            features["reference.embeddings"] = embeddings
            num_scored["reference"] = num_missing
        return features, time.perf_counter() - started, num_scored

    def _score(self, scorer: Scorer, ids: Int64[np.ndarray, " B"]) -> PairEmbeddings:
        columns: Sequence[str] = scorer.columns
        return scorer.score(self._pool.take(ids, columns))

    def _score_reference(
        self, reference: Scorer, ids: Int64[np.ndarray, " B"]
    ) -> tuple[PairEmbeddings, int]:
        """Returns the reference's embeddings, and how many were not cached."""
        if self._cache is None:
            return self._score(reference, ids), len(ids)
        cached = self._cache.get(ids)
        if cached is None:
            fresh = self._score(reference, ids)
            self._cache.put(ids, fresh)
            return fresh, len(ids)
        present, embeddings = cached
        missing = np.flatnonzero(~present)
        if len(missing):
            fresh = self._score(reference, ids[missing])
            self._cache.put(ids[missing], fresh)
            embeddings.queries[missing] = fresh.queries
            embeddings.targets[missing] = fresh.targets
        return embeddings, len(missing)

    def check_snapshot(self, path: Path) -> None:
        """Checks that weights fit the learner.

        Raises:
            SnapshotError: They do not, or there is no learner.
        """
        if self._learner is None:
            msg = "this session scores with no learner; there is nothing to publish to"
            raise SnapshotError(msg)
        self._learner.check(path)
