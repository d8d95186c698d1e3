"""What a stream of batches is made of."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator
from typing import TypeAlias

import grpc
import numpy as np
from jaxtyping import Int64

from curator import wire
from curator.engine import SessionEngine
from curator.ledger import StepRecord
from curator.rpc.v1 import curation_pb2 as pb
from curator.sessions import rank_slice

__all__ = ["BatchSource", "Credits", "header_of"]

EncodedBatch: TypeAlias = tuple[pb.BatchHeader, list[memoryview]]


class Credits:
    """How many more batches a client wants."""

    def __init__(self, initial: int) -> None:
        self._available = threading.Semaphore(max(1, initial))
        self._ended = False

    def read(self, requests: Iterator[pb.StreamBatchesRequest]) -> None:
        """Adds credits as they arrive, until the client hangs up."""
        try:
            for request in requests:
                if request.credits:
                    self._available.release(request.credits)
        except grpc.RpcError:
            pass  # how a broken call ends its iterator
        finally:
            self.end()

    def end(self) -> None:
        """Lets whoever waits for a credit go."""
        self._ended = True
        self._available.release()

    def take(self) -> bool:
        """Takes a credit, waiting for one; False once the client has hung up."""
        self._available.acquire()
        return not self._ended


class BatchSource:
    """Headers and encoded rows of the batches of one stream."""

    def __init__(self, engine: SessionEngine, start: pb.StreamStart) -> None:
        """Checks what the client asks for.

        Raises:
            SessionError: There is no such rank.
            ConfigError: There is no such column.
        """
        self._engine = engine
        self._super_batches = start.super_batches
        self._rows = rank_slice(engine.spec.batch_size, start.rank, start.world_size)
        self._future: concurrent.futures.Future[StepRecord] | None = None
        self._closed = False
        columns = wire.columns_from_proto(start)
        self._columns = engine.delivered_columns(columns)

    def close(self) -> None:
        """Ends a call of :meth:`batch` that waits in another thread."""
        self._closed = True
        if self._future is not None:
            self._future.cancel()

    def is_ready(self, step: int) -> bool:
        """Whether :meth:`batch` would not wait for the step to be defined."""
        return self._super_batches or step < self._engine.num_defined

    def batch(self, step: int) -> EncodedBatch | None:
        """Returns a step's header and its rows' Arrow IPC stream, once it is defined.

        None where the source was closed meanwhile.
        """
        if self._super_batches:
            candidates = self._engine.super_batch(step)
            header = pb.BatchHeader(
                step=step,
                epoch=candidates.epoch,
                example_ids=wire.ids_to_proto(candidates.ids),
            )
            return header, self._encoded(candidates.ids)
        future = self._future = self._engine.record(step)
        if self._closed:
            future.cancel()
        try:
            record = future.result()
        except concurrent.futures.CancelledError:
            return None
        return header_of(record, self._rows), self._encoded(record.ids[self._rows])

    def _encoded(self, ids: Int64[np.ndarray, " n"]) -> list[memoryview]:
        if not self._columns:
            return []
        return wire.rows_to_parts(self._engine.pool.take(ids, self._columns))


def header_of(record: StepRecord, rows: slice) -> pb.BatchHeader:
    """Returns the header of some rows of a step's batch."""
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
    )
