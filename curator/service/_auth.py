"""Who calls, and what they may do: bearer tokens, and where a server may listen."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import cast

import grpc

from curator.config import Permission, ServerSpec, TokenSpec, is_local
from curator.errors import (
    AuthenticationError,
    ConfigError,
    PermissionDeniedError,
    UnavailableError,
)

__all__ = ["Gate", "check_exposure", "permission_for"]

# What each call needs. OpenSession needs more where it makes a session: see Servicer.
_PERMISSIONS: dict[str, Permission] = {
    "OpenSession": "read",
    "StreamBatches": "read",
    "ListSessions": "read",
    "DescribeSession": "read",
    "SelectBatch": "report",
    "ReportStep": "report",
    "SkipSteps": "report",
    "PublishSnapshot": "publish",
    "ForkSession": "open",
}


def permission_for(call: str) -> Permission:
    """Returns what a call of the service needs; all of it, where nobody has said."""
    return _PERMISSIONS.get(call, "administer")


def check_exposure(listen: str, spec: ServerSpec) -> None:
    """Checks that what others can reach is encrypted and asks who they are.

    Raises:
        ConfigError: The address is not of this machine alone, and TLS or tokens are
            missing.
    """
    missing = [
        table
        for table, given in (
            ("[server.tls]", spec.tls),
            ("[server.tokens.NAME]", spec.tokens),
        )
        if not given
    ]
    if missing and not is_local(listen):
        msg = (
            f"{listen} can be reached from other machines, and the configuration has "
            f"no {' and no '.join(missing)}: add what is missing (docs/security.md), "
            "listen on 127.0.0.1, or say --insecure where the network itself keeps "
            "strangers out"
        )
        raise ConfigError(msg)


class Gate:
    """Lets calls pass whose token allows them; every call, where there are no tokens.

    Until it is open it lets none pass. Tokens are only known by their digests. A digest
    is compared with each of those, and in constant time, so that how long an answer
    takes says nothing about them.
    """

    def __init__(self, tokens: Mapping[str, TokenSpec]) -> None:
        """Reads the tokens. The gate is closed.

        Raises:
            ConfigError: One cannot be read, or two are the same.
        """
        self._is_open = False
        self._tokens = {name: token.digest() for name, token in tokens.items()}
        self._allowed = {name: token.allow for name, token in tokens.items()}
        names = {digest: name for name, digest in self._tokens.items()}
        for name, digest in self._tokens.items():
            if names[digest] != name:
                msg = (
                    f"server.tokens: {name} and {names[digest]} are the same token; "
                    "give each its own"
                )
                raise ConfigError(msg)

    def open(self) -> None:
        """Lets calls pass from now on."""
        self._is_open = True

    def check(self, context: grpc.ServicerContext, permission: Permission) -> None:
        """Checks that a call may do something.

        Raises:
            AuthenticationError: It has no token, or none of these.
            PermissionDeniedError: Its token does not allow it.
            UnavailableError: The gate is closed.
        """
        self._check_token(context, permission)
        if not self._is_open:
            msg = "the server is opening its pools, and answers no calls: try later"
            raise UnavailableError(msg)

    def _check_token(
        self, context: grpc.ServicerContext, permission: Permission
    ) -> None:
        if not self._tokens:
            return
        name = self._name(context)
        allowed = self._allowed[name]
        if permission not in allowed and "administer" not in allowed:
            msg = (
                f"token {name!r} has no permission to {permission!r}, only to "
                f"{', '.join(allowed)}: add it to server.tokens.{name}.allow, or use "
                "another token"
            )
            raise PermissionDeniedError(msg)

    def client(self, context: grpc.ServicerContext) -> str:
        """Returns whose call it is: a token's name, without tokens the peer's host."""
        if self._tokens:
            return f"token {self._name(context)!r}"
        peer = context.peer()  # ipv4:HOST:PORT, ipv6:[HOST]:PORT, unix:PATH
        is_ip = peer.startswith(("ipv4:", "ipv6:"))
        return f"client {peer.rpartition(':')[0] if is_ip else peer}"

    def _name(self, context: grpc.ServicerContext) -> str:
        """Returns the name of a call's token."""
        metadata = cast("tuple[tuple[str, str], ...]", context.invocation_metadata())
        given = [value for key, value in metadata if key == "authorization"]
        if not given:
            msg = (
                "this server asks for a token: curator.connect(..., token=...), or "
                "the environment variable CURATOR_TOKEN"
            )
            raise AuthenticationError(msg)
        scheme, _, token = given[0].partition(" ")
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for name, known in self._tokens.items():
            if hmac.compare_digest(known, digest):
                found = name
        if found is None or scheme.lower() != "bearer" or len(given) > 1:
            msg = "the token is none of this server's (server.tokens)"
            raise AuthenticationError(msg)
        return found
