"""What a policy remembers of the steps that were trained on."""

from __future__ import annotations

import collections

import numpy as np
from jaxtyping import Float32

from curator.engine._skips import Skips
from curator.ledger import Ledger, StepRecord

__all__ = ["PolicyMemory"]


class PolicyMemory:
    """The newest rows that a policy asked to remember, as of any step still to come.

    Held by the ledger, so it survives a restart, and bounded: rows that no step will
    be shown again are dropped, and so are those of steps that are skipped. Not
    thread-safe: steps are defined by one thread.
    """

    def __init__(self, capacity: int, ledger: Ledger, skips: Skips) -> None:
        """Reads what the ledger remembers.

        Args:
            capacity: How many rows the policy wants to see, at most.
            ledger: Where they are kept.
            skips: Which steps are not trained on.
        """
        self._skips = skips
        self._capacity = capacity
        self._steps = collections.deque(ledger.memory())

    def add(self, record: StepRecord) -> None:
        """Takes the rows of a step that has been defined."""
        if record.remember is not None:
            self._steps.append((record.step, record.remember))

    def forgettable_before(self, step: int) -> int:
        """Returns the first step whose rows ``step`` or a later one may be shown.

        Args:
            step: As in :meth:`rows`; drops the rows before.
        """
        self._forget_skipped()
        num_rows = sum(len(rows) for number, rows in self._steps if number < step)
        while self._steps:
            number, rows = self._steps[0]
            if number >= step or num_rows - len(rows) < self._capacity:
                return number
            num_rows -= len(rows)
            self._steps.popleft()
        return 0

    def rows(self, step: int) -> Float32[np.ndarray, "rows width"]:
        """Returns the newest rows of the steps before ``step``, oldest first."""
        self._forget_skipped()
        rows = [rows for number, rows in self._steps if number < step]
        if not rows:
            return np.empty((0, 1), np.float32)
        return np.concatenate(rows)[-self._capacity :]

    def _forget_skipped(self) -> None:
        if any(number in self._skips for number, _ in self._steps):
            kept = [entry for entry in self._steps if entry[0] not in self._skips]
            self._steps = collections.deque(kept)
