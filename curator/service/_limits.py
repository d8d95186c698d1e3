"""Limits of a server: open sessions, and streams per client."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import grpc

from curator.config import SessionSpec
from curator.engine import Registry, SessionEngine
from curator.errors import LimitError

__all__ = ["OpenSessions", "StreamSlots"]

# How long a stream over the limit waits for another one to end.
GRACE_SECONDS = 0.5


class OpenSessions:
    """Opens a registry's sessions, as many as the configuration allows.

    A session stays open until the server ends, so the limit is also one on how many
    can be made.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._most = registry.config.server.max_sessions
        self._max_super_batch_size = registry.config.server.max_super_batch_size
        self._opened: set[str] = set()
        self._lock = threading.Lock()

    def open(self, name: str, spec: SessionSpec | None = None) -> SessionEngine:
        """Opens a session, as :meth:`Registry.open` does.

        Args:
            name: The session.
            spec: What a client says it is.

        Raises:
            LimitError: The super-batch is too large, or too many sessions are open.
        """
        if spec is not None and spec.super_batch_size > self._max_super_batch_size:
            msg = (
                f"super_batch_size: {spec.super_batch_size} is over the limit of "
                f"{self._max_super_batch_size}: raise server.max_super_batch_size"
            )
            raise LimitError(msg)
        if name in self._opened:
            return self._registry.open(name, spec)
        return self._new(name, lambda: self._registry.open(name, spec))

    def fork(
        self, name: str, new_name: str, step: int, *, forget_memory: bool
    ) -> SessionEngine:
        """Forks a session, as :meth:`Registry.fork` does.

        Raises:
            LimitError: Too many sessions are open.
        """
        self.open(name)
        return self._new(
            new_name,
            lambda: self._registry.fork(
                name, new_name, step, forget_memory=forget_memory
            ),
        )

    def _new(self, name: str, make: Callable[[], SessionEngine]) -> SessionEngine:
        # The registry opens one at a time anyway.
        with self._lock:
            if name not in self._opened and len(self._opened) >= self._most:
                msg = (
                    f"cannot open session {name!r}: {self._most} are open, which is "
                    "the limit; raise server.max_sessions, or restart the server: "
                    "it opens only what is asked for"
                )
                raise LimitError(msg)
            engine = make()
            self._opened.add(name)
            return engine


class StreamSlots:
    """Counts the streams of each client."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count: Counter[str] = Counter()
        self._changed = threading.Condition()

    def take(self, client: str, context: grpc.ServicerContext) -> None:
        """Counts a stream until its call ends.

        Raises:
            LimitError: The client has as many as it may.
        """
        with self._changed:
            # A client that replaces a stream may be faster than the end of its old one.
            if not self._changed.wait_for(
                lambda: self._count[client] < self._most, GRACE_SECONDS
            ):
                msg = (
                    f"{client} has {self._most} streams open, which is the limit: "
                    "close some, or raise server.max_streams_per_client"
                )
                raise LimitError(msg)
            self._count[client] += 1
        if not context.add_callback(lambda: self._give_back(client)):
            self._give_back(client)  # it has ended already

    def _give_back(self, client: str) -> None:
        with self._changed:
            self._count[client] -= 1
            if not self._count[client]:
                del self._count[client]
            self._changed.notify_all()
