"""What a client shows a server, and how it knows that server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from curator.config import check_key_pair, is_local
from curator.errors import ConfigError

__all__ = ["Credentials"]

_DETAILS = ("method", "timeout", "credentials", "wait_for_ready", "compression")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Credentials:
    """How to make a channel.

    Attributes:
        tls: For an encrypted channel; none without.
        token: Sent with every call.
    """

    tls: grpc.ChannelCredentials | None = None
    # Not in the representation, which ends up in logs.
    token: str | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        target: str,
        *,
        tls: bool | str | Path = False,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        token: str | None = None,
    ) -> Credentials:
        """Reads and checks what :func:`curator.connect` was given.

        Raises:
            ConfigError: It does not fit together, or a file cannot be read.
        """
        if (cert is None) != (key is None):
            msg = "cert and key: a client's certificate needs both, or neither"
            raise ConfigError(msg)
        if tls is False:
            if cert is not None:
                msg = "cert: only with tls=True, or tls=PATH of the server's CA"
                raise ConfigError(msg)
            if token is not None and not is_local(target):
                msg = (
                    f"the token would travel to {target} unencrypted: connect with "
                    "tls=True, or tls=PATH of the server's CA; a server without TLS "
                    "needs no token (unset CURATOR_TOKEN)"
                )
                raise ConfigError(msg)
        if token is not None and not (token.isascii() and token.isprintable()):
            msg = "token: ASCII characters only, and no line breaks"
            raise ConfigError(msg)
        if tls is False:
            return cls(token=token)
        root = None if tls is True else _read("tls", tls)
        private_key = None if key is None else _read("key", key)
        chain = None if cert is None else _read("cert", cert)
        if cert is not None and key is not None:
            try:
                check_key_pair(cert, key)
            except ValueError as error:
                msg = f"cert and key: {error}"
                raise ConfigError(msg) from None
        return cls(
            tls=grpc.ssl_channel_credentials(root, private_key, chain), token=token
        )

    def channel(self, target: str, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
        """Returns a channel to a server; calls on it carry the token."""
        if self.tls is None:
            channel = grpc.insecure_channel(target, options)
        else:
            channel = grpc.secure_channel(target, self.tls, options)
        if self.token is None:
            return channel
        return grpc.intercept_channel(channel, _WithToken(self.token))


class _WithToken(
    grpc.UnaryUnaryClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds a token to the metadata of each call.

    gRPC's own call credentials need TLS; between processes of one machine a token goes
    without.
    """

    def __init__(self, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request: Any,
    ) -> Any:
        """Passes a call on, with the token."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_stream_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Iterator[Any],
    ) -> Any:
        """Passes a call on, with the token."""
        return continuation(self._with_token(client_call_details), request_iterator)

    intercept_stream_stream = intercept_stream_unary  # what comes back is passed on too

    def _with_token(self, details: grpc.ClientCallDetails) -> grpc.ClientCallDetails:
        changed = _Details()
        for name in _DETAILS:
            setattr(changed, name, getattr(details, name, None))
        changed.metadata = (*(details.metadata or ()), *self._metadata)
        return changed


class _Details(grpc.ClientCallDetails):
    """The details of a call; gRPC's own cannot be changed."""


def _read(name: str, path: str | Path) -> bytes:
    """Returns what a PEM file holds; what it should be is in its armour."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        msg = f"{name}: cannot read {str(path)!r}: {error.strerror}"
        raise ConfigError(msg) from error
    if b"-----BEGIN " not in data:
        msg = f"{name}: {str(path)!r} is no PEM file"
        raise ConfigError(msg)
    return data
