"""Where what a policy reads comes from."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from curator.config import SessionSpec
from curator.engine._drafting import pool_columns, pool_features
from curator.engine._executor import Executor, ScoringRequest, ScoringResult
from curator.engine._memory import PolicyMemory
from curator.errors import FeatureError, SessionError
from curator.ledger import Ledger
from curator.policies import Joint
from curator.pools import Pool
from curator.types import Features, SuperBatch

__all__ = ["FeatureSource"]

_MODELS = ("learner.", "reference.")


class FeatureSource:
    """The features of a session: of models, of the pool, and of the policy's past."""

    def __init__(
        self,
        name: str,
        spec: SessionSpec,
        *,
        pool: Pool,
        executor: Executor | None,
        memory: PolicyMemory | None,
        ledger: Ledger,
    ) -> None:
        self._name = name
        self._spec = spec
        self._pool = pool
        self._executor = executor
        self._memory = memory
        self._ledger = ledger
        needs = spec.policy.needs
        self._pool_columns = pool_columns(needs)
        self.of_models = frozenset(need for need in needs if need.startswith(_MODELS))

    def own(self, super_batch: SuperBatch) -> Features:
        """Returns what no model computes: columns of the pool, and the memory."""
        features = pool_features(self._pool, super_batch.ids, self._pool_columns)
        if self._memory is None:
            return features
        as_of = super_batch.step - self._spec.max_ahead
        return {**features, "memory": self._memory.rows(as_of)}

    def score(
        self, super_batch: SuperBatch, snapshot: Path | None
    ) -> concurrent.futures.Future[ScoringResult]:
        """Starts the scorers on what models compute.

        Args:
            super_batch: The candidates.
            snapshot: Weights of the learner; None for the configured ones.
        """
        # Only this policy knows what to do with embeddings that are elsewhere.
        in_place = isinstance(self._spec.policy, Joint)
        return self._submit(super_batch, self.of_models, snapshot, in_place=in_place)

    def of_reference(
        self, ids: Int64[np.ndarray, " n"], outputs: frozenset[str]
    ) -> Features:
        """Returns outputs of the reference for examples of a batch.

        Mostly they are cached, from when the candidates were scored; what is not is
        computed, and enters the account.
        """
        if self._executor is None:
            raise SessionError(self._no_models)
        needs = frozenset(f"reference.{name}" for name in outputs)
        result = self._executor.submit(ScoringRequest(ids, needs, None)).result()
        num_scored = result.num_scored.get("reference", 0)
        if num_scored:
            self._ledger.add_totals(
                {
                    "scoring_seconds": result.seconds,
                    "num_reference_scored": float(num_scored),
                }
            )
        return result.features

    @property
    def _no_models(self) -> str:
        return f"session {self._name!r} has no models on the server"

    def complete(
        self, super_batch: SuperBatch, given: Features
    ) -> tuple[Features, ScoringResult | None]:
        """Returns all features where the trainer has given some, and what scoring cost.

        Raises:
            FeatureError: Some are missing that only the trainer can compute.
        """
        missing, result = self.of_models.difference(given), None
        if missing:
            is_ours = all(name.startswith("reference.") for name in missing)
            if self._executor is None or not is_ours:
                msg = (
                    f"{self._spec.policy!r} needs {', '.join(sorted(missing))}; got "
                    f"{', '.join(sorted(given)) or 'no features'}"
                )
                raise FeatureError(msg)
            result = self._submit(super_batch, missing, None).result()
            given = {**given, **result.features}
        return {**given, **self.own(super_batch)}, result

    def _submit(
        self,
        super_batch: SuperBatch,
        needs: frozenset[str],
        snapshot: Path | None,
        *,
        in_place: bool = False,
    ) -> concurrent.futures.Future[ScoringResult]:
        if self._executor is None:
            raise SessionError(self._no_models)
        request = ScoringRequest(super_batch.ids, needs, snapshot, in_place)
        return self._executor.submit(request)
