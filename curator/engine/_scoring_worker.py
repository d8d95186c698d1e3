"""What runs next to a model: ids in, features out. Knows no Ray and no wire."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from curator.engine._reference_cache import ReferenceCache
from curator.errors import SnapshotError
from curator.models import Scorer, ScoreTable
from curator.store import FeatureStore
from curator.types import Feature, Features

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RowSource", "ScoringWorker", "outputs_of"]

_log = logging.getLogger(__name__)


@runtime_checkable
class RowSource(Protocol):
    """What is scored: a pool, or rows of one that were handed over."""

    @property
    def num_examples(self) -> int:
        """Size of the pool."""
        ...

    def take(
        self, ids: Int64[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> pa.RecordBatch:
        """Returns rows by id, see :meth:`curator.pools.Pool.take`."""
        ...


class ScoringWorker:
    """Holds the learner and the reference, and reads the rows that they score."""

    def __init__(
        self,
        pool: RowSource,
        *,
        learner: Scorer | None = None,
        learner_weights: Path | None = None,
        reference: Scorer | ScoreTable | None = None,
        reference_cache: Mapping[str, FeatureStore] | None = None,
    ) -> None:
        """Holds models.

        Args:
            pool: What is scored.
            learner: The model being trained.
            learner_weights: The file of the weights that it has now.
            reference: The fixed model, or what it said before.
            reference_cache: Where outputs of the reference are kept, by their names.
        """
        self._pool = pool
        self._learner = learner
        self._reference = reference
        self._cache = ReferenceCache(reference_cache or {})
        self._configured = self._loaded = learner_weights
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
        wanted = outputs_of("learner", needs)
        if wanted and self._learner is not None:
            self.load(snapshot)
            found = self._score(self._learner, ids, wanted)
            features |= {f"learner.{name}": value for name, value in found.items()}
            num_scored["learner"] = len(ids)
        wanted = outputs_of("reference", needs)
        if wanted and self._reference is not None:
            if isinstance(self._reference, ScoreTable):
                found, num_new = self._reference.look_up(ids, wanted), 0
            else:
                cached = self._cache.look_up(ids, wanted)
                num_new, fresh = len(cached.rows), dict[str, Feature]()
                if num_new:
                    # What is lacking for any is computed for all, in one forward pass.
                    fresh |= self._score(
                        self._reference, ids[cached.rows], cached.lacking
                    )
                found = self._cache.complete(cached, ids, fresh)
            features |= {f"reference.{name}": value for name, value in found.items()}
            num_scored["reference"] = num_new
        return features, time.perf_counter() - started, num_scored

    def _score(
        self, scorer: Scorer, ids: Int64[np.ndarray, " B"], outputs: frozenset[str]
    ) -> Mapping[str, Feature]:
        return scorer.score(self._pool.take(ids, scorer.columns), outputs)

    def load(self, snapshot: Path | None) -> None:
        """Gives the learner weights, unless it has them.

        Args:
            snapshot: Their file; None for the weights it was built with.

        Raises:
            SnapshotError: They do not fit.
            StorageError: They cannot be read.
        """
        weights = snapshot or self._configured
        if self._learner is None or weights is None or weights == self._loaded:
            return
        self._learner.load(weights)
        self._loaded = weights

    def holds(self, snapshot: Path | None) -> bool:
        """Whether :meth:`load` would change nothing."""
        weights = snapshot or self._configured
        return self._learner is None or weights is None or weights == self._loaded

    def check_snapshot(self, path: Path) -> None:
        """Checks that weights fit the learner.

        Raises:
            SnapshotError: They do not, or there is no learner.
        """
        if self._learner is None:
            msg = "this session scores with no learner; there is nothing to publish to"
            raise SnapshotError(msg)
        self._learner.check(path)


@functools.lru_cache(maxsize=256)
def outputs_of(role: str, needs: frozenset[str]) -> frozenset[str]:
    """Returns the outputs of a model among the features that are needed."""
    prefix = f"{role}."
    return frozenset(
        need.removeprefix(prefix) for need in needs if need.startswith(prefix)
    )
