"""The calls of the service: convert, ask the engine, convert back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import grpc

from curator import wire
from curator.engine import Registry, SessionEngine
from curator.errors import (
    CuratorError,
    LimitError,
    ProtocolError,
    SnapshotError,
)
from curator.ledger import StepRecord
from curator.rpc.v1 import curation_pb2 as pb
from curator.service._stream import BatchSource, Credits, header_of

__all__ = ["Servicer"]

_log = logging.getLogger(__name__)
T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


class Servicer:
    """One method per call of ``CurationService``, as its proto describes it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        server = registry.config.server
        self._max_message_bytes = server.max_message_bytes
        self._max_snapshot_bytes = server.max_snapshot_bytes
        # Whatever blocks (a ledger's sync, a pool's read) runs here and not in the
        # event loop, which serves every client.
        self._threads = concurrent.futures.ThreadPoolExecutor(
            max_workers=32, thread_name_prefix="curator-service"
        )

    async def _blocking(self, function: Callable[..., T], *args: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *args)

    async def _engine(self, name: str) -> SessionEngine:
        return await self._blocking(self._registry.open, name)

    async def OpenSession(  # noqa: N802 - the call's name
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
        engine = await self._blocking(self._registry.open, request.name, spec)
        return pb.OpenSessionResponse(
            protocol_version=wire.PROTOCOL_VERSION,
            session=wire.info_to_proto(await self._blocking(engine.info)),
        )

    async def StreamBatches(  # noqa: N802 - the call's name
        self,
        requests: AsyncIterator[pb.StreamBatchesRequest],
        context: Context,
    ) -> AsyncIterator[pb.StreamBatchesResponse | bytes]:
        """Streams one rank's batches, one per credit."""
        first = await anext(requests, None)
        if first is None or not first.HasField("start"):
            msg = "the first message of StreamBatches must be `start`"
            raise ProtocolError(msg)
        start = first.start
        engine = await self._engine(start.session)
        source = BatchSource(engine, start, self._blocking)
        credits_ = Credits(start.credits)
        reader = asyncio.create_task(credits_.read(requests))
        step = start.from_step
        end = engine.spec.num_steps
        upcoming = asyncio.create_task(source.batch(step)) if step != end else None
        try:
            while upcoming is not None and await credits_.take():
                header, parts = await upcoming
                step += 1
                # The next batch is read and encoded while this one is on its way.
                upcoming = (
                    asyncio.create_task(source.batch(step)) if step != end else None
                )
                yield pb.StreamBatchesResponse(header=header)
                for chunk in wire.chunks_of(parts):
                    yield wire.encode_chunk(chunk)
            if upcoming is None:
                num_steps = 0 if end is None else end
                yield pb.StreamBatchesResponse(end=pb.StreamEnd(num_steps=num_steps))
        finally:
            for task in (reader, upcoming):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, Exception):
                        await task

    async def SelectBatch(  # noqa: N802 - the call's name
        self,
        requests: AsyncIterator[pb.SelectBatchRequest],
        context: Context,
    ) -> pb.SelectBatchResponse:
        """Answers a trainer's features with the sub-batch to train on."""
        first = await anext(requests, None)
        if first is None or not first.HasField("start"):
            msg = "the first message of SelectBatch must be `start`"
            raise ProtocolError(msg)
        start = first.start
        payload = bytearray()
        # Features of one super-batch: two embeddings of two models at most.
        limit = 16 * self._max_message_bytes
        async for request in requests:
            payload += request.chunk
            if len(payload) > limit:
                msg = f"features of more than {limit} bytes"
                raise LimitError(msg)
        engine = await self._engine(start.session)
        record = await self._blocking(_select, engine, start, bytes(payload))
        return pb.SelectBatchResponse(header=header_of(record, slice(None)))

    async def ReportStep(  # noqa: N802 - the call's name
        self, request: pb.ReportStepRequest, context: Context
    ) -> pb.ReportStepResponse:
        """Records that a rank has trained on its slice of a step."""
        engine = await self._engine(request.session)
        losses = None
        if request.HasField("losses"):
            losses = wire.floats_from_proto(request.losses)
        already, closed = await self._blocking(
            engine.report,
            request.step,
            request.rank,
            request.world_size,
            wire.ids_from_proto(request.example_ids),
            losses,
        )
        return pb.ReportStepResponse(already_reported=already, closed=closed)

    async def PublishSnapshot(  # noqa: N802 - the call's name
        self,
        requests: AsyncIterator[pb.PublishSnapshotRequest],
        context: Context,
    ) -> pb.PublishSnapshotResponse:
        """Records a snapshot of the learner."""
        first = await anext(requests, None)
        if first is None or not first.HasField("start"):
            msg = "the first message of PublishSnapshot must be `start`"
            raise ProtocolError(msg)
        start = first.start
        if start.num_bytes > self._max_snapshot_bytes:
            msg = (
                f"a snapshot of {start.num_bytes} bytes is over this server's limit of "
                f"{self._max_snapshot_bytes}: raise server.max_snapshot_bytes"
            )
            raise LimitError(msg)
        engine = await self._engine(start.session)
        chunks = _pull(requests, asyncio.get_running_loop(), start.num_bytes)
        is_new = await self._blocking(
            engine.publish,
            start.snapshot_step,
            start.report_step,
            chunks,
            start.num_bytes,
        )
        return pb.PublishSnapshotResponse(already_published=not is_new)

    async def ListSessions(  # noqa: N802 - the call's name
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """Lists the sessions that exist or are configured."""
        return pb.ListSessionsResponse(names=await self._blocking(self._registry.names))

    async def DescribeSession(  # noqa: N802 - the call's name
        self, request: pb.DescribeSessionRequest, context: Context
    ) -> pb.DescribeSessionResponse:
        """Describes one session."""
        engine = await self._engine(request.name)
        info = await self._blocking(engine.info)
        return pb.DescribeSessionResponse(session=wire.info_to_proto(info))

    def close(self) -> None:
        """Stops the threads; calls at hand have ended by then."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _select(engine: SessionEngine, start: pb.SelectStart, payload: bytes) -> StepRecord:
    features = wire.features_from_wire(wire.rows_from_bytes(payload), start)
    return engine.select(start.step, wire.ids_from_proto(start.example_ids), features)


def _pull(
    requests: AsyncIterator[pb.PublishSnapshotRequest],
    loop: asyncio.AbstractEventLoop,
    num_bytes: int,
) -> Iterator[bytes]:
    """Yields the chunks of an upload in a thread, as they arrive in the event loop."""
    size = 0
    while True:
        request = asyncio.run_coroutine_threadsafe(_next(requests), loop).result()
        if request is None:
            return
        size += len(request.chunk)
        if size > num_bytes:  # before it fills the disk
            msg = f"announced a snapshot of {num_bytes} bytes, received more"
            raise SnapshotError(msg)
        yield request.chunk


async def _next(
    requests: AsyncIterator[pb.PublishSnapshotRequest],
) -> pb.PublishSnapshotRequest | None:
    return await anext(requests, None)


Unary = Callable[[object, Context], Awaitable[object]]
Streaming = Callable[[object, Context], AsyncIterator[object]]


def guard_unary(method: Unary) -> Unary:
    """Returns ``method`` with its exceptions as statuses of the call."""

    async def guarded(request: object, context: Context) -> object:
        try:
            return await method(request, context)
        except Exception as error:
            await abort(context, error)

    return guarded


def guard_stream(method: Streaming) -> Streaming:
    """Returns ``method``, whose answer is a stream, likewise."""

    async def guarded(request: object, context: Context) -> AsyncIterator[object]:
        try:
            async for response in method(request, context):
                yield response
        except Exception as error:
            await abort(context, error)

    return guarded


async def abort(context: Context, error: Exception) -> None:
    """Ends a call with the status of an error; one of ours tells the user why."""
    if not isinstance(error, CuratorError):
        _log.error("a call failed", exc_info=error)
        msg = f"internal error: {type(error).__name__}: {error}"
        await context.abort(grpc.StatusCode.INTERNAL, msg)
    else:
        metadata = ((wire.ERROR_KEY, type(error).__name__),)
        await context.abort(wire.status_of(error), str(error), metadata)
