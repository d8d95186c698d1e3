"""One rank's batches from a server, through what breaks on the way."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

import grpc
import pyarrow as pa

from curator import wire
from curator.client._forks import outlive_forks
from curator.client._transport import Delivery, StreamRequest
from curator.errors import ServiceError, UnavailableError
from curator.rpc.v1 import curation_pb2 as pb

__all__ = ["GrpcStream", "delivery_from_proto"]

_Received: TypeAlias = list[Delivery] | None


class GrpcStream:
    """Batches from a server; a stream that breaks goes on where it was."""

    def __init__(
        self,
        stream_batches: Any,
        request: StreamRequest,
        target: str,
        retry: Callable[[Callable[[], _Received]], _Received],
        blocks: wire.BlockCache,
    ) -> None:
        self._blocks = blocks
        self._stream_batches = stream_batches
        self._request = request
        self._target = target
        self._retry = retry
        self._lock = threading.Lock()
        self._window = request.credits
        self._credits = request.credits  # batches that may come and have not
        self._unsent_credits = 0  # of those, the ones that the server does not know of
        self._call: _Call | None = None
        self._closed = False
        self._next_step = request.from_step

    def __iter__(self) -> Iterator[Sequence[Delivery]]:
        while True:
            deliveries = self._retry(self._receive)
            if deliveries is None:
                return
            with self._lock:
                self._credits -= len(deliveries)
                self._next_step = deliveries[-1].step + 1
            yield deliveries

    def _receive(self) -> list[Delivery] | None:
        """Returns what comes next, None at the end; opens the call where it must."""
        with self._lock:
            if self._closed:
                return None
            if self._call is None:
                self._call = self._opened()
            call = self._call
        try:
            return call.read()
        except BaseException as error:
            with self._lock:
                self._call = None
                is_closed = self._closed
            call.close()
            if is_closed and isinstance(error, Exception):
                return None
            if isinstance(error, grpc.RpcError):
                raise wire.error_from_rpc(error, self._target) from None
            raise

    def _opened(self) -> _Call:
        request = self._request
        start = pb.StreamStart(
            session=request.session,
            rank=request.rank,
            world_size=request.world_size,
            from_step=self._next_step,
            columns=wire.columns_to_proto(request.columns),
            super_batches=request.super_batches,
            credits=max(1, self._credits),
        )
        self._unsent_credits = 0
        return _Call(self._stream_batches, start, self._target, self._blocks)

    def add_credits(self, num_batches: int, *, widen: bool = False) -> None:
        """Lets more batches be sent."""
        with self._lock:
            self._credits += num_batches
            self._unsent_credits += num_batches
            # Half a window at a time: a message for each would cost as much as a batch.
            if self._call is not None and 2 * self._unsent_credits >= self._window:
                self._call.add_credits(self._unsent_credits)
                self._unsent_credits = 0
            if widen:
                self._window += num_batches

    def close(self) -> None:
        """Ends the stream, also from another thread while it waits."""
        with self._lock:
            self._closed = True
            call, self._call = self._call, None
        if call is not None:
            call.close()


class _Call:
    """A call of StreamBatches, until it ends or breaks."""

    def __init__(
        self,
        stream_batches: Any,
        start: pb.StreamStart,
        target: str,
        blocks: wire.BlockCache,
    ) -> None:
        self._target = target
        self._blocks = blocks
        self._listener = wire.UnixListener()
        self._unix: wire.UnixReceiver | None = None
        start.unix_socket.CopyFrom(self._listener.offer)
        self._outgoing: queue.SimpleQueue[pb.StreamBatchesRequest | None] = (
            queue.SimpleQueue()
        )
        self._outgoing.put(pb.StreamBatchesRequest(start=start))
        self._closed = False
        try:
            self._responses = stream_batches(iter(self._outgoing.get, None))
        except BaseException:  # the channel is closed
            self._listener.close()
            raise
        outlive_forks(self._responses)

    def add_credits(self, num_batches: int) -> None:
        """Lets more batches be sent."""
        self._outgoing.put(pb.StreamBatchesRequest(credits=num_batches))

    def close(self) -> None:
        """Ends the call, also from another thread while it is read."""
        self._closed = True
        self._outgoing.put(None)
        self._responses.cancel()
        self._listener.close()
        if self._unix is not None:
            self._unix.close()

    def read(self) -> list[Delivery] | None:
        """Returns what comes next, None at the end of the stream."""
        deliveries: list[Delivery] = []
        while not deliveries:
            if self._unix is not None:
                delivery = self._read_unix(self._unix)
                if delivery is not None:
                    return [delivery]
            response = self._next("the stream before its last batch")
            if response.is_end:
                self.close()
                return None
            if response.through_unix_socket:
                self._unix = self._listener.accept()
                if self._closed:
                    self._unix.close()
            self._listener.close()
            for header, chunk in response.parts:
                if header is None:
                    msg = f"{self._target} sent no header where a batch should begin"
                    raise ServiceError(msg)
                rows = self._rows(header, chunk)
                deliveries.append(delivery_from_proto(header, rows))
        return deliveries

    def _next(self, what: str) -> wire.Response:
        response = cast("wire.Response | None", next(self._responses, None))
        if response is None:
            msg = f"{self._target} ended {what}"
            raise ServiceError(msg)
        return response

    def _read_unix(self, unix: wire.UnixReceiver) -> Delivery | None:
        """Returns the next batch of a Unix socket; None at its end."""
        try:
            received = unix.receive(self._blocks)
        except UnavailableError:
            self._next("a batch before its last byte")  # or raises what the reason is
            raise
        if received is None:
            return None
        header, payload = received
        rows = None
        if payload is not None:
            rows = wire.rows_from_bytes(pa.py_buffer(payload), trusted=True)
        return delivery_from_proto(header, rows)

    def _rows(self, header: pb.BatchHeader, chunk: memoryview) -> pa.RecordBatch | None:
        """Returns the rows of a batch, reading the rest of them where there is more."""
        if header.payload_bytes == 0:
            return None
        if len(chunk) == header.payload_bytes:
            return wire.rows_from_bytes(pa.py_buffer(chunk), trusted=True)
        payload = wire.Reassembly(self._blocks.take(header.payload_bytes))
        payload.add(chunk)
        while not payload.is_complete:
            response = self._next("a batch before its last byte")
            if response.is_end:
                msg = f"{self._target} ended a batch before its last byte"
                raise ServiceError(msg)
            for _, more in response.parts:
                payload.add(more)
        return payload.rows()


def delivery_from_proto(
    header: pb.BatchHeader, rows: pa.RecordBatch | None = None
) -> Delivery:
    """Returns a batch of a header and its rows."""
    return Delivery(
        step=header.step,
        epoch=header.epoch,
        ids=wire.ids_from_proto(header.example_ids),
        weights=wire.floats_from_proto(header.weights) if header.weights else None,
        scores=wire.floats_from_proto(header.scores) if header.scores else None,
        snapshot_step=header.snapshot_step
        if header.HasField("snapshot_step")
        else None,
        late=header.late,
        epoch_first_step=header.epoch_first_step,
        epoch_num_steps=header.epoch_num_steps,
        weighting=wire.weighting_from_proto(header.weighting),
        rows=rows,
    )
