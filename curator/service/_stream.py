"""What a stream of batches is made of."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import grpc
import numpy as np
from jaxtyping import Int64

from curator import wire
from curator.engine import SessionEngine
from curator.errors import (
    CuratorError,
    ProtocolError,
    RankStalledError,
)
from curator.ledger import StepRecord
from curator.rpc.v1 import curation_pb2 as pb
from curator.sessions import ahead_error, rank_slice

__all__ = ["BatchSource", "Credits", "header_of"]

T = TypeVar("T")

# Messages that are ready beyond the one that is being sent.
READ_AHEAD = 2
# Super-batches that a trainer may have received beyond those it has selected from.
_MOST_AHEAD = 1 << 20


class Credits:
    """How many more batches a client wants."""

    def __init__(self, initial: int) -> None:
        self._condition = threading.Condition()
        self._available = max(1, initial)
        self._ended = False

    def read(self, requests: Iterator[pb.StreamBatchesRequest]) -> None:
        """Adds credits as they arrive, until the client hangs up."""
        try:
            for request in requests:
                with self._condition:
                    self._available += request.credits
                    self._condition.notify()
        except (grpc.RpcError, ProtocolError):
            pass  # how a broken call ends its iterator, or a client that is not ours
        finally:
            self.end()

    def end(self) -> None:
        """Lets whoever waits for a credit go."""
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def take(self, *, blocking: bool = True) -> bool:
        """Takes a credit; False where there is none, or the client has hung up.

        Args:
            blocking: Whether to wait for one.
        """
        with self._condition:
            if blocking:
                self._condition.wait_for(lambda: self._ended or self._available)
            if self._ended or not self._available:
                return False
            self._available -= 1
            return True


class ReadAhead(Generic[T]):
    """Makes what is sent next in a thread of its own while something is being sent.

    For rows that have to be decoded or put together first. Rows that are sent as they
    lie lose more to the second thread than they gain.
    """

    def __init__(self, making: Iterator[T]) -> None:
        self._making = making
        self._slots = threading.Semaphore(READ_AHEAD)
        self._made: queue.SimpleQueue[T | Exception | None] = queue.SimpleQueue()
        self._closed = False
        threading.Thread(target=self._run, name="curator-reader", daemon=True).start()

    def _run(self) -> None:
        try:
            for item in self._making:
                self._made.put(item)
                self._slots.acquire()
                if self._closed:
                    break
            self._made.put(None)
        except Exception as error:
            self._made.put(error)

    def __iter__(self) -> Iterator[T]:
        """Yields what was made; raises what making them raised."""
        while (item := self._made.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
            self._slots.release()

    def close(self) -> None:
        """Lets the thread go, which makes nothing more."""
        self._closed = True
        self._slots.release()


class BatchSource:
    """Headers and encoded rows of the batches of one stream."""

    def __init__(
        self, engine: SessionEngine, start: pb.StreamStart, stalled_after: float
    ) -> None:
        """Checks what the client asks for.

        Args:
            engine: The session.
            start: What the client asks for.
            stalled_after: How long another rank's report is waited for, in seconds.

        Raises:
            SessionError: There is no such rank.
            SessionMismatchError: The session has not got to that step.
            ConfigError: There is no such column.
        """
        self._engine = engine
        self._from_step = start.from_step
        self._super_batches = start.super_batches
        self._world_size = start.world_size
        self._stalled_after = stalled_after
        first = max(engine.num_defined, engine.next_step)
        if start.from_step > first + (_MOST_AHEAD if start.super_batches else 0):
            what = f"batches are asked for from step {start.from_step} on"
            raise ahead_error(engine.name, what, engine.num_defined, engine.next_step)
        self._rows = rank_slice(engine.spec.batch_size, start.rank, start.world_size)
        self._future: concurrent.futures.Future[StepRecord] | None = None
        self._closed = False
        self._read_ahead: ReadAhead[Any] | None = None
        self._end: int | None = None  # the number of steps, once all were yielded
        columns = wire.columns_from_proto(start)
        self._columns = engine.delivery.columns(columns)

    def close(self) -> None:
        """Ends a call of :meth:`batch` that waits in another thread."""
        self._closed = True
        self._engine.wake()
        if self._future is not None:
            self._future.cancel()
        if self._read_ahead is not None:
            self._read_ahead.close()

    def messages(self, credits_: Credits) -> Iterator[bytes]:
        """Yields the batches, one for each credit, small ones in one message."""
        groups = self._groups(credits_, wire.MESSAGE_BYTES)
        yield from self._ahead(
            message for group in groups for message in wire.batch_messages(group)
        )

    def batches(self, credits_: Credits) -> Iterator[wire.EncodedBatch]:
        """Yields the batches, one for each credit."""
        groups = self._groups(credits_, 0)
        yield from self._ahead(batch for group in groups for batch in group)

    def _ahead(self, items: Iterator[T]) -> Iterable[T]:
        """Returns the items, made ahead where rows have to be put together first."""
        one = np.zeros(1, np.int64)
        delivery, columns = self._engine.delivery, self._columns
        if not columns or delivery.spans(one, columns) is not None:
            return items
        self._read_ahead = ReadAhead(items)
        if self._closed:
            self._read_ahead.close()
        return self._read_ahead

    def end(self, credits_: Credits) -> Iterator[bytes]:
        """Yields the end of the stream, if it was not ended before."""
        if self._end is not None and credits_.take():
            end = pb.StreamEnd(num_steps=self._end)
            yield pb.StreamBatchesResponse(end=end).SerializeToString()

    def _groups(
        self, credits_: Credits, most_bytes: int
    ) -> Iterator[list[wire.EncodedBatch]]:
        """Yields the batches, in groups of as many as are wanted, ready and small."""
        step, upcoming = self._from_step, None
        while (step := self._engine.after_skips(step)) != self._engine.num_steps:
            ready = upcoming is not None and upcoming[0].step == step
            batch, upcoming = upcoming if ready else self.batch(step), None
            if batch is not None and self._engine.after_skips(step) != step:
                continue  # skipped while it was waited for
            if batch is None or not credits_.take():
                return
            step += 1
            together, size = [batch], batch[0].payload_bytes
            while size + batch[0].payload_bytes <= most_bytes:
                step = self._engine.after_skips(step)
                upcoming = self._batch_if_ready(step)
                if upcoming is None or not credits_.take(blocking=False):
                    break
                step, batch, upcoming = step + 1, upcoming, None
                together.append(batch)
                size += batch[0].payload_bytes
            with self._engine.memory_limit.hold("batches on their way", size):
                yield together
        self._end = step

    def _batch_if_ready(self, step: int) -> wire.EncodedBatch | None:
        """Returns a step's batch; None where that would take a while, or fail."""
        if step >= self._engine.num_defined:
            return None
        try:
            return self.batch(step)
        except CuratorError:
            return None  # those before it are sent first

    def batch(self, step: int) -> wire.EncodedBatch | None:
        """Returns a step's header and its rows' Arrow IPC stream, once it is defined.

        None where the source was closed meanwhile.
        """
        if self._super_batches:
            candidates = self._engine.super_batch(step, lambda: self._closed)
            if candidates is None:
                return None
            first, num_steps = self._engine.epoch(step)
            header = pb.BatchHeader(
                step=step,
                epoch=candidates.epoch,
                example_ids=wire.ids_to_proto(candidates.ids),
                epoch_first_step=first,
                epoch_num_steps=num_steps,
            )
            return self._encoded(header, candidates.ids)
        record = self._record(step)
        if record is None:
            return None
        header = header_of(self._engine, record, self._rows)
        return self._encoded(header, record.ids[self._rows])

    def _record(self, step: int) -> StepRecord | None:
        """Returns a step's record; None where the source was closed meanwhile."""
        if step < self._engine.num_defined:
            return self._engine.defined(step)
        future = self._future = self._engine.record(step)
        if self._closed:
            future.cancel()
        while True:
            try:
                return future.result(self._stalled_after)
            except concurrent.futures.CancelledError:
                return None
            except TimeoutError:
                stalled = self._engine.awaited_ranks(step, self._world_size)
                if stalled is None:
                    continue  # it is the scorers that take their time
                future.cancel()
                msg = (
                    f"{stalled} for {self._stalled_after:g} s. Restart what stalled: "
                    "it is handed that step again. The others may go on with "
                    "session.batches()"
                )
                raise RankStalledError(msg) from None

    def _encoded(
        self, header: pb.BatchHeader, ids: Int64[np.ndarray, " n"]
    ) -> wire.EncodedBatch:
        """Returns a header, its size filled in, with the rows of some ids."""
        parts: list[memoryview] = []
        if self._columns:
            delivery = self._engine.delivery
            spans = delivery.spans(ids, self._columns)
            if spans is not None:
                parts = wire.spans_to_parts(spans)
            else:
                parts = wire.rows_to_parts(delivery.rows(ids, self._columns))
            header.payload_bytes = sum(map(len, parts))
        return header, parts


def header_of(engine: SessionEngine, record: StepRecord, rows: slice) -> pb.BatchHeader:
    """Returns the header of some rows of a step's batch."""
    first, num_steps = engine.epoch(record.step)
    scores = b""
    if record.scores is not None:
        scores = wire.floats_to_proto(record.scores[rows])
    return pb.BatchHeader(
        step=record.step,
        epoch=record.epoch,
        example_ids=wire.ids_to_proto(record.ids[rows]),
        weights=wire.floats_to_proto(record.weights[rows]),
        scores=scores,
        snapshot_step=record.snapshot_step,
        late=record.late,
        epoch_first_step=first,
        epoch_num_steps=num_steps,
        weighting=wire.weighting_to_proto(engine.spec.weighting),
    )
