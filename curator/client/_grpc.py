"""Sessions on a server: every call of the service, its errors as ours."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import grpc
import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int64

from curator import wire
from curator.client._credentials import Credentials
from curator.client._prefetch import AHEAD_BYTES
from curator.client._transport import Delivery, StreamRequest
from curator.config import SessionSpec
from curator.errors import ServiceError, UnavailableError
from curator.rpc.v1 import curation_pb2 as pb
from curator.rpc.v1 import curation_pb2_grpc
from curator.sessions import SessionInfo
from curator.types import Features

__all__ = ["GrpcTransport"]

T = TypeVar("T")

# The largest single message that is received: a chunk of 2 MiB and its frame, or the
# header of a batch, which holds 16 bytes per example.
MAX_MESSAGE_BYTES = 256 << 20


class GrpcTransport:
    """A :class:`Transport` over one gRPC channel.

    Every call may be repeated, so calls that find the server gone are tried again,
    with growing pauses, for ``retry_seconds``.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: Credentials | None = None,
        timeout: float,
        retry_seconds: float,
    ) -> None:
        """Connects.

        Args:
            target: ``HOST:PORT`` or ``unix:PATH``.
            credentials: Who this is, and whom to trust; by default nobody asks.
            timeout: How long to wait for the server to be there, in seconds.
            retry_seconds: How long calls survive a server that has gone.

        Raises:
            UnavailableError: There is no server in time.
        """
        self._target = target
        self._retry_seconds = retry_seconds
        self._closed = threading.Event()
        self._blocks = wire.BlockCache()
        self._channel = (credentials or Credentials()).channel(
            target,
            options=[
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                # What is received before anybody asks for it: small batches need no
                # thread of ours to be there in time.
                ("grpc.http2.lookahead_bytes", AHEAD_BYTES),
                # A server that vanished without a word is noticed in 40 seconds.
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2_000),
            ],
        )
        try:
            grpc.channel_ready_future(self._channel).result(timeout)
        except grpc.FutureTimeoutError:
            reason = _why_not(self._channel)
            self._channel.close()
            msg = (
                f"no curator server at {target} after {timeout:g} s: start one with "
                "`curator serve CONFIG.toml`, or check the address, and whether that "
                f"server has TLS or asks for a certificate (cert=, key=) ({reason})"
            )
            raise UnavailableError(msg) from None
        self._stub = curation_pb2_grpc.CurationServiceStub(self._channel)
        self._stream_batches = self._channel.stream_stream(
            "/curator.rpc.v1.CurationService/StreamBatches",
            request_serializer=pb.StreamBatchesRequest.SerializeToString,
            response_deserializer=wire.deserialize_response,
        )

    def _retry(self, attempt: Callable[[], T]) -> T:
        """Returns what ``attempt`` returns, trying again while the server is away."""
        deadline, pause = float("inf"), 0.1
        while True:
            try:
                return attempt()
            except UnavailableError:
                now = time.monotonic()
                # Counted from the first failure: a call may have waited long before.
                deadline = min(deadline, now + self._retry_seconds)
                left = deadline - now
                if left <= 0 or self._closed.wait(min(pause, left)):
                    raise
                pause = min(2 * pause, 2.0)

    def _call(self, attempt: Callable[[], T]) -> T:
        def translated() -> T:
            try:
                return attempt()
            except grpc.RpcError as error:
                raise wire.error_from_rpc(error, self._target) from None

        return self._retry(translated)

    def open(self, name: str, spec: SessionSpec | None) -> SessionInfo:
        """Opens a session, or resumes it."""
        request = pb.OpenSessionRequest(
            protocol_version=wire.PROTOCOL_VERSION,
            name=name,
            spec=None if spec is None else wire.spec_to_proto(spec),
        )
        response = self._call(lambda: self._stub.OpenSession(request))
        return wire.info_from_proto(response.session)

    def describe(self, name: str) -> SessionInfo:
        """Describes a session."""
        request = pb.DescribeSessionRequest(name=name)
        response = self._call(lambda: self._stub.DescribeSession(request))
        return wire.info_from_proto(response.session)

    def names(self) -> list[str]:
        """Lists the sessions."""
        request = pb.ListSessionsRequest()
        return list(self._call(lambda: self._stub.ListSessions(request)).names)

    def open_sessions(self) -> list[SessionInfo]:
        """Describes the sessions that are open."""
        request = pb.ListSessionsRequest()
        response = self._call(lambda: self._stub.ListSessions(request))
        return [wire.info_from_proto(info) for info in response.open]

    def stream(self, request: StreamRequest) -> _GrpcStream:
        """Opens a stream of batches."""
        return _GrpcStream(
            self._stream_batches, request, self._target, self._retry, self._blocks
        )

    def select(
        self, name: str, step: int, ids: Int64[np.ndarray, " B"], features: Features
    ) -> Delivery:
        """Returns the sub-batch for features of a super-batch, without rows."""
        rows, logits = wire.features_to_wire(features)
        start = pb.SelectStart(
            session=name,
            step=step,
            example_ids=wire.ids_to_proto(ids),
            learner=logits.get("learner"),
            reference=logits.get("reference"),
        )

        def requests() -> Iterator[pb.SelectBatchRequest]:
            yield pb.SelectBatchRequest(start=start)
            for chunk in wire.chunks_of(wire.rows_to_parts(rows)):
                yield pb.SelectBatchRequest(chunk=b"".join(chunk))

        response = self._call(lambda: self._stub.SelectBatch(requests()))
        return _delivery(response.header)

    def report(
        self,
        name: str,
        step: int,
        rank: int,
        world_size: int,
        ids: Int64[np.ndarray, " n"],
        losses: Float[np.ndarray, " n"] | None,
    ) -> int | None:
        """Reports a rank's slice of a step; returns an earlier one that lacks it."""
        request = pb.ReportStepRequest(
            session=name,
            step=step,
            rank=rank,
            world_size=world_size,
            example_ids=wire.ids_to_proto(ids),
            losses=None if losses is None else wire.floats_to_proto(losses),
        )
        response = self._call(lambda: self._stub.ReportStep(request))
        return response.missing_step if response.HasField("missing_step") else None

    def fork(
        self, name: str, new_name: str, step: int, *, forget_memory: bool
    ) -> SessionInfo:
        """Opens a session that is another one up to a step."""
        request = pb.ForkSessionRequest(
            session=name, name=new_name, step=step, forget_memory=forget_memory
        )
        response = self._call(lambda: self._stub.ForkSession(request))
        return wire.info_from_proto(response.session)

    def skip(self, name: str, start: int, stop: int) -> bool:
        """Passes over steps; False where they have been skipped already."""
        request = pb.SkipStepsRequest(
            session=name, from_step=start, num_steps=stop - start
        )
        response = self._call(lambda: self._stub.SkipSteps(request))
        return not response.already_skipped

    def publish(
        self, name: str, snapshot_step: int, report_step: int, weights: bytes
    ) -> bool:
        """Publishes weights; False where that step's were published already."""
        start = pb.PublishStart(
            session=name,
            snapshot_step=snapshot_step,
            report_step=report_step,
            num_bytes=len(weights),
        )

        def requests() -> Iterator[pb.PublishSnapshotRequest]:
            yield pb.PublishSnapshotRequest(start=start)
            for chunk in wire.chunks_of([memoryview(weights)]):
                yield pb.PublishSnapshotRequest(chunk=b"".join(chunk))

        response = self._call(lambda: self._stub.PublishSnapshot(requests()))
        return not response.already_published

    def close(self) -> None:
        """Closes the channel; calls that wait fail."""
        self._closed.set()
        self._channel.close()


def _why_not(channel: grpc.Channel) -> str:
    """Returns why a channel does not connect, in gRPC's words."""
    check = cast("Any", channel).unary_unary("/grpc.health.v1.Health/Check")
    try:
        check(b"", timeout=1.0)
    except grpc.RpcError as error:
        return cast("grpc.Call", error).details() or "no reason known"
    return "it is there now"


_Received: TypeAlias = list[Delivery] | None


class _GrpcStream:
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
                deliveries.append(_delivery(header, self._rows(header, chunk, call)))
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


def _delivery(header: pb.BatchHeader, rows: pa.RecordBatch | None = None) -> Delivery:
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
