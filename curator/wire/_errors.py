"""Errors across the wire: a gRPC status, a message, and the name of our class."""

from __future__ import annotations

from typing import cast

import grpc

from curator import errors
from curator.errors import CuratorError

__all__ = ["ERROR_KEY", "error_from_rpc", "status_of"]

ERROR_KEY = "curator-error"

_STATUS: dict[type[CuratorError], grpc.StatusCode] = {
    errors.ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.FeatureError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.FeedbackError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.SnapshotError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownSessionError: grpc.StatusCode.NOT_FOUND,
    errors.SessionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PoolError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ProtocolError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.MissingDependencyError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StorageError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.LimitError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.AuthenticationError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.CuratorError: grpc.StatusCode.INTERNAL,
}


def status_of(error: CuratorError) -> grpc.StatusCode:
    """Returns the status of the nearest ancestor of an error's class."""
    return next(_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS)


def error_from_rpc(error: grpc.RpcError, target: str) -> CuratorError:
    """Returns the exception that a failed call means to the user.

    Args:
        error: What gRPC raised; a call object that knows status and metadata.
        target: The server's address, for the message.
    """
    # Every RpcError that a call raises is that call, with these methods.
    call = cast("grpc.Call", error)
    code, details = call.code(), call.details() or ""
    metadata = call.trailing_metadata() or ()
    name = next((value for key, value in metadata if key == ERROR_KEY), None)
    cls = getattr(errors, str(name), None)
    if isinstance(cls, type) and issubclass(cls, CuratorError):
        return cls(details)
    # Nothing of ours cancels a call that is waited for: it is a proxy, or a server that
    # goes away.
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        msg = f"cannot reach the curator server at {target}: {details}"
        return errors.UnavailableError(msg)
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        msg = (
            f"a message is over the limit of {target} ({details}): raise "
            "server.max_message_bytes, or report fewer rows at once"
        )
        return errors.LimitError(msg)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        msg = (
            f"the server at {target} does not know this call ({details}): it is older "
            "than this client, or no curator server"
        )
        return errors.ProtocolError(msg)
    msg = f"the server at {target} failed: {code}: {details}"
    return errors.ServiceError(msg)
