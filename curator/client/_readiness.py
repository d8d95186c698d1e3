"""Whether a server is there, and answers calls."""

from __future__ import annotations

import time
from typing import Any, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from curator.errors import UnavailableError

__all__ = ["wait_until_ready"]

# Before a server that went away while it was waited for is looked for again.
_PAUSE_SECONDS = 0.1


def wait_until_ready(channel: grpc.Channel, target: str, seconds: float) -> None:
    """Waits until there is a server that says that it answers calls.

    Raises:
        UnavailableError: There is none in time, or one that does not.
    """
    deadline = time.monotonic() + seconds
    while True:
        left = max(deadline - time.monotonic(), 0.0)
        try:
            grpc.channel_ready_future(channel).result(left)
        except grpc.FutureTimeoutError:
            msg = (
                f"no curator server at {target} after {seconds:g} s: start one with "
                "`curator serve CONFIG.toml`, or check the address, and whether that "
                "server has TLS or asks for a certificate (cert=, key=) "
                f"({_why_not(channel)})"
            )
            raise UnavailableError(msg) from None
        code = _code_of_watch(channel, max(deadline - time.monotonic(), 0.0))
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            msg = (
                f"the curator server at {target} is not ready after {seconds:g} s, as "
                "while it opens its pools: try again later, or wait longer (timeout=)"
            )
            raise UnavailableError(msg)
        if code != grpc.StatusCode.UNAVAILABLE or time.monotonic() >= deadline:
            return  # if it is no server of ours, or gone again, the calls tell
        time.sleep(min(_PAUSE_SECONDS, max(deadline - time.monotonic(), 0.0)))


def _code_of_watch(channel: grpc.Channel, seconds: float) -> grpc.StatusCode:
    """Waits while a server says that it does not serve; returns how that ended.

    Returns:
        OK where it serves, DEADLINE_EXCEEDED where it does not in time, otherwise what
        the question was answered with.
    """
    request, is_waited_for = health_pb2.HealthCheckRequest(), False
    watch = cast("Any", health_pb2_grpc.HealthStub(channel)).Watch(
        request, timeout=seconds
    )
    try:
        for response in watch:
            if response.status != health_pb2.HealthCheckResponse.NOT_SERVING:
                return grpc.StatusCode.OK
            is_waited_for = True
    except grpc.RpcError as error:
        code = cast("grpc.Call", error).code()
        # Out of time before it said anything: then the calls tell.
        if code == grpc.StatusCode.DEADLINE_EXCEEDED and not is_waited_for:
            return grpc.StatusCode.OK
        return code
    finally:
        watch.cancel()
    return grpc.StatusCode.UNAVAILABLE  # it ended what has no end


def _why_not(channel: grpc.Channel) -> str:
    """Returns why a channel does not connect, in gRPC's words."""
    check = cast("Any", channel).unary_unary("/grpc.health.v1.Health/Check")
    try:
        check(b"", timeout=1.0)
    except grpc.RpcError as error:
        return cast("grpc.Call", error).details() or "no reason known"
    return "it is there now"
