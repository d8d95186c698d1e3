"""Receiving batches in the background, a bounded number ahead of the trainer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

from curator.client._transport import BatchStream, Delivery

__all__ = ["Prefetcher"]


class Prefetcher:
    """Iterates a stream in a thread, so that receiving overlaps training.

    Attributes:
        stall_seconds: How long the trainer has waited for batches.
    """

    def __init__(self, stream: BatchStream) -> None:
        self._stream = stream
        self.stall_seconds = 0.0
        self._ready: queue.SimpleQueue[Delivery | Exception | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(
            target=self._run, name="curator-prefetch", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        try:
            for delivery in self._stream:
                self._ready.put(delivery)
            self._ready.put(None)
        except Exception as error:
            self._ready.put(error)

    def __iter__(self) -> Iterator[Delivery]:
        """Yields the batches; raises what the stream raised."""
        return self

    def __next__(self) -> Delivery:
        started = time.perf_counter()
        item = self._ready.get()
        self.stall_seconds += time.perf_counter() - started
        if item is None:
            raise StopIteration
        if isinstance(item, Exception):
            raise item
        self._stream.add_credit()
        return item

    def close(self) -> None:
        """Ends the stream; what was received and not taken is dropped."""
        self._stream.close()
        self._thread.join()
