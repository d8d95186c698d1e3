"""What a step waits for from the trainer."""

from __future__ import annotations

from curator.config import SessionSpec
from curator.engine._epochs import Epochs
from curator.engine._feedback import Feedback

__all__ = ["Dependencies"]


class Dependencies:
    """Whether the reports that a step depends on are there.

    A step depends on the report of step ``step - 1 - max_ahead`` if it is scored by the
    learner or selected by a policy that remembers; the candidates of an epoch that is
    planned from losses depend on that of the epoch's first step.

    Not thread-safe: the engine locks.
    """

    def __init__(
        self, name: str, spec: SessionSpec, *, epochs: Epochs, feedback: Feedback
    ) -> None:
        """Keeps what it asks.

        Args:
            name: The session.
            spec: What it is.
            epochs: Says what a step's candidates wait for.
            feedback: Which steps are closed.
        """
        self._name = name
        self._max_ahead = spec.max_ahead
        self._depends_on_reports = spec.depends_on_reports
        self._epochs = epochs
        self._feedback = feedback

    def has_candidates(self, step: int) -> bool:
        """Whether what a step's candidates are drawn from has been reported."""
        awaited = self._epochs.awaited(step)
        return awaited is None or self._feedback.next_step > awaited

    def is_reported(self, step: int) -> bool:
        """Whether what a step depends on has been reported, if it depends on it."""
        if not self._depends_on_reports:
            return True
        return self._feedback.next_step >= step - self._max_ahead

    def awaited_ranks(self, step: int, world_size: int) -> str | None:
        """Returns what :meth:`SessionEngine.awaited_ranks` does."""
        if self.is_reported(step) and self.has_candidates(step):
            return None
        return (
            f"step {step} of session {self._name!r} waits for the report of step "
            f"{self._feedback.next_step}: "
            f"{self._feedback.missing(world_size)} not reported it"
        )
