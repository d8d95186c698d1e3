"""Defining steps: candidates, features, selection, and the ledger."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from curator.config import SessionSpec
from curator.engine._drafting import draft
from curator.engine._epochs import Epochs
from curator.engine._executor import ScoringResult
from curator.engine._features import FeatureSource
from curator.engine._memory import PolicyMemory
from curator.engine._snapshots import SnapshotStore
from curator.engine._steps import READY_STEPS, DefinedSteps
from curator.ledger import StepRecord
from curator.types import Features, SuperBatch

__all__ = ["Definer"]


class Definer:
    """Makes the next steps of a session. One thread at a time."""

    def __init__(
        self,
        spec: SessionSpec,
        *,
        epochs: Epochs,
        features: FeatureSource,
        snapshots: SnapshotStore,
        memory: PolicyMemory | None,
        steps: DefinedSteps,
        condition: threading.Condition,
    ) -> None:
        self._spec = spec
        self._epochs = epochs
        self._features = features
        self._snapshots = snapshots
        self._memory = memory
        self._steps = steps
        self._condition = condition
        self._stopped = False

    def stop(self) -> None:
        """Lets go of a score that is waited for. Called with the lock held."""
        self._stopped = True

    def define_ahead(self, first: int, may_define: Callable[[int], bool]) -> None:
        """Defines steps that wait for no model and no report, as many as are wanted.

        Args:
            first: The next step.
            may_define: Whether a step has candidates yet: an epoch may begin that is
                planned from losses.
        """
        records: list[StepRecord] = []
        with self._condition:
            stop = max(first, self._steps.last_asked + READY_STEPS) + 1
        for step in range(first, stop):
            if step == self._epochs.num_steps or not may_define(step):
                break
            try:
                super_batch = self._epochs.super_batch(step)
                features = self._features.own(super_batch)
                records.append(draft(self._spec, super_batch, features))
            except Exception:
                if not records:
                    raise
                break  # those before it are whole; it is tried again, alone
        self._steps.add(*records)

    def define(self, step: int) -> None:
        """Scores the candidates of the next step, and defines it."""
        super_batch = self._epochs.super_batch(step)
        result, snapshot = None, None
        features: Features | None = self._features.own(super_batch)
        if self._features.of_models:
            with self._condition:
                if self._spec.needs_learner:
                    snapshot = self._snapshots.newest(step - 1 - self._spec.max_ahead)
            result = self._score(super_batch, snapshot)
            features = None if result is None else {**features, **result.features}
        self.append(super_batch, features, result, snapshot)

    def _score(
        self, super_batch: SuperBatch, snapshot: int | None
    ) -> ScoringResult | None:
        """Returns the scorers' result, or None where they are late."""
        path = None if snapshot is None else self._snapshots.path(snapshot)
        future = self._features.score(super_batch, path)
        if self._spec.on_late == "wait":
            return future.result()
        # Late is what a trainer has waited, not what a score has taken: run-ahead that
        # nobody waits for may take its time.
        with self._condition:
            future.add_done_callback(lambda _: self._wake())
            self._condition.wait_for(
                lambda: (
                    future.done()
                    or self._stopped
                    or self._steps.last_asked >= super_batch.step
                )
            )
            self._condition.wait_for(
                lambda: future.done() or self._stopped, self._spec.late_after_seconds
            )
        if future.done():
            return future.result()
        future.cancel()
        return None

    def append(
        self,
        super_batch: SuperBatch,
        features: Features | None,
        result: ScoringResult | None,
        snapshot: int | None,
    ) -> StepRecord:
        """Selects, writes the step to the ledger, and only then shows it.

        Args:
            super_batch: The candidates.
            features: What the policy reads; None for a uniform draw instead.
            result: What scoring cost.
            snapshot: Which snapshot of the learner scored.
        """
        spec, step = self._spec, super_batch.step
        # The configured weights are those of step 0.
        scored_by = (snapshot or 0) if features and spec.needs_learner else None
        record = draft(
            spec, super_batch, features, result=result, snapshot_step=scored_by
        )
        as_of, forget_before = step + 1 - spec.max_ahead, 0
        if self._memory is not None:
            forget_before = self._memory.forgettable_before(as_of)
        self._steps.add(record, forget_before=forget_before)
        if self._memory is not None:
            self._memory.add(record)
        with self._condition, contextlib.suppress(OSError):
            self._snapshots.discard_before(as_of - 1)  # a file that stays is no harm
        return record

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()
