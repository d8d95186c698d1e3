"""One session at work: defines steps, takes reports and snapshots."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, Int64

from curator.config import SessionSpec
from curator.engine._bounds import Bounds
from curator.engine._definer import Definer
from curator.engine._delivery import Delivery
from curator.engine._dependencies import Dependencies
from curator.engine._epochs import Epochs
from curator.engine._executor import Executor
from curator.engine._features import FeatureSource
from curator.engine._feedback import Feedback
from curator.engine._memory import PolicyMemory
from curator.engine._memory_limit import MemoryLimit
from curator.engine._publication import Publication
from curator.engine._retention import Retention
from curator.engine._run_ahead import RunAhead
from curator.engine._skips import Skips
from curator.engine._snapshots import SnapshotStore
from curator.engine._steps import DefinedSteps
from curator.engine._trainer_features import TrainerFeatures
from curator.errors import SessionError
from curator.ledger import Ledger, StepRecord
from curator.policies import RememberingPolicy
from curator.pools import Pool
from curator.sessions import SessionInfo, ahead_error, rank_slice
from curator.types import Features, SuperBatch

__all__ = ["SessionEngine"]

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
        memory_limit: Counts what it holds.
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
        memory_limit: MemoryLimit,
    ) -> None:
        self.name = name
        self.spec = spec
        self.pool = pool
        self.fingerprint = fingerprint
        self._epochs = epochs
        self._executor = executor
        self._ledger = ledger
        self._condition = threading.Condition()
        self._bounds = Bounds(name, epochs)
        self._steps = DefinedSteps(name, ledger, self._condition)
        self._skips = Skips(ledger)
        self._feedback = Feedback(spec.batch_size, ledger, self._skips)
        self._dependencies = Dependencies(
            name, spec, epochs=epochs, feedback=self._feedback
        )
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
        features = FeatureSource(
            name, spec, pool=pool, executor=executor, memory=memory, ledger=ledger
        )
        definer = Definer(
            spec,
            epochs=epochs,
            features=features,
            snapshots=snapshots,
            memory=memory,
            skips=self._skips,
            steps=self._steps,
            memory_limit=memory_limit,
            condition=self._condition,
        )
        self.memory_limit = memory_limit
        self.delivery = Delivery(spec, pool, features)
        retention = Retention(
            keep_steps, ledger, epochs, feedback=self._feedback, steps=self._steps
        )
        self._trainer_features = TrainerFeatures(
            name,
            spec,
            epochs=epochs,
            features=features,
            feedback=self._feedback,
            dependencies=self._dependencies,
            skips=self._skips,
            definer=definer,
            retention=retention,
            bounds=self._bounds,
            steps=self._steps,
            condition=self._condition,
        )
        self._run_ahead = RunAhead(
            name,
            spec,
            epochs=epochs,
            features=features,
            dependencies=self._dependencies,
            publication=self._publication,
            skips=self._skips,
            definer=definer,
            retention=retention,
            bounds=self._bounds,
            steps=self._steps,
            condition=self._condition,
        )
        self._run_ahead.start()

    # --- reading -----------------------------------------------------------------

    def record(self, step: int) -> concurrent.futures.Future[StepRecord]:
        """Returns the future record of a step: done at once where it is defined.

        The future fails with the error that kept the step from being defined; asking
        again tries again.
        """
        with self._condition:
            self._bounds.check_open()
            self._bounds.check_step(step)
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
                lambda: (
                    self._bounds.is_closed
                    or is_cancelled()
                    or self._dependencies.has_candidates(step)
                )
            )
            if is_cancelled():
                return None
            self._bounds.check_open()
            self._bounds.check_step(step)
        return self._epochs.super_batch(step)

    def wake(self) -> None:
        """Lets whoever waits look again whether it is cancelled."""
        with self._condition:
            self._condition.notify_all()

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

    # --- defining ----------------------------------------------------------------

    def awaited_ranks(self, step: int, world_size: int) -> str | None:
        """Returns which ranks' reports a step waits for, in words; None for none.

        Args:
            step: A step that somebody waits for.
            world_size: How many ranks there are, by whoever waits.
        """
        with self._condition:
            return self._dependencies.awaited_ranks(step, world_size)

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
        return self._trainer_features.select(step, ids, features)

    # --- feedback ----------------------------------------------------------------

    def report(
        self,
        step: int,
        rank: int,
        world_size: int,
        ids: Int64[np.ndarray, " n"],
        losses: Float[np.ndarray, " n"] | None,
    ) -> tuple[bool, bool, int | None]:
        """Records that a rank has trained on its slice of a step.

        Returns:
            Whether it was reported already, whether the step is closed now, and the
            first open step, if it is an earlier one that this rank has not reported.

        Raises:
            FeedbackError: The ids are not the step's rank's slice, or the losses do
                not fit or look reduced.
            SessionMismatchError: The step has not been handed out.
        """
        rows = rank_slice(self.spec.batch_size, rank, world_size)
        with self._condition:
            num_defined = self._steps.num_defined
            next_step = self._feedback.next_step
        if not 0 <= step < num_defined:
            what = f"step {step} is reported"
            raise ahead_error(self.name, what, num_defined, next_step)
        expected = self._steps.get(step).ids[rows]
        with self._condition:
            outcome = self._feedback.add(step, rows, ids, losses, expected)
            missing = self._feedback.missing_before(step, rows)
            self._condition.notify_all()
        return *outcome, missing

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
        self._bounds.check_step(start)
        if start >= stop:
            msg = f"skip at least one step; got {start} to {stop}"
            raise SessionError(msg)
        self._bounds.check_step(stop - 1)
        with self._condition:
            self._bounds.check_open()
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
            self._bounds.close()
            self._run_ahead.stop()
            self._condition.notify_all()
        if self._executor is not None:
            self._executor.close()
        self._run_ahead.join()
        self._steps.fail(self._bounds.closed_error)
        self._ledger.close()
