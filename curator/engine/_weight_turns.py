"""Which weights a model has while several threads score with it."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["WeightTurns"]


class WeightTurns:
    """Lets threads score together that need the same weights, and no others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_scoring = 0

    def begin(self, holds: Callable[[], bool], load: Callable[[], None]) -> None:
        """Waits for weights, which then stay until :meth:`end`.

        Args:
            holds: Whether the model has the weights that are needed.
            load: Gives them to it; called while nobody scores. What it raises, this
                raises, and nothing has begun.
        """
        with self._changed:
            if not holds():
                self._changed.wait_for(lambda: holds() or not self._num_scoring)
                if not holds():
                    load()
            self._num_scoring += 1

    def end(self) -> None:
        """Gives the weights back."""
        with self._changed:
            self._num_scoring -= 1
            if not self._num_scoring:
                self._changed.notify_all()
