"""The calls of the service: convert, ask the engine, convert back."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError

from curator import wire
from curator.config import Permission, SessionSpec
from curator.engine import Registry
from curator.errors import CuratorError, LimitError, ProtocolError, SnapshotError
from curator.rpc.v1 import curation_pb2 as pb
from curator.service._auth import Gate
from curator.service._limits import OpenSessions, StreamSlots
from curator.service._stream import BatchSource, Credits, header_of

__all__ = ["Servicer", "decoder", "guard"]

_log = logging.getLogger(__name__)
Request = TypeVar("Request")
Context: TypeAlias = grpc.ServicerContext


class Servicer:
    """One method per call of ``CurationService``, as its proto describes it.

    Each call has a thread of its own, so a slow disk delays only the stream that reads
    from it, and a batch goes from the pool to the wire without changing threads.
    """

    def __init__(self, registry: Registry, gate: Gate) -> None:
        self._registry = registry
        self._gate = gate
        self._sessions = OpenSessions(registry)
        server = registry.config.server
        self._streams = StreamSlots(server.max_streams_per_client)
        self._stalled_after = server.stalled_rank_seconds
        self._max_snapshot_bytes = server.max_snapshot_bytes

    def OpenSession(  # noqa: N802 - the call's name
        self, request: pb.OpenSessionRequest, context: Context
    ) -> pb.OpenSessionResponse:
        """Opens a session, or resumes it where it was."""
        if request.protocol_version > wire.PROTOCOL_VERSION:
            msg = (
                f"the client speaks protocol {request.protocol_version}, this server "
                f"{wire.PROTOCOL_VERSION}: upgrade batch-curator on the server, or "
                "install the server's version beside the trainer"
            )
            raise ProtocolError(msg)
        spec = None
        if request.HasField("spec"):
            spec = wire.spec_from_proto(request.spec)
            if self._makes_session(request.name, spec):
                self._gate.check(context, "open")
        info = self._sessions.open(request.name, spec).info()
        return pb.OpenSessionResponse(
            protocol_version=wire.PROTOCOL_VERSION, session=wire.info_to_proto(info)
        )

    def _makes_session(self, name: str, spec: SessionSpec) -> bool:
        """Whether a session would be what a client says, not the configuration."""
        configured = self._registry.config.sessions
        if name in configured:
            return spec != configured[name]
        return name not in self._registry.names()

    def StreamBatches(  # noqa: N802 - the call's name
        self, requests: Iterator[pb.StreamBatchesRequest], context: Context
    ) -> Iterator[pb.StreamBatchesResponse | bytes]:
        """Streams one rank's batches, one per credit."""
        start = _first(requests, "StreamBatches").start
        self._streams.take(self._gate.client(context), context)
        engine = self._sessions.open(start.session)
        source = BatchSource(engine, start, self._stalled_after)
        credits_ = Credits(start.credits)
        # When the call ends, whatever ends it, nothing goes on waiting for it.
        context.add_callback(credits_.end)
        context.add_callback(source.close)
        threading.Thread(
            target=credits_.read, args=[requests], name="curator-credits", daemon=True
        ).start()
        unix = wire.UnixSender.connect(start.unix_socket)
        if unix is None:
            yield from source.messages(credits_)
        else:
            with contextlib.closing(unix):
                if not context.add_callback(unix.close):
                    return  # it has ended already
                yield pb.StreamBatchesResponse(through_unix_socket=True)
                for batch in source.batches(credits_):
                    unix.send(batch)
        yield from source.end(credits_)

    def SelectBatch(  # noqa: N802 - the call's name
        self, requests: Iterator[pb.SelectBatchRequest], context: Context
    ) -> pb.SelectBatchResponse:
        """Answers a trainer's features with the sub-batch to train on."""
        start = _first(requests, "SelectBatch").start
        engine = self._sessions.open(start.session)
        payload = bytearray()
        with contextlib.ExitStack() as held:
            for request in requests:
                size = len(request.chunk)
                held.enter_context(
                    engine.memory_limit.hold("features that a trainer sent", size)
                )
                payload += request.chunk
            rows = wire.rows_from_bytes(memoryview(payload), trusted=False)
            features = wire.features_from_wire(rows, start)
            ids = wire.ids_from_proto(start.example_ids)
            record = engine.select(start.step, ids, features)
        return pb.SelectBatchResponse(header=header_of(engine, record, slice(None)))

    def ReportStep(  # noqa: N802 - the call's name
        self, request: pb.ReportStepRequest, context: Context
    ) -> pb.ReportStepResponse:
        """Records that a rank has trained on its slice of a step."""
        engine = self._sessions.open(request.session)
        losses = None
        if request.HasField("losses"):
            losses = wire.floats_from_proto(request.losses)
        already, closed, missing = engine.report(
            request.step,
            request.rank,
            request.world_size,
            wire.ids_from_proto(request.example_ids),
            losses,
        )
        return pb.ReportStepResponse(
            already_reported=already, closed=closed, missing_step=missing
        )

    def SkipSteps(  # noqa: N802 - the call's name
        self, request: pb.SkipStepsRequest, context: Context
    ) -> pb.SkipStepsResponse:
        """Passes over steps: they count as reported, without losses."""
        start = request.from_step
        engine = self._sessions.open(request.session)
        is_new = engine.skip(start, start + request.num_steps)
        return pb.SkipStepsResponse(already_skipped=not is_new)

    def ForkSession(  # noqa: N802 - the call's name
        self, request: pb.ForkSessionRequest, context: Context
    ) -> pb.ForkSessionResponse:
        """Opens a session that is another one up to a step."""
        engine = self._sessions.fork(
            request.session,
            request.name,
            request.step,
            forget_memory=request.forget_memory,
        )
        return pb.ForkSessionResponse(session=wire.info_to_proto(engine.info()))

    def PublishSnapshot(  # noqa: N802 - the call's name
        self, requests: Iterator[pb.PublishSnapshotRequest], context: Context
    ) -> pb.PublishSnapshotResponse:
        """Records a snapshot of the learner."""
        start = _first(requests, "PublishSnapshot").start
        if start.num_bytes > self._max_snapshot_bytes:
            msg = (
                f"a snapshot of {start.num_bytes} bytes is over this server's limit of "
                f"{self._max_snapshot_bytes}: raise server.max_snapshot_bytes"
            )
            raise LimitError(msg)
        is_new = self._sessions.open(start.session).publish(
            start.snapshot_step,
            start.report_step,
            _chunks(requests, start.num_bytes),
            start.num_bytes,
        )
        return pb.PublishSnapshotResponse(already_published=not is_new)

    def ListSessions(  # noqa: N802 - the call's name
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """Lists the sessions that exist or are configured, and opens none."""
        return pb.ListSessionsResponse(
            names=self._registry.names(),
            open=map(wire.info_to_proto, self._registry.open_sessions()),
        )

    def DescribeSession(  # noqa: N802 - the call's name
        self, request: pb.DescribeSessionRequest, context: Context
    ) -> pb.DescribeSessionResponse:
        """Describes one session."""
        info = self._sessions.open(request.name).info()
        return pb.DescribeSessionResponse(session=wire.info_to_proto(info))


def _first(requests: Iterator[Request], call: str) -> Request:
    """Returns the first message of a call, which says what the call is about."""
    first: Any = next(requests, None)
    if first is None or not first.HasField("start"):
        msg = f"the first message of {call} must be `start`"
        raise ProtocolError(msg)
    return first


def _chunks(
    requests: Iterator[pb.PublishSnapshotRequest], num_bytes: int
) -> Iterator[bytes]:
    """Yields the chunks of an upload, no more bytes than it announced."""
    size = 0
    for request in requests:
        size += len(request.chunk)
        if size > num_bytes:  # before it fills the disk
            msg = f"announced a snapshot of {num_bytes} bytes, received more"
            raise SnapshotError(msg)
        yield request.chunk


def decoder(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Returns a decoder of requests that returns its error instead of raising it.

    gRPC ends a call whose decoder raises twice, and keeps what it knows of it for ever:
    some 20 KB for each, and a server that cannot stop.
    """

    def decode(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            return error

    return decode


def _decoded(request: Any) -> Any:
    """Returns a request, or an iterator of them, that raises what is undecodable."""
    if isinstance(request, Iterator):
        return map(_message, cast("Iterator[object]", request))
    return _message(request)


def _message(request: object) -> object:
    if isinstance(request, DecodeError):
        msg = f"the request is no message of this protocol: {request}"
        raise ProtocolError(msg)
    return request


def guard(
    method: Callable[..., Any], gate: Gate, permission: Permission, *, is_stream: bool
) -> Callable[..., Any]:
    """Returns a call's method with its exceptions as statuses, once it is allowed.

    Args:
        method: What answers the call.
        gate: Decides before anything is read of what the client sends in chunks.
        permission: What the call needs.
        is_stream: Whether the method yields its answers.
    """

    def unary(request: object, context: Context) -> Any:
        try:
            gate.check(context, permission)
            return method(_decoded(request), context)
        except Exception as error:
            _abort(context, error)

    def stream(request: object, context: Context) -> Iterator[Any]:
        try:
            gate.check(context, permission)
            yield from method(_decoded(request), context)
        except Exception as error:
            _abort(context, error)

    return stream if is_stream else unary


def _abort(context: Context, error: Exception) -> None:
    """Ends a call with the status of an error; one of ours tells the user why."""
    if not context.is_active():
        return  # the client has gone, which is what the error is about
    if isinstance(error, CuratorError):
        context.set_trailing_metadata(((wire.ERROR_KEY, type(error).__name__),))
        context.abort(wire.status_of(error), str(error))
    _log.error("a call failed", exc_info=error)
    context.abort(
        grpc.StatusCode.INTERNAL, f"internal error: {type(error).__name__}: {error}"
    )
