"""Which weights a model has while several threads score with it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator

__all__ = ["WeightTurns"]


class WeightTurns:
    """Lets threads score together that need the same weights, and no others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_scoring = 0

    @contextlib.contextmanager
    def scoring(
        self, holds: Callable[[], bool], load: Callable[[], None]
    ) -> Generator[None]:
        """Keeps the weights while the block runs.

        Args:
            holds: Whether the model has the weights that are needed.
            load: Gives them to it; called while nobody scores. What it raises, this
                raises.
        """
        with self._changed:
            self._changed.wait_for(lambda: holds() or not self._num_scoring)
            if not holds():
                load()
            self._num_scoring += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_scoring -= 1
                self._changed.notify_all()
