"""Receiving batches in the background, a bounded number ahead of the trainer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence

from curator.client._transport import BatchStream, Delivery

__all__ = ["Prefetcher"]


# What is received ahead by default: some milliseconds of a fast network, and a small
# part of a trainer's memory.
AHEAD_BYTES = 32 << 20
FEWEST_AHEAD, MOST_AHEAD = 2, 32


class Prefetcher:
    """Iterates a stream in a thread, so that receiving overlaps training.

    Attributes:
        stall_seconds: How long the trainer has waited for batches.
    """

    def __init__(self, stream: BatchStream, *, widen: bool) -> None:
        """Starts to receive.

        Args:
            stream: What to receive, with ``FEWEST_AHEAD`` credits or more.
            widen: Whether to receive as many batches ahead as ``AHEAD_BYTES`` holds,
                once the first one has shown how large they are.
        """
        self._stream = stream
        self._widen = widen
        self.stall_seconds = 0.0
        self._ready: queue.SimpleQueue[Sequence[Delivery] | Exception | None] = (
            queue.SimpleQueue()
        )
        self._in_hand: Iterator[Delivery] = iter(
            ()
        )  # what was taken from the queue at once
        self._thread = threading.Thread(
            target=self._run, name="curator-prefetch", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        try:
            for deliveries in self._stream:
                self._ready.put(deliveries)
                if self._widen:
                    self._widen = False
                    rows = deliveries[0].rows
                    size = 1 if rows is None else rows.nbytes
                    ahead = min(AHEAD_BYTES // max(1, size), MOST_AHEAD)
                    if ahead > FEWEST_AHEAD:
                        self._stream.add_credits(ahead - FEWEST_AHEAD, widen=True)
            self._ready.put(None)
        except Exception as error:
            self._ready.put(error)

    def __iter__(self) -> Iterator[Delivery]:
        """Yields the batches; raises what the stream raised."""
        return self

    def __next__(self) -> Delivery:
        delivery = next(self._in_hand, None)
        if delivery is None:
            started = time.perf_counter()
            item = self._ready.get()
            self.stall_seconds += time.perf_counter() - started
            if item is None:
                raise StopIteration
            if isinstance(item, Exception):
                raise item
            self._in_hand = iter(item)
            delivery = next(self._in_hand)
        self._stream.add_credits(1)
        return delivery

    def close(self) -> None:
        """Ends the stream; what was received and not taken is dropped."""
        self._stream.close()
        self._thread.join()
