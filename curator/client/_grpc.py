"""Sessions on a server: every call of the service, its errors as ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc
import numpy as np
from jaxtyping import Float, Int64

from curator import wire
from curator.client._credentials import Credentials
from curator.client._forks import outlive_forks
from curator.client._grpc_stream import GrpcStream, delivery_from_proto
from curator.client._prefetch import AHEAD_BYTES
from curator.client._readiness import wait_until_ready
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
            timeout: How long to wait for the server to be there and ready, in seconds.
            retry_seconds: How long calls survive a server that has gone.

        Raises:
            UnavailableError: There is no server in time, or it is not ready.
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
                ("grpc.http2.ping_timeout_ms", 10_000),  # of other pings
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2_000),
            ],
        )
        outlive_forks(self._channel)
        try:
            wait_until_ready(self._channel, target, timeout)
        except BaseException:
            self._channel.close()
            raise
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
            if self._closed.is_set():
                msg = "the service is closed: connect again"
                raise ServiceError(msg)
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

    def stream(self, request: StreamRequest) -> GrpcStream:
        """Opens a stream of batches."""
        return GrpcStream(
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
        return delivery_from_proto(response.header)

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
