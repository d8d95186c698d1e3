"""One session at work: defines steps, takes reports and snapshots."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, Int64

from curator.config import SessionSpec
from curator.engine._definer import Definer
from curator.engine._delivery import Delivery
from curator.engine._epochs import Epochs
from curator.engine._executor import Executor
from curator.engine._features import FeatureSource
from curator.engine._feedback import Feedback, some
from curator.engine._memory import PolicyMemory
from curator.engine._publication import Publication
from curator.engine._retention import Retention
from curator.engine._skips import Skips
from curator.engine._snapshots import SnapshotStore
from curator.engine._steps import READY_STEPS, DefinedSteps
from curator.errors import (
    FeatureError,
    FeedbackError,
    SessionError,
)
from curator.ledger import Ledger, StepRecord
from curator.policies import RememberingPolicy
from curator.pools import Pool
from curator.sessions import SessionInfo, rank_slice
from curator.types import Features, SuperBatch

__all__ = ["SessionEngine"]

_log = logging.getLogger(__name__)

# Each is a row of the ledger: a slip of the finger is not to fill a disk.
_MOST_SKIPPED = 1_000_000


class SessionEngine:
    """Defines the steps of a session, each once, and each before anybody sees it.

    A thread of its own runs sampler, scorers and policy ahead of the trainer, as far
    as the session's dependencies allow: step s waits for the report of step
    ``s - 1 - max_ahead`` if it is scored by the learner, selected by a policy that
    remembers, or the first of an epoch that is planned from losses. All methods may be
    called from any thread.

    Attributes:
        name: The session's name.
        spec: What it is.
        pool: Its pool.
        fingerprint: Digest of specification, pool and models.
        delivery: Reads the rows of its batches.
    """

    def __init__(
        self,
        name: str,
        spec: SessionSpec,
        *,
        fingerprint: str,
        pool: Pool,
        epochs: Epochs,
        executor: Executor | None,
        ledger: Ledger,
        keep_steps: int | None,
        snapshots: SnapshotStore,
        first_snapshot: int | None,
    ) -> None:
        self.name = name
        self.spec = spec
        self.pool = pool
        self.fingerprint = fingerprint
        self._depends_on_reports = spec.depends_on_reports
        self._epochs = epochs
        self._executor = executor
        self._ledger = ledger
        self._condition = threading.Condition()
        self._steps = DefinedSteps(name, ledger, self._condition)
        self._skips = Skips(ledger)
        self._feedback = Feedback(spec.batch_size, ledger, self._skips)
        self._publication = Publication(
            name,
            snapshots=snapshots,
            executor=executor,
            feedback=self._feedback,
            condition=self._condition,
            steps=self._steps,
            first=first_snapshot,
            max_ahead=spec.max_ahead,
        )
        memory = (
            PolicyMemory(spec.policy.memory_rows, ledger, self._skips)
            if isinstance(spec.policy, RememberingPolicy)
            else None
        )
        self._features = FeatureSource(
            name, spec, pool=pool, executor=executor, memory=memory, ledger=ledger
        )
        self._definer = Definer(
            spec,
            epochs=epochs,
            features=self._features,
            snapshots=snapshots,
            memory=memory,
            skips=self._skips,
            steps=self._steps,
            condition=self._condition,
        )
        self.delivery = Delivery(spec, pool, self._features)
        self._retention = Retention(keep_steps, ledger, epochs)
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
            return self._steps.future(step)

    def defined(self, step: int) -> StepRecord:
        """Returns the record of a step that is defined."""
        return self._steps.get(step)

    @property
    def num_defined(self) -> int:
        """How many steps are defined: 0 to this."""
        return self._steps.num_defined

    @property
    def next_step(self) -> int:
        """The first step that is not closed."""
        with self._condition:
            return self._feedback.next_step

    @property
    def num_steps(self) -> int | None:
        """How long the session is; None where it is endless, or not known yet."""
        return self._epochs.num_steps

    def epoch(self, step: int) -> tuple[int, int]:
        """Returns a defined step's epoch: its first step and its number of steps."""
        return self._epochs.epoch(step)

    def super_batch(
        self, step: int, is_cancelled: Callable[[], bool] = lambda: False
    ) -> SuperBatch | None:
        """Returns the candidates of a step, waiting for the reports they depend on.

        Args:
            step: The step.
            is_cancelled: Whether not to wait any more; asked after :meth:`wake`.

        Returns:
            None where it was cancelled.
        """
        with self._condition:
            self._condition.wait_for(
                lambda: self._closed or is_cancelled() or self._has_candidates(step)
            )
            if is_cancelled():
                return None
            self._check_open()
            self._check_step(step)
        return self._epochs.super_batch(step)

    def wake(self) -> None:
        """Lets whoever waits look again whether it is cancelled."""
        with self._condition:
            self._condition.notify_all()

    def _has_candidates(self, step: int) -> bool:
        awaited = self._epochs.awaited(step)
        return awaited is None or self._feedback.next_step > awaited

    def info(self) -> SessionInfo:
        """Returns what the session is, where it is, and what it has cost."""
        with self._condition:
            num_defined, next_step = self._steps.num_defined, self._feedback.next_step
        _, num_steps_per_epoch = self._epochs.epoch(max(0, num_defined - 1))
        return SessionInfo(
            name=self.name,
            spec=self.spec,
            fingerprint=self.fingerprint,
            num_examples=self.pool.num_examples,
            num_steps_per_epoch=num_steps_per_epoch,
            num_steps=self.num_steps,
            num_defined=num_defined,
            next_step=next_step,
            needs_learner=self.spec.needs_learner,
            needs_initial_snapshot=self._publication.awaits_initial,
            depends_on_losses=self._epochs.depends_on_losses,
            cost=self._ledger.totals(),
        )

    def _check_step(self, step: int) -> None:
        num_steps = self.num_steps
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
                self._condition.wait_for(
                    lambda: self._closed or self._may_define(self._steps.num_defined)
                )
                if self._closed:
                    return
                step = self._steps.num_defined
            try:
                if step in self._skips:
                    self._definer.define_skipped(step, self._has_candidates)
                elif self._depends_on_reports or self._features.of_models:
                    self._definer.define(step, self._may_define)
                else:
                    self._definer.define_ahead(step, self._has_candidates)
                self._discard_old_steps()
            except Exception as error:
                if self._closed:
                    return
                _log.warning("session %r: step %d failed: %s", self.name, step, error)
                self._steps.fail(error)

    def _discard_old_steps(self) -> None:
        closed = min(self._feedback.next_step, self._steps.num_defined)
        self._retention.discard(closed)

    def _may_define(self, step: int) -> bool:
        """Whether a step may follow those before it now. Called with the lock held."""
        spec, num_steps = self.spec, self.num_steps
        if num_steps is not None and step >= num_steps:
            return False
        if step in self._skips:
            return self._has_candidates(step)
        if spec.features == "trainer":
            return False
        if step > self._steps.last_asked + READY_STEPS:
            return False
        if spec.needs_learner and self._publication.awaits_initial:
            return False
        if not self._has_candidates(step):
            return False
        return not self._depends_on_reports or self._is_reported(step)

    def _is_reported(self, step: int) -> bool:
        """Whether what a step depends on has been reported, if it depends on it."""
        return self._feedback.next_step >= step - self.spec.max_ahead

    def awaited_ranks(self, step: int, world_size: int) -> str | None:
        """Returns which ranks' reports a step waits for, in words; None for none.

        Args:
            step: A step that somebody waits for.
            world_size: How many ranks there are, by whoever waits.
        """
        with self._condition:
            needs_report = self._depends_on_reports and not self._is_reported(step)
            if not needs_report and self._has_candidates(step):
                return None
            return (
                f"step {step} of session {self.name!r} waits for the report of step "
                f"{self._feedback.next_step}: "
                f"{self._feedback.missing(world_size)} not reported it"
            )

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
        self._check_step(step)
        super_batch = self._epochs.super_batch(step)
        with self._condition:  # what lies before it and is skipped, is soon defined
            self._condition.wait_for(
                lambda: (
                    self._closed
                    or self._steps.num_defined >= step
                    or self._steps.num_defined not in self._skips
                )
            )
            self._check_open()
        with self._selecting:
            if step < self._steps.num_defined:
                return self._steps.get(step)
            if step > self._steps.num_defined:
                msg = (
                    "steps are selected in order: step "
                    f"{self._steps.num_defined} comes next; got step {step}"
                )
                raise SessionError(msg)
            if not np.array_equal(ids, super_batch.ids):
                msg = (
                    f"the features are not those of step {step}: its super-batch has "
                    f"{len(super_batch.ids)} candidates {some(super_batch.ids)}; got "
                    f"{len(ids)} rows for {some(ids)}"
                )
                raise FeatureError(msg)
            if self._depends_on_reports and not self._is_reported(step):
                msg = (
                    f"step {step} is selected as of the report of step "
                    f"{step - 1 - self.spec.max_ahead}, and step "
                    f"{self._feedback.next_step} is not reported"
                )
                raise SessionError(msg)
            complete, result = self._features.complete(super_batch, features)
            record = self._definer.append(super_batch, complete, result, None)
            self._discard_old_steps()
            return record

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
                rank's slice, or the losses do not fit or look reduced.
        """
        rows = rank_slice(self.spec.batch_size, rank, world_size)
        with self._condition:
            num_defined = self._steps.num_defined
        if not 0 <= step < num_defined:
            msg = (
                f"step {step} of session {self.name!r} has not been handed out; "
                f"{num_defined} steps are defined"
            )
            raise FeedbackError(msg)
        expected = self._steps.get(step).ids[rows]
        with self._condition:
            outcome = self._feedback.add(step, rows, ids, losses, expected)
            self._condition.notify_all()
        return outcome

    def skip(self, start: int, stop: int) -> bool:
        """Closes steps without training on them; whoever streams passes over them.

        Those that are closed already stay as they are.

        Args:
            start: The first of them, from the first step that is not reported on.
            stop: One after the last.

        Returns:
            False where all of them are closed already.

        Raises:
            SessionError: One of them is not of the session, or there are too many.
        """
        self._check_step(start)
        if start >= stop:
            msg = f"skip at least one step; got {start} to {stop}"
            raise SessionError(msg)
        self._check_step(stop - 1)
        with self._condition:
            self._check_open()
            first = max(self._steps.num_defined, self._feedback.next_step)
            if start > first or stop - start > _MOST_SKIPPED:
                msg = (
                    f"cannot skip steps {start} to {stop - 1}: session {self.name!r} "
                    f"has {first} steps so far, and a skip starts at one of them, or "
                    f"right after, and is at most {_MOST_SKIPPED} steps long"
                )
                raise SessionError(msg)
            is_new = self._feedback.skip(start, stop)
            self._condition.notify_all()
        return is_new

    def after_skips(self, step: int) -> int:
        """Returns the first step from ``step`` on that is not skipped."""
        return self._skips.after(step)

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
        return self._publication.publish(snapshot_step, report_step, chunks, num_bytes)

    def close(self) -> None:
        """Stops defining steps and closes the ledger. What waits fails."""
        with self._condition:
            self._closed = True
            self._definer.stop()
            self._condition.notify_all()
        if self._executor is not None:
            self._executor.close()
        self._thread.join()
        self._steps.fail(SessionError(self._closed_message))
        self._ledger.close()
