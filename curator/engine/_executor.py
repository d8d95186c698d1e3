"""Where scoring runs: the one thing that differs between deployments."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from curator.engine._scoring_worker import ScoringWorker
from curator.types import Features, ShardedPairs

__all__ = ["Executor", "LocalExecutor", "ScoringRequest", "ScoringResult"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ScoringRequest:
    """What is to be computed of which candidates.

    Attributes:
        ids: The candidates.
        needs: Names of features.
        snapshot: Weights of the learner; None for the configured ones.
        in_place: Whether embeddings may stay where they are computed, as
            :class:`curator.types.ShardedPairs`.
    """

    ids: Int64[np.ndarray, " B"]
    needs: frozenset[str]
    snapshot: Path | None
    in_place: bool = False


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ScoringResult:
    """Features, and what they cost.

    Attributes:
        features: By name, row i for candidate i.
        seconds: How long the device was busy.
        num_scored: Forward passes by model, in examples; cached ones do not count.
        events: What happened on the way, counted, for the account of the step.
        pairs: Embeddings that stayed where they were computed, instead of features.
    """

    features: Features
    seconds: float
    num_scored: dict[str, int]
    events: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    pairs: ShardedPairs | None = None


@runtime_checkable
class Executor(Protocol):
    """Runs scoring requests.

    Constraints:
        * requests of one session are answered with equal features whatever the order,
          the number of scorers and the number of tries;
        * errors arrive through the future as :mod:`curator.errors`.
    """

    def submit(
        self, request: ScoringRequest
    ) -> concurrent.futures.Future[ScoringResult]:
        """Returns the future features of a request."""
        ...

    def check_snapshot(self, path: Path) -> None:
        """Checks that weights fit the learner.

        Raises:
            SnapshotError: They do not.
        """
        ...

    def close(self) -> None:
        """Stops after the request at hand; requests that wait are dropped."""
        ...


class LocalExecutor:
    """Scores in a thread of this process, one request after the other."""

    def __init__(self, worker: ScoringWorker) -> None:
        self._worker = worker
        self._thread = concurrent.futures.ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="curator-scorer"
        )

    def submit(
        self, request: ScoringRequest
    ) -> concurrent.futures.Future[ScoringResult]:
        """Returns the future features of a request."""
        return self._thread.submit(self._run, request)

    def _run(self, request: ScoringRequest) -> ScoringResult:
        features, seconds, num_scored = self._worker.score(
            request.ids, request.needs, request.snapshot
        )
        return ScoringResult(features, seconds, num_scored)

    def check_snapshot(self, path: Path) -> None:
        """Checks that weights fit the learner."""
        self._worker.check_snapshot(path)

    def close(self) -> None:
        """Stops after the request at hand."""
        self._thread.shutdown(wait=True, cancel_futures=True)
