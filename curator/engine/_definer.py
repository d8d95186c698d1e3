"""Defining steps: candidates, features, selection, and the ledger."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable

import numpy as np

from curator.config import SessionSpec
from curator.engine._drafting import draft
from curator.engine._epochs import Epochs
from curator.engine._executor import ScoringResult
from curator.engine._features import FeatureSource
from curator.engine._memory import PolicyMemory
from curator.engine._memory_limit import MemoryLimit
from curator.engine._skips import Skips
from curator.engine._snapshots import SnapshotStore
from curator.engine._steps import READY_STEPS, DefinedSteps
from curator.errors import SessionError
from curator.ledger import StepRecord
from curator.types import JointFeatures, PairEmbeddings, SuperBatch

__all__ = ["Definer"]

# Super-batches that are scored while the one before them is: one more than keeps the
# scorers busy while a policy chooses.
SCORING_AHEAD = 2
# Steps that are skipped are written in blocks: a sync for each would take minutes.
_SKIPPED_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Scoring:
    """A step whose candidates are being scored.

    Attributes:
        super_batch: The candidates.
        snapshot: Which learner scores them.
        future: The result.
    """

    super_batch: SuperBatch
    snapshot: int | None
    future: concurrent.futures.Future[ScoringResult]


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
        skips: Skips,
        steps: DefinedSteps,
        memory_limit: MemoryLimit,
        condition: threading.Condition,
    ) -> None:
        self._spec = spec
        self._memory_limit = memory_limit
        self._epochs = epochs
        self._features = features
        self._snapshots = snapshots
        self._memory = memory
        self._skips = skips
        self._steps = steps
        self._condition = condition
        self._stopped = False
        self._scoring: dict[int, _Scoring] = {}
        self._given_up: list[concurrent.futures.Future[ScoringResult]] = []

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
            stop = min(stop, first + 4 * READY_STEPS)  # in memory, and in one sync
        for step in range(first, stop):
            if step == self._epochs.num_steps or not may_define(step):
                break
            if step in self._skips:
                break  # it is for define_skipped()
            try:
                super_batch = self._epochs.super_batch(step)
                features = self._features.own(super_batch)
                records.append(draft(self._spec, super_batch, features))
            except Exception:
                if not records:
                    raise
                break  # those before it are whole; it is tried again, alone
        self._steps.add(*records)

    def define_skipped(self, first: int, may_define: Callable[[int], bool]) -> None:
        """Writes steps that are skipped to the ledger, so that it has no gap.

        Args:
            first: The next step, which is skipped.
            may_define: As for :meth:`define_ahead`.
        """
        stop = min(self._skips.after(first), first + _SKIPPED_AT_ONCE)
        records: list[StepRecord] = []
        for step in range(first, stop):
            if step == self._epochs.num_steps or not may_define(step):
                break
            scoring = self._scoring.pop(step, None)
            if scoring is not None:
                self._give_up(scoring)
            records.append(
                StepRecord(
                    step=step,
                    epoch=self._epochs.epoch_of(step),
                    ids=np.empty(0, np.int64),
                    weights=np.empty(0, np.float32),
                )
            )
        self._steps.add(*records)

    def define(self, step: int, may_define: Callable[[int], bool]) -> None:
        """Scores the candidates of the next step, and defines it.

        Meanwhile the scorers start on those after it, so that they neither wait for a
        policy to choose nor, where there are many, for the last of them.

        Args:
            step: The next step.
            may_define: Whether a step may be defined as soon as those before it are;
                called with the lock held.
        """
        if not self._features.of_models:
            super_batch = self._epochs.super_batch(step)
            self.append(super_batch, self._features.own(super_batch), None, None)
            return
        scoring = self._scoring.pop(step, None) or self._start_scoring(step)
        result = self._finished(scoring, may_define)
        features: JointFeatures | None = None
        if result is not None:
            own = self._features.own(scoring.super_batch)
            features = {**own, **result.features}
            if result.pairs is not None:
                features = {
                    **features,
                    **dict.fromkeys(result.pairs.logits, result.pairs),
                }
        # Those that are scored ahead will be as large.
        size = (1 + len(self._scoring)) * _num_bytes(features or {})
        with self._memory_limit.hold("features of candidates", size):
            self.append(scoring.super_batch, features, result, scoring.snapshot)

    def _start_scoring(self, step: int) -> _Scoring:
        super_batch, snapshot, path = self._epochs.super_batch(step), None, None
        if self._spec.needs_learner:
            with self._condition:
                snapshot = self._snapshots.newest(step - 1 - self._spec.max_ahead)
        if snapshot is not None:
            path = self._snapshots.path(snapshot)
        future = self._features.score(super_batch, path)
        future.add_done_callback(lambda _: self._wake())
        return _Scoring(super_batch, snapshot, future)

    def _finished(
        self, scoring: _Scoring, may_define: Callable[[int], bool]
    ) -> ScoringResult | None:
        """Returns the scorers' result, or None where they are late.

        Late is what a trainer has waited, not what a score has taken: run-ahead that
        nobody waits for may take its time.
        """
        future, step = scoring.future, scoring.super_batch.step
        late_at: float | None = None
        while True:
            self._score_ahead(step, may_define)
            with self._condition:
                if self._stopped:
                    msg = f"step {step} is not defined: the server is shutting down"
                    raise SessionError(msg)
                if future.done():
                    break
                wait = None
                if self._spec.on_late == "uniform" and self._steps.last_asked >= step:
                    now = time.monotonic()
                    late_at = late_at or now + self._spec.late_after_seconds
                    wait = late_at - now
                    if wait <= 0:
                        break
                self._condition.wait(wait)
        if future.done():
            return future.result()
        self._give_up(scoring)
        return None

    def _give_up(self, scoring: _Scoring) -> None:
        if not scoring.future.cancel():  # it will have cost something all the same
            self._given_up.append(scoring.future)

    def _scored_in_vain(self) -> list[ScoringResult]:
        """Returns the results that came since the last call and nobody waits for."""
        done = [future for future in self._given_up if future.done()]
        self._given_up = [future for future in self._given_up if future not in done]
        return [f.result() for f in done if not f.cancelled() and not f.exception()]

    def _score_ahead(self, step: int, may_define: Callable[[int], bool]) -> None:
        """Starts scoring the steps after one that is being scored."""
        for later in range(step + 1, step + 1 + SCORING_AHEAD):
            if later in self._scoring or later in self._skips:
                continue
            with self._condition:
                if not may_define(later):
                    return
            self._scoring[later] = self._start_scoring(later)

    def append(
        self,
        super_batch: SuperBatch,
        features: JointFeatures | None,
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
        results = [*self._scored_in_vain(), *([] if result is None else [result])]
        record = draft(
            spec, super_batch, features, results=results, snapshot_step=scored_by
        )
        as_of, forget_before = step + 1 - spec.max_ahead, 0
        if self._memory is not None:
            # Not as of the next step: the newest rows that it is shown may be those of
            # a step that is skipped before, and then the oldest ones are shown. Nor as
            # of this one: up to max_ahead steps before it are not closed, and at the
            # first of them the session can be forked.
            forget_before = self._memory.forgettable_before(as_of - 1 - spec.max_ahead)
        self._steps.add(record, forget_before=forget_before)
        if self._memory is not None:
            self._memory.add(record)
        with self._condition, contextlib.suppress(OSError):
            self._snapshots.discard_before(as_of - 1)  # a file that stays is no harm
        return record

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()


def _num_bytes(features: JointFeatures) -> int:
    """Returns how much memory features take here; not those that stay with scorers."""
    arrays: list[np.ndarray] = []
    for feature in features.values():
        if isinstance(feature, PairEmbeddings):
            arrays += [feature.queries, feature.targets]
        elif isinstance(feature, np.ndarray):
            arrays.append(feature)
    return sum(array.nbytes for array in arrays)
