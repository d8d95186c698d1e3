"""How much memory a session may hold."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Generator

from curator.errors import LimitError

__all__ = ["MemoryLimit"]


class MemoryLimit:
    """Counts what a session holds at once that grows with what it was asked for.

    Features of candidates, batches on their way to a client, what a trainer sends to be
    selected from, and what a sampler knows of each example. What it takes to run at all
    is not counted. Safe to use from several threads.
    """

    def __init__(self, name: str, max_bytes: int) -> None:
        """Starts with nothing.

        Args:
            name: The session, for the message.
            max_bytes: How much it may hold.
        """
        self._name = name
        self._max_bytes = max_bytes
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def hold(self, what: str, num_bytes: int) -> Generator[None]:
        """Counts some memory for as long as the block runs.

        Args:
            what: What it is, in words.
            num_bytes: How much.

        Raises:
            LimitError: It would be more than the session may hold.
        """
        self.take(what, num_bytes)
        try:
            yield
        finally:
            with self._lock:
                self._held[what] -= num_bytes

    def take(self, what: str, num_bytes: int) -> None:
        """Counts some memory for as long as the session is open; as :meth:`hold`."""
        with self._lock:
            total = self._held.total() + num_bytes
            if total > self._max_bytes:
                held = Counter(self._held)
                held[what] += num_bytes
                parts = ", ".join(
                    f"{size / 1e6:,.1f} MB of {each}"
                    for each, size in held.most_common()
                    if size
                )
                msg = (
                    f"session {self._name!r} would hold {total:,} bytes ({parts}), "
                    f"over the limit of {self._max_bytes:,}: raise "
                    "server.max_session_bytes, or choose smaller batches or "
                    "super-batches"
                )
                raise LimitError(msg)
            self._held[what] += num_bytes
