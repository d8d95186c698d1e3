"""A server: listens, serves a registry's sessions, stops cleanly."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from curator import wire
from curator.engine import Registry
from curator.errors import ServiceError
from curator.rpc.v1 import curation_pb2 as pb
from curator.service._servicer import Servicer, guard_stream, guard_unary

__all__ = ["Server"]

_log = logging.getLogger(__name__)
_SERVICE = pb.DESCRIPTOR.services_by_name["CurationService"]


class Server:
    """A gRPC server in a thread of its own, with an event loop of its own."""

    def __init__(self, registry: Registry, listen: str | None = None) -> None:
        """Starts to listen.

        Args:
            registry: What to serve; the caller closes it after the server.
            listen: ``HOST:PORT`` or ``unix:PATH``; the configuration's by default.

        Raises:
            ServiceError: The address cannot be listened on.
        """
        self._registry = registry
        self._listen = listen or registry.config.server.listen
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="curator-server", daemon=True
        )
        self._thread.start()
        try:
            self.address = self._call(self._start())
        except BaseException:
            self._end_loop()
            raise

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start(self) -> str:
        max_bytes = self._registry.config.server.max_message_bytes
        self._server = grpc.aio.server(
            options=[
                # Without this, a second server on the same port would start, and
                # the kernel would spread the clients over both.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", max_bytes),
                ("grpc.max_send_message_length", max_bytes),
                # Clients ping every 30 s, also between calls; see the client.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ]
        )
        self._servicer = Servicer(self._registry)
        self._server.add_generic_rpc_handlers((_handlers(self._servicer),))
        self._health = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue] - the stubs lack it
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            port = self._server.add_insecure_port(self._listen)
        except RuntimeError as error:
            self._servicer.close()
            msg = (
                f"cannot listen on {self._listen}: the port is in use, or the address "
                "is not of this machine. Choose another server.listen, or stop what "
                "listens there"
            )
            raise ServiceError(msg) from error
        await self._server.start()
        for name in ("", _SERVICE.full_name):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        if self._listen.startswith("unix:"):
            return self._listen
        return f"{self._listen.rpartition(':')[0]}:{port}"

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Refuses new calls, lets those at hand end, and stops.

        Streams of batches do not end by themselves: they are cut after the grace, and
        their clients resume where they were.
        """
        self._call(self._stop(grace_seconds))
        self._end_loop()

    async def _stop(self, grace_seconds: float) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)
        self._servicer.close()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _handlers(servicer: Servicer) -> grpc.GenericRpcHandler:
    """Returns the handlers of every call of the service.

    As the generated code has it, but for two things: errors become statuses, and
    StreamBatches may answer with chunks that are encoded already.
    """
    methods: dict[str, Any] = {}
    for method in _SERVICE.methods:
        function = getattr(servicer, method.name)
        request = getattr(pb, method.input_type.name)
        response = getattr(pb, method.output_type.name)
        if method.server_streaming:
            methods[method.name] = grpc.stream_stream_rpc_method_handler(
                guard_stream(function), request.FromString, wire.serialize_response
            )
        else:
            handler = (
                grpc.stream_unary_rpc_method_handler
                if method.client_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            methods[method.name] = handler(
                guard_unary(function), request.FromString, response.SerializeToString
            )
    return grpc.method_handlers_generic_handler(_SERVICE.full_name, methods)
