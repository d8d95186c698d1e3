"""What runs next to a model: ids in, features out. Knows no Ray and no wire."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from curator.errors import SnapshotError
from curator.models import Scorer, ScoreTable
from curator.pools import Pool
from curator.store import FeatureStore
from curator.types import Feature, Features, PairEmbeddings

__all__ = ["ScoringWorker"]

_log = logging.getLogger(__name__)


class ScoringWorker:
    """Holds the learner and the reference, and reads the rows that they score."""

    def __init__(
        self,
        pool: Pool,
        *,
        learner: Scorer | None = None,
        reference: Scorer | ScoreTable | None = None,
        reference_cache: Mapping[str, FeatureStore] | None = None,
    ) -> None:
        """Holds models.

        Args:
            pool: What is scored.
            learner: The model being trained.
            reference: The fixed model, or what it said before.
            reference_cache: Where outputs of the reference are kept, by their names.
        """
        self._pool = pool
        self._learner = learner
        self._reference = reference
        self._cache = reference_cache or {}
        self._loaded: Path | None = None
        if isinstance(reference, ScoreTable):
            num_missing = reference.num_missing(pool.num_examples)
            if num_missing:
                _log.warning(
                    "the reference's table has no row for %d of the pool's %d "
                    "examples: they are quarantined",
                    num_missing,
                    pool.num_examples,
                )

    def score(
        self,
        ids: Int64[np.ndarray, " B"],
        needs: frozenset[str],
        snapshot: Path | None,
    ) -> tuple[Features, float, dict[str, int]]:
        """Returns the features of candidates, the seconds and the forward passes.

        Args:
            ids: The candidates.
            needs: Outputs of models: ``learner.loss``, ``reference.embeddings`` ...
                Others, which are not a model's, are left to others.
            snapshot: Weights of the learner; None for the ones it was built with.

        Raises:
            ScoringError: A model failed.
            PoolError: The rows cannot be read.
            SnapshotError: The snapshot does not fit the learner.
            StorageError: The cache cannot be read or written.
        """
        started = time.perf_counter()
        features: dict[str, Feature] = {}
        num_scored: dict[str, int] = {}
        wanted = _outputs_of("learner", needs)
        if wanted and self._learner is not None:
            if snapshot is not None and snapshot != self._loaded:
                self._learner.load(snapshot)
                self._loaded = snapshot
            found = self._score(self._learner, ids, wanted)
            features |= {f"learner.{name}": value for name, value in found.items()}
            num_scored["learner"] = len(ids)
        wanted = _outputs_of("reference", needs)
        if wanted and self._reference is not None:
            if isinstance(self._reference, ScoreTable):
                found, num_new = self._reference.look_up(ids, wanted), 0
            else:
                found, num_new = self._score_reference(self._reference, ids, wanted)
            features |= {f"reference.{name}": value for name, value in found.items()}
            num_scored["reference"] = num_new
        return features, time.perf_counter() - started, num_scored

    def _score(
        self, scorer: Scorer, ids: Int64[np.ndarray, " B"], outputs: frozenset[str]
    ) -> Mapping[str, Feature]:
        return scorer.score(self._pool.take(ids, scorer.columns), outputs)

    def _score_reference(
        self, reference: Scorer, ids: Int64[np.ndarray, " B"], outputs: frozenset[str]
    ) -> tuple[Mapping[str, Feature], int]:
        """Returns the reference's outputs, and how many examples were not cached."""
        found: dict[str, Feature] = {}
        absent = np.zeros(len(ids), np.bool_)
        lacking: set[str] = set()
        for name in outputs:
            cached = self._cache[name].get(ids) if name in self._cache else None
            present = np.zeros(len(ids), np.bool_)
            if cached is not None:
                present, found[name] = cached
            if not present.all():
                lacking.add(name)
                absent |= ~present
        rows = np.flatnonzero(absent)
        if len(rows):
            # What is lacking for any of them is computed for all, in one forward pass.
            fresh = self._score(reference, ids[rows], frozenset(lacking))
            for name, feature in fresh.items():
                if name in self._cache:
                    self._cache[name].put(ids[rows], feature)
                found[name] = _merged(found.get(name), rows, feature)
        return found, len(rows)

    def check_snapshot(self, path: Path) -> None:
        """Checks that weights fit the learner.

        Raises:
            SnapshotError: They do not, or there is no learner.
        """
        if self._learner is None:
            msg = "this session scores with no learner; there is nothing to publish to"
            raise SnapshotError(msg)
        self._learner.check(path)


def _outputs_of(role: str, needs: frozenset[str]) -> frozenset[str]:
    """Returns the outputs of a model among the features that are needed."""
    prefix = f"{role}."
    return frozenset(
        need.removeprefix(prefix) for need in needs if need.startswith(prefix)
    )


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
