"""How much of a ledger is kept."""

from __future__ import annotations

import logging

from curator.engine._epochs import Epochs
from curator.engine._feedback import Feedback
from curator.engine._steps import DefinedSteps
from curator.errors import StorageError
from curator.ledger import Ledger

__all__ = ["Retention"]

_log = logging.getLogger(__name__)

# Steps that are let go of together: fewer would cost a sync more often.
_AT_ONCE = 64


class Retention:
    """Deletes old steps of a ledger, a few at a time. For one thread."""

    def __init__(
        self,
        keep_steps: int | None,
        ledger: Ledger,
        epochs: Epochs,
        *,
        feedback: Feedback,
        steps: DefinedSteps,
    ) -> None:
        """Starts on a ledger.

        Args:
            keep_steps: How many closed steps are kept; None for all.
            ledger: The ledger.
            epochs: Says which reports a sampler may still need.
            feedback: Which steps are closed.
            steps: Which steps are defined: one may be closed before it is.
        """
        self._keep_steps = keep_steps
        self._ledger = ledger
        self._epochs = epochs
        self._feedback = feedback
        self._steps = steps
        self._checked = ledger.first_step()

    def discard(self) -> None:
        """Deletes what is old enough, if that is worth it."""
        if self._keep_steps is None:
            return
        num_closed = min(self._feedback.next_step, self._steps.num_defined)
        first = num_closed - self._keep_steps
        if first < self._checked + _AT_ONCE:
            return
        self._checked = first
        try:
            needed = self._epochs.needed_from()
            self._ledger.discard_before(first if needed is None else min(first, needed))
        except StorageError as error:  # it is tried again; training goes on
            _log.warning("old steps are not deleted: %s", error)
