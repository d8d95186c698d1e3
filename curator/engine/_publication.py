"""Publishing the learner's weights to a session."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from curator.engine._executor import Executor
from curator.engine._feedback import Feedback
from curator.engine._snapshots import SnapshotStore
from curator.engine._steps import DefinedSteps
from curator.errors import SessionError, SnapshotError
from curator.ledger import SnapshotRecord
from curator.sessions import ahead_error

__all__ = ["Publication"]


class Publication:
    """Takes snapshots of the learner, each checked before it is recorded."""

    def __init__(
        self,
        name: str,
        *,
        snapshots: SnapshotStore,
        executor: Executor | None,
        feedback: Feedback,
        condition: threading.Condition,
        steps: DefinedSteps,
        first: int | None,
        max_ahead: int,
    ) -> None:
        """Keeps what it works with.

        Args:
            name: The session.
            snapshots: Where they go.
            executor: Who checks that they fit the learner.
            feedback: Which steps are closed.
            condition: The engine's; notified of each snapshot.
            steps: Which steps are defined.
            first: The snapshot without which the learner has no weights; None where
                it has some.
            max_ahead: The session's.
        """
        self._name = name
        self._snapshots = snapshots
        self._executor = executor
        self._feedback = feedback
        self._condition = condition
        self._steps = steps
        self._first = first
        self._max_ahead = max_ahead

    @property
    def awaits_initial(self) -> bool:
        """Whether the learner has no weights yet."""
        return self._first is not None and self._first not in self._snapshots

    def publish(
        self,
        snapshot_step: int,
        report_step: int,
        chunks: Iterable[bytes],
        num_bytes: int,
    ) -> bool:
        """Records a snapshot; see :meth:`SessionEngine.publish`."""
        if self._executor is None:
            msg = f"session {self._name!r} has no models on the server"
            raise SessionError(msg)
        with self._condition:
            if self._is_settled(snapshot_step, report_step):
                return False
        file, digest = self._snapshots.receive(chunks, num_bytes)
        try:
            try:
                self._executor.check_snapshot(file)
            except SnapshotError as error:
                # Who publishes has no such file, and need not know where it lies.
                known = str(error).replace(
                    f"weights {str(file)!r}", "published weights"
                )
                raise SnapshotError(known) from None
            with self._condition:
                if self._is_settled(snapshot_step, report_step):
                    return False
                if snapshot_step == self._first:  # it counts at once
                    report_step = snapshot_step - 1 - self._max_ahead
                record = SnapshotRecord(snapshot_step, report_step, digest)
                self._snapshots.add(record, file)
                self._condition.notify_all()
        finally:
            file.unlink(missing_ok=True)
        return True

    def _is_settled(self, snapshot_step: int, report_step: int) -> bool:
        """Whether a snapshot changes nothing any more. Called with the lock held."""
        if max(snapshot_step - 1, report_step) > self._steps.num_defined:
            what = (
                f"a snapshot of step {snapshot_step} that counts from the report of "
                f"step {report_step} is published"
            )
            raise ahead_error(
                self._name, what, self._steps.num_defined, self._feedback.next_step
            )
        initial = snapshot_step == self._first
        if snapshot_step in self._snapshots or snapshot_step < self._snapshots.last:
            return True
        if snapshot_step == 0 and not initial:
            msg = (
                f"session {self._name!r} starts from the learner's configured weights: "
                "publish after the first step, or leave out the model's weights"
            )
            raise SnapshotError(msg)
        # What a closed step was scored with is settled.
        return report_step < self._feedback.next_step and not initial
