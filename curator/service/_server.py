"""A server: listens, serves a registry's sessions, stops cleanly."""

from __future__ import annotations

import concurrent.futures
import socket
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from curator import wire
from curator.engine import Registry
from curator.errors import ServiceError
from curator.rpc.v1 import curation_pb2 as pb
from curator.service._auth import Gate, check_exposure, permission_for
from curator.service._credentials import Certificates
from curator.service._servicer import Servicer, decoder, guard

__all__ = ["Server"]

_SERVICE = pb.DESCRIPTOR.services_by_name["CurationService"]
# Calls at once, each with a thread: a stream per rank, and the calls beside it.
MAX_CALLS = 1024
# After what silence a client is asked whether it is there, and how long it may take.
KEEPALIVE_MS = 30_000
# How long stopping waits, after the grace, for calls that have been cut.
STOP_SECONDS = 5.0


class Server:
    """A gRPC server that listens from when it is made until it is stopped."""

    def __init__(
        self,
        registry: Registry,
        listen: str | None = None,
        *,
        insecure: bool = False,
        ready: bool = True,
    ) -> None:
        """Starts to listen, and to serve.

        Args:
            registry: What to serve; the caller closes it after the server.
            listen: ``HOST:PORT`` or ``unix:PATH``; the configuration's by default.
            insecure: Whether other machines may reach it without TLS or tokens.
            ready: Whether it serves at once. Otherwise calls are refused until
                :meth:`serve`, and clients try again; what is wrong with the address,
                a certificate or a token is known before.

        Raises:
            ConfigError: Other machines would; or the certificate or a token cannot be
                read.
            ServiceError: The address cannot be listened on.
        """
        spec = registry.config.server
        listen = listen or spec.listen
        if not insecure:
            check_exposure(listen, spec)
        if listen.startswith("unix:"):
            _check_free(listen)
        self._gate = Gate(spec.tokens)
        tls = None
        if spec.tls is not None:
            tls = Certificates(spec.tls).server_credentials()
        max_bytes = spec.max_message_bytes
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(
                MAX_CALLS, thread_name_prefix="curator-call"
            ),
            maximum_concurrent_rpcs=MAX_CALLS,
            options=[
                # Without this, a second server on the same port would start, and
                # the kernel would spread the clients over both.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", max_bytes),
                ("grpc.max_send_message_length", -1),
                # A client that vanished or froze is noticed in a minute: its streams
                # count among those that it may have.
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
                ("grpc.http2.ping_timeout_ms", KEEPALIVE_MS),  # of other pings
                # Clients ping every 30 s, also between calls; see the client.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        servicer = Servicer(registry, self._gate)
        self._server.add_generic_rpc_handlers((_handlers(servicer, self._gate),))
        self._health = health.HealthServicer()
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            if tls is None:
                port = self._server.add_insecure_port(listen)
            else:
                port = self._server.add_secure_port(listen, tls)
        except RuntimeError as error:
            why = (
                "its folder is not there, or cannot be written to. Choose another "
                "server.listen, or make the folder"
                if listen.startswith("unix:")
                else "the port is in use, or the address is not of this machine. "
                "Choose another server.listen, or stop what listens there"
            )
            msg = f"cannot listen on {listen}: {why}"
            raise ServiceError(msg) from error
        self._server.start()
        if ready:
            self.serve()
        is_unix = listen.startswith("unix:")
        self.address = listen if is_unix else f"{listen.rpartition(':')[0]}:{port}"

    def serve(self) -> None:
        """Answers calls from now on."""
        self._gate.open()
        self._set_health(health_pb2.HealthCheckResponse.SERVING)

    def _set_health(self, status: int) -> None:
        for name in ("", _SERVICE.full_name):
            self._health.set(name, status)

    def stop(self, grace_seconds: float = 2.0) -> None:
        """Refuses new calls, lets those at hand end, and stops.

        Streams of batches do not end by themselves: they are cut after the grace, and
        their clients resume where they were.
        """
        self._health.enter_graceful_shutdown()
        # Not for ever: gRPC waits for the status of every call to be taken, which a
        # client may never do.
        self._server.stop(grace_seconds).wait(grace_seconds + STOP_SECONDS)


def _check_free(listen: str) -> None:
    """Checks that no server answers at a socket, which gRPC would take from it.

    One that a crash left behind is nobody's.

    Raises:
        ServiceError: A server does.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(listen.removeprefix("unix:"))
        except OSError:
            return
    msg = (
        f"cannot listen on {listen}: another server does. Choose another "
        "server.listen, or stop that one"
    )
    raise ServiceError(msg)


def _handlers(servicer: Servicer, gate: Gate) -> grpc.GenericRpcHandler:
    """Returns the handlers of every call of the service.

    As the generated code has it, but for three things: tokens are checked, errors
    become statuses, and StreamBatches may answer with messages that are encoded
    already.
    """
    methods: dict[str, Any] = {}
    for method in _SERVICE.methods:
        function = guard(
            getattr(servicer, method.name),
            gate,
            permission_for(method.name),
            is_stream=method.server_streaming,
        )
        request = decoder(getattr(pb, method.input_type.name).FromString)
        response = getattr(pb, method.output_type.name).SerializeToString
        if method.server_streaming:
            methods[method.name] = grpc.stream_stream_rpc_method_handler(
                function, request, wire.serialize_response
            )
        elif method.client_streaming:
            methods[method.name] = grpc.stream_unary_rpc_method_handler(
                function, request, response
            )
        else:
            methods[method.name] = grpc.unary_unary_rpc_method_handler(
                function, request, response
            )
    return grpc.method_handlers_generic_handler(_SERVICE.full_name, methods)
