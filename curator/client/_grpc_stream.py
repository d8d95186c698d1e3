"""One rank's batches from a server, through what breaks on the way."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

import grpc
import pyarrow as pa

from curator import wire
from curator.client._transport import Delivery, StreamRequest
from curator.errors import ServiceError
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
        self._call: Any = None
        self._outgoing: queue.SimpleQueue[pb.StreamBatchesRequest | None] = (
            queue.SimpleQueue()
        )
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
                self._open()
            call = self._call
        try:
            return self._read(call)
        except grpc.RpcError as error:
            with self._lock:
                self._outgoing.put(None)
                self._call = None
                if self._closed:
                    return None
            raise wire.error_from_rpc(error, self._target) from None

    def _open(self) -> None:
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
        outgoing = self._outgoing = queue.SimpleQueue()
        outgoing.put(pb.StreamBatchesRequest(start=start))
        self._call = self._stream_batches(iter(outgoing.get, None))

    def _read(self, call: Any) -> list[Delivery] | None:
        deliveries: list[Delivery] = []
        while not deliveries:
            response = cast("wire.Response | None", next(call, None))
            if response is None:
                msg = f"{self._target} ended the stream before its last batch"
                raise ServiceError(msg)
            if response.is_end:
                return None
            for header, chunk in response.parts:
                if header is None:
                    msg = f"{self._target} sent no header where a batch should begin"
                    raise ServiceError(msg)
                deliveries.append(
                    delivery_from_proto(header, self._rows(header, chunk, call))
                )
        return deliveries

    def _rows(
        self, header: pb.BatchHeader, chunk: memoryview, call: Any
    ) -> pa.RecordBatch | None:
        """Returns the rows of a batch, reading the rest of them where there is more."""
        if header.payload_bytes == 0:
            return None
        if len(chunk) == header.payload_bytes:
            return wire.rows_from_bytes(pa.py_buffer(chunk), trusted=True)
        payload = wire.Reassembly(self._blocks.take(header.payload_bytes))
        payload.add(chunk)
        while not payload.is_complete:
            response = cast("wire.Response | None", next(call, None))
            if response is None or response.is_end:
                msg = f"{self._target} ended a batch before its last byte"
                raise ServiceError(msg)
            for _, more in response.parts:
                payload.add(more)
        return payload.rows()

    def add_credits(self, num_batches: int, *, widen: bool = False) -> None:
        """Lets more batches be sent."""
        with self._lock:
            self._credits += num_batches
            self._unsent_credits += num_batches
            # Half a window at a time: a message for each would cost as much as a batch.
            if self._call is not None and 2 * self._unsent_credits >= self._window:
                credits_ = pb.StreamBatchesRequest(credits=self._unsent_credits)
                self._outgoing.put(credits_)
                self._unsent_credits = 0
            if widen:
                self._window += num_batches

    def close(self) -> None:
        """Ends the stream, also from another thread while it waits."""
        with self._lock:
            self._closed = True
            self._outgoing.put(None)
            if self._call is not None:
                self._call.cancel()


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
