"""Who waits for which step."""

from __future__ import annotations

import concurrent.futures

from curator.ledger import StepRecord

__all__ = ["Waiting"]


class Waiting:
    """Futures of steps that are not defined yet. Not thread-safe: the engine locks.

    Attributes:
        last: The highest step that anybody asked for; demand that run-ahead follows.
    """

    def __init__(self) -> None:
        self._futures: dict[int, list[concurrent.futures.Future[StepRecord]]] = {}
        self.last = -1

    def add(self, step: int) -> concurrent.futures.Future[StepRecord]:
        """Returns a new future of a step; forgets those that were cancelled."""
        future = concurrent.futures.Future[StepRecord]()
        waiting = [f for f in self._futures.get(step, []) if not f.cancelled()]
        self._futures[step] = [*waiting, future]
        self.last = max(self.last, step)
        return future

    def pop(self, step: int) -> list[concurrent.futures.Future[StepRecord]]:
        """Returns the futures of a step that is now defined."""
        return self._claim(self._futures.pop(step, []))

    def fail(self) -> list[concurrent.futures.Future[StepRecord]]:
        """Returns all futures, and forgets the demand: nothing is tried unasked."""
        futures = [f for waiting in self._futures.values() for f in waiting]
        self._futures.clear()
        self.last = -(1 << 62)
        return self._claim(futures)

    def _claim(
        self, futures: list[concurrent.futures.Future[StepRecord]]
    ) -> list[concurrent.futures.Future[StepRecord]]:
        """Returns those that nobody has cancelled, and can no longer cancel."""
        # Marked as running, a future cannot be cancelled by a client that went away,
        # so setting its result never fails.
        return [f for f in futures if f.set_running_or_notify_cancel()]
