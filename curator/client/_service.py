"""What a trainer connects to: a set of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curator.client._session import Session
from curator.client._transport import Transport
from curator.config import SessionSpec, parse_session
from curator.sessions import SessionInfo

__all__ = ["Service"]


class Service:
    """Opens and lists sessions; from :func:`curator.connect` or :func:`curator.local`.

    A context manager: leaving it closes the connection, or the local sessions.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._opened: list[Session] = []

    def open(
        self,
        name: str,
        spec: SessionSpec | Mapping[str, Any] | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> Session:
        """Opens a session, or resumes it where it was.

        Args:
            name: The session.
            spec: What it is; by default what the service knows under this name. Names
                pools and models of the service's configuration.
            rank: This trainer process, among the data-parallel ones.
            world_size: How many there are; divides the batch size.

        Raises:
            UnknownSessionError: There is none, and no ``spec`` to make it.
            SessionMismatchError: It exists with another specification.
            PoolChangedError: The pool's data is not what it was.
            ConfigError: The specification is wrong.
        """
        if isinstance(spec, Mapping):
            spec = parse_session(spec)
        info = self._transport.open(name, spec)
        session = Session(self._transport, info, rank, world_size)
        self._opened.append(session)
        return session

    def names(self) -> list[str]:
        """Returns the sessions that exist or are configured."""
        return self._transport.names()

    def describe(self, name: str) -> SessionInfo:
        """Returns what a session is, where it is, and what it has cost."""
        return self._transport.describe(name)

    def close(self) -> None:
        """Ends every iterator, and closes the connection or the local sessions."""
        for session in self._opened:
            session.close()
        self._transport.close()

    def __enter__(self) -> Service:
        """Returns the service."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
