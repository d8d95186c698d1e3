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
# Batches of this size and more, which take milliseconds, are received in a thread of
# their own. So are all others for a trainer that takes so long with each of a few
# batches in a row; for a faster one, to hand a small batch over takes longer than to
# receive it.
LARGE_BYTES = 4 << 20
BUSY_SECONDS = 1e-3
BUSY_BATCHES = 3


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
        self._handed_out = 0.0  # when the trainer got the batch that it has in hand
        self._num_busy = 0  # batches in a row that took it long
        self._collector: _Collector | None = None

    def __iter__(self) -> Iterator[Delivery]:
        """Yields the batches; raises what the stream raised."""
        return self

    def __next__(self) -> Delivery:
        started = time.perf_counter()
        is_busy = started - self._handed_out > BUSY_SECONDS and not self._is_first
        self._num_busy = self._num_busy + 1 if is_busy else 0
        if self._num_busy == BUSY_BATCHES:
            self._receive_in_background()
        delivery = next(self._in_hand, None)
        if delivery is None:
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
        self._handed_out = time.perf_counter()
        return delivery

    def _adapt(self, first: Delivery) -> None:
        """Decides by the first batch how the others are received."""
        size = 1 if first.rows is None else max(1, first.rows.nbytes)
        if self._widen:
            ahead = min(AHEAD_BYTES // size, MOST_AHEAD)
            if ahead > FEWEST_AHEAD:
                self._stream.add_credits(ahead - FEWEST_AHEAD, widen=True)
        if size >= LARGE_BYTES:
            self._receive_in_background()

    def _receive_in_background(self) -> None:
        if self._collector is None:
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
        if isinstance(item, Sequence):
            return item
        self._ready.put(None)  # nothing comes after it, however often it is asked for
        if item is None:
            raise StopIteration
        raise item

    def join(self) -> None:
        self._thread.join()
