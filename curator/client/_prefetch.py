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
# Batches of this size and more are collected in a thread of their own. gRPC receives
# the messages in the background anyhow; to put a large batch together takes
# milliseconds, and to hand a small one over would take longer than that.
LARGE_BYTES = 4 << 20


class Prefetcher:
    """Iterates a stream ahead of the trainer, so that receiving overlaps training.

    Attributes:
        stall_seconds: How long the trainer has waited for batches.
    """

    def __init__(self, stream: BatchStream, *, widen: bool) -> None:
        """Prepares to receive.

        Args:
            stream: What to receive, with ``FEWEST_AHEAD`` credits or more.
            widen: Whether to receive as many batches ahead as ``AHEAD_BYTES`` holds,
                once the first one has shown how large they are.
        """
        self._stream = stream
        self._arriving = iter(stream)
        self._widen = widen
        self.stall_seconds = 0.0
        self._in_hand: Iterator[Delivery] = iter(())  # what arrived together
        self._is_first = True
        self._collector: _Collector | None = None

    def __iter__(self) -> Iterator[Delivery]:
        """Yields the batches; raises what the stream raised."""
        return self

    def __next__(self) -> Delivery:
        delivery = next(self._in_hand, None)
        if delivery is None:
            started = time.perf_counter()
            try:
                deliveries = next(self._collector or self._arriving)
            finally:
                self.stall_seconds += time.perf_counter() - started
            if self._is_first:
                self._is_first = False
                self._adapt(deliveries[0])
            self._in_hand = iter(deliveries)
            delivery = next(self._in_hand)
        self._stream.add_credits(1)
        return delivery

    def _adapt(self, first: Delivery) -> None:
        """Decides by the first batch how the others are received."""
        size = 1 if first.rows is None else max(1, first.rows.nbytes)
        if self._widen:
            ahead = min(AHEAD_BYTES // size, MOST_AHEAD)
            if ahead > FEWEST_AHEAD:
                self._stream.add_credits(ahead - FEWEST_AHEAD, widen=True)
        if size >= LARGE_BYTES:
            self._collector = _Collector(self._arriving)

    def close(self) -> None:
        """Ends the stream; what was received and not taken is dropped."""
        self._stream.close()
        if self._collector is not None:
            self._collector.join()


class _Collector:
    """Takes from an iterator in a thread. Credits bound how much."""

    def __init__(self, arriving: Iterator[Sequence[Delivery]]) -> None:
        self._arriving = arriving
        self._ready: queue.SimpleQueue[Sequence[Delivery] | Exception | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(
            target=self._run, name="curator-prefetch", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        try:
            for deliveries in self._arriving:
                self._ready.put(deliveries)
            self._ready.put(None)
        except Exception as error:
            self._ready.put(error)

    def __next__(self) -> Sequence[Delivery]:
        item = self._ready.get()
        if item is None:
            raise StopIteration
        if isinstance(item, Exception):
            raise item
        return item

    def join(self) -> None:
        self._thread.join()
