"""One session at work: defines steps, takes reports and snapshots."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int64

from curator.config import SessionSpec
from curator.engine._executor import Executor, ScoringRequest, ScoringResult
from curator.engine._feedback import check_losses, covers, some
from curator.engine._snapshots import SnapshotStore
from curator.engine._waiting import Waiting
from curator.errors import (
    ConfigError,
    CuratorError,
    FeatureError,
    FeedbackError,
    SessionError,
    SnapshotError,
)
from curator.ledger import Ledger, Report, SnapshotRecord, StepRecord
from curator.policies import Uniform
from curator.pools import Pool
from curator.rng import Noise
from curator.samplers import Sampler
from curator.sessions import SessionInfo, rank_slice
from curator.types import Features, Selection, SuperBatch

__all__ = ["SessionEngine"]

_log = logging.getLogger(__name__)

# Steps that do not depend on the trainer are defined this far beyond what was asked
# for: enough that delivery never waits for a policy, little to hold in memory.
READY_STEPS = 8


class SessionEngine:
    """Defines the steps of a session, each once, and each before anybody sees it.

    A thread of its own runs sampler, scorers and policy ahead of the trainer, as far
    as the session's dependencies allow: step s waits for the report of step
    ``s - 1 - max_ahead`` if it is scored by the learner. All methods may be called
    from any thread.
    """

    def __init__(
        self,
        name: str,
        spec: SessionSpec,
        *,
        fingerprint: str,
        pool: Pool,
        sampler: Sampler,
        executor: Executor | None,
        ledger: Ledger,
        snapshots: SnapshotStore,
        needs_initial_snapshot: bool,
    ) -> None:
        self.name = name
        self.spec = spec
        self.pool = pool
        self.fingerprint = fingerprint
        self._sampler = sampler
        self._executor = executor
        self._ledger = ledger
        self._snapshots = snapshots
        self._needs_initial_snapshot = needs_initial_snapshot
        self._condition = threading.Condition()
        self._num_defined = ledger.num_defined()
        self._next_step = ledger.next_step()
        self._waiting = Waiting()
        # The newest records, so that delivery right after definition reads no file.
        self._recent: collections.OrderedDict[int, StepRecord] = (
            collections.OrderedDict()
        )
        self._selecting = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(
            target=self._run, name=f"curator-session-{name}", daemon=True
        )
        self._thread.start()

    # --- reading -----------------------------------------------------------------

    def record(self, step: int) -> concurrent.futures.Future[StepRecord]:
        """Returns the future record of a step: done at once where it is defined.

        The future fails with the error that kept the step from being defined; asking
        again tries again.
        """
        with self._condition:
            self._check_open()
            self._check_step(step)
            if step >= self._num_defined:
                future = self._waiting.add(step)
                self._condition.notify_all()
                return future
        future = concurrent.futures.Future[StepRecord]()
        future.set_result(self._defined(step))
        return future

    @property
    def num_defined(self) -> int:
        """How many steps are defined: 0 to this."""
        return self._num_defined

    def delivered_columns(self, columns: Sequence[str] | None) -> list[str]:
        """Returns the columns to deliver: those asked for, or the session's.

        Raises:
            ConfigError: There is no such column.
        """
        names = self.pool.schema.names
        chosen = self.spec.columns if columns is None else columns
        wanted = list(names if chosen is None else chosen)
        unknown = [column for column in wanted if column not in names]
        if unknown:
            msg = f"no columns {unknown} in the pool; it has {names}"
            raise ConfigError(msg)
        return wanted

    def super_batch(self, step: int) -> SuperBatch:
        """Returns the candidates of a step."""
        self._check_step(step)
        return self._sampler.super_batch(step)

    def info(self) -> SessionInfo:
        """Returns what the session is, where it is, and what it has cost."""
        with self._condition:
            num_defined, next_step = self._num_defined, self._next_step
        return SessionInfo(
            name=self.name,
            spec=self.spec,
            fingerprint=self.fingerprint,
            num_examples=self.pool.num_examples,
            num_steps_per_epoch=self._sampler.num_steps_per_epoch,
            num_defined=num_defined,
            next_step=next_step,
            needs_learner=self.spec.needs_learner,
            needs_initial_snapshot=self._needs_initial_snapshot
            and 0 not in self._snapshots,
            cost=self._ledger.totals(),
        )

    def _defined(self, step: int) -> StepRecord:
        record = self._recent.get(step) or self._ledger.step(step)
        if record is None:  # steps are contiguous: only a damaged ledger lacks one
            msg = f"session {self.name!r}: the ledger lacks step {step}"
            raise CuratorError(msg)
        return record

    def _check_step(self, step: int) -> None:
        num_steps = self.spec.num_steps
        if step < 0 or (num_steps is not None and step >= num_steps):
            end = "endless" if num_steps is None else f"{num_steps} steps long"
            msg = f"session {self.name!r} is {end}; got step {step}"
            raise SessionError(msg)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionError(self._closed_message)

    @property
    def _closed_message(self) -> str:
        return f"session {self.name!r} is closed: the server is shutting down"

    # --- defining ----------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._may_define())
                if self._closed:
                    return
                step = self._num_defined
            try:
                self._define(step)
            except Exception as error:
                _log.warning("session %r: step %d failed: %s", self.name, step, error)
                with self._condition:
                    waiting = self._waiting.fail()
                for future in waiting:
                    future.set_exception(error)

    def _may_define(self) -> bool:
        """Whether the next step may be defined now. Called with the lock held."""
        step, spec = self._num_defined, self.spec
        if spec.features == "trainer" or (
            spec.num_steps is not None and step >= spec.num_steps
        ):
            return False
        if step > self._waiting.last + READY_STEPS:
            return False
        if not spec.needs_learner:
            return True
        if self._needs_initial_snapshot and 0 not in self._snapshots:
            return False
        return self._next_step >= step - spec.max_ahead

    def _define(self, step: int) -> None:
        super_batch = self._sampler.super_batch(step)
        needs = self.spec.policy.needs
        if not needs:
            self._append(super_batch, {}, None, None)
            return
        with self._condition:
            snapshot = (
                self._snapshots.newest(step - 1 - self.spec.max_ahead)
                if self.spec.needs_learner
                else None
            )
        result = self._score(super_batch, needs, snapshot)
        features = None if result is None else result.features
        self._append(super_batch, features, result, snapshot)

    def _score(
        self, super_batch: SuperBatch, needs: frozenset[str], snapshot: int | None
    ) -> ScoringResult | None:
        """Returns the scorers' result, or None where they are late."""
        executor = self._require_executor()
        path = None if snapshot is None else self._snapshots.path(snapshot)
        future = executor.submit(ScoringRequest(super_batch.ids, needs, path))
        if self.spec.on_late == "wait":
            return future.result()
        # Late is what a trainer has waited, not what a score has taken: run-ahead that
        # nobody waits for may take its time.
        with self._condition:
            future.add_done_callback(self._wake)
            self._condition.wait_for(
                lambda: (
                    future.done()
                    or self._closed
                    or self._waiting.last >= super_batch.step
                )
            )
            self._condition.wait_for(
                lambda: future.done() or self._closed, self.spec.late_after_seconds
            )
        if future.done():
            return future.result()
        future.cancel()
        return None

    def _wake(self, _: object) -> None:
        with self._condition:
            self._condition.notify_all()

    def _require_executor(self) -> Executor:
        if self._executor is None:
            msg = f"session {self.name!r} has no models on the server"
            raise SessionError(msg)
        return self._executor

    def _append(
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
        spec, step = self.spec, super_batch.step
        started = time.perf_counter()
        if features is None:
            selection = Uniform().select(
                super_batch.ids, {}, spec.batch_size, Noise(spec.seed, step, "late")
            )
        else:
            selection = spec.policy.select(
                super_batch.ids, features, spec.batch_size, Noise(spec.seed, step)
            )
        record = StepRecord(
            step=step,
            epoch=super_batch.epoch,
            ids=super_batch.ids[selection.indices],
            weights=selection.weights,
            scores=_float32(selection.scores),
            snapshot_step=self._snapshot_step(features, snapshot),
            late=features is None,
            stats=_cost(super_batch, selection, result, time.perf_counter() - started),
        )
        self._ledger.append(record)
        with self._condition:
            self._num_defined = step + 1
            self._recent[step] = record
            while len(self._recent) > 2 * READY_STEPS:
                self._recent.popitem(last=False)
            waiting = self._waiting.pop(step)
            with contextlib.suppress(OSError):  # a file that stays is no harm
                self._snapshots.discard_before(step - spec.max_ahead)
        for future in waiting:
            future.set_result(record)
        return record

    def _snapshot_step(
        self, features: Features | None, snapshot: int | None
    ) -> int | None:
        """Returns which learner scored: the configured weights are those of step 0."""
        if features is None or not self.spec.needs_learner:
            return None
        return snapshot or 0

    def select(
        self, step: int, ids: Int64[np.ndarray, " B"], features: Features
    ) -> StepRecord:
        """Defines a step from features that the trainer computed.

        A step that is defined already keeps its record, whatever the features.

        Args:
            step: The step; steps are selected in order.
            ids: The candidates, in the order of the features' rows.
            features: What the trainer computed.

        Raises:
            SessionError: The session's features come from the server, or an earlier
                step has not been selected.
            FeatureError: The ids are not the step's candidates, or a feature is
                missing or of the wrong shape.
        """
        if self.spec.features != "trainer":
            msg = (
                f"session {self.name!r} scores on the server; select() is for sessions "
                "with features = 'trainer'"
            )
            raise SessionError(msg)
        super_batch = self.super_batch(step)
        with self._selecting:
            if step < self._num_defined:
                return self._defined(step)
            if step > self._num_defined:
                msg = (
                    f"steps are selected in order: step {self._num_defined} comes "
                    f"next; got step {step}"
                )
                raise SessionError(msg)
            if not np.array_equal(ids, super_batch.ids):
                msg = (
                    f"the features are not those of step {step}: its super-batch has "
                    f"{len(super_batch.ids)} candidates {some(super_batch.ids)}; got "
                    f"{len(ids)} rows for {some(ids)}"
                )
                raise FeatureError(msg)
            missing = self.spec.policy.needs.difference(features)
            result = None
            if (
                missing == frozenset({"reference.embeddings"})
                and self._executor is not None
            ):
                request = ScoringRequest(super_batch.ids, missing, None)
                result = self._executor.submit(request).result()
                features = {**features, **result.features}
            elif missing:
                msg = (
                    f"{self.spec.policy!r} needs {', '.join(sorted(missing))}; got "
                    f"{', '.join(sorted(features)) or 'no features'}"
                )
                raise FeatureError(msg)
            return self._append(super_batch, features, result, None)

    # --- feedback ----------------------------------------------------------------

    def report(
        self,
        step: int,
        rank: int,
        world_size: int,
        ids: Int64[np.ndarray, " n"],
        losses: Float[np.ndarray, " n"] | None,
    ) -> tuple[bool, bool]:
        """Records that a rank has trained on its slice of a step.

        Returns:
            Whether it was reported already, and whether the step is closed now.

        Raises:
            FeedbackError: The step has not been handed out, the ids are not its
                rank's slice, or the losses do not fit or are not finite.
        """
        rows = rank_slice(self.spec.batch_size, rank, world_size)
        with self._condition:
            num_defined = self._num_defined
        if not 0 <= step < num_defined:
            msg = (
                f"step {step} of session {self.name!r} has not been handed out; "
                f"{num_defined} steps are defined"
            )
            raise FeedbackError(msg)
        expected = self._defined(step).ids[rows]
        if not np.array_equal(ids, expected):
            msg = (
                f"the ids are not those of step {step}, rank {rank} of {world_size}: "
                f"expected {len(expected)} ids {some(expected)}; got {len(ids)} ids "
                f"{some(ids)}"
            )
            raise FeedbackError(msg)
        if losses is not None:
            check_losses(step, expected, losses)
        report = Report(step, rows.start, rows.stop, _float32(losses))
        with self._condition:
            before = self._ledger.reports(step)
            if covers(before, rows.start, rows.stop):
                return True, step < self._next_step
            next_step = self._next_step
            closes = covers([*before, report], 0, self.spec.batch_size)
            if closes and step == next_step:
                next_step += 1
                while covers(self._ledger.reports(next_step), 0, self.spec.batch_size):
                    next_step += 1
            self._ledger.add_report(report, next_step=next_step)
            self._next_step = next_step
            self._condition.notify_all()
        return False, closes

    def publish(
        self,
        snapshot_step: int,
        report_step: int,
        chunks: Iterable[bytes],
        num_bytes: int,
    ) -> bool:
        """Records a snapshot of the learner.

        Args:
            snapshot_step: Learner steps in the weights.
            report_step: The step whose report it counts from.
            chunks: The safetensors file.
            num_bytes: Its size.

        Returns:
            False where the snapshot of that step was published already: it stays.

        Raises:
            SnapshotError: It does not fit the learner.
            StorageError: It cannot be written.
        """
        executor = self._require_executor()
        with self._condition:
            if self._is_published(snapshot_step, report_step):
                return False
        file, digest = self._snapshots.receive(chunks, num_bytes)
        try:
            executor.check_snapshot(file)
            with self._condition:
                if self._is_published(snapshot_step, report_step):
                    return False
                record = SnapshotRecord(snapshot_step, report_step, digest)
                self._snapshots.add(record, file)
                self._condition.notify_all()
        finally:
            file.unlink(missing_ok=True)
        return True

    def _is_published(self, snapshot_step: int, report_step: int) -> bool:
        """Whether a snapshot changes nothing any more. Called with the lock held."""
        initial = self._needs_initial_snapshot and snapshot_step == 0
        if snapshot_step in self._snapshots or snapshot_step < self._snapshots.last:
            return True
        if snapshot_step == 0 and not initial:
            msg = (
                f"session {self.name!r} starts from the learner's configured weights: "
                "publish after the first step, or leave out the model's weights"
            )
            raise SnapshotError(msg)
        # What a closed step was scored with is settled.
        return report_step < self._next_step and not initial

    def close(self) -> None:
        """Stops defining steps and closes the ledger. What waits fails."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        if self._executor is not None:
            self._executor.close()
        self._thread.join()
        error = SessionError(self._closed_message)
        for future in self._waiting.fail():
            future.set_exception(error)
        self._ledger.close()


def _cost(
    super_batch: SuperBatch,
    selection: Selection,
    result: ScoringResult | None,
    selection_seconds: float,
) -> dict[str, float]:
    """Returns a step's entry in the account: what it cost and what was odd."""
    scored = {} if result is None else result.num_scored
    return {
        "scoring_seconds": 0.0 if result is None else result.seconds,
        "selection_seconds": selection_seconds,
        "num_candidates": len(super_batch.ids),
        "num_learner_scored": scored.get("learner", 0),
        "num_reference_scored": scored.get("reference", 0),
        **selection.stats,
    }


def _float32(values: Float[np.ndarray, " n"] | None) -> np.ndarray | None:
    return None if values is None else values.astype(np.float32)
