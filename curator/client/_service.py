"""What a trainer connects to: a set of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curator.client._arguments import check_session, check_whole
from curator.client._forks import Home, elsewhere
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
        self._home = Home()
        self._reached = transport
        self._opened: list[Session] = []

    @property
    def _transport(self) -> Transport:
        self._home.check()
        return self._reached

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
        check_session(name, spec)
        info = self._transport.open(name, spec)
        session = Session(self._transport, info, rank, world_size)
        self._opened.append(session)
        return session

    def fork(
        self,
        name: str,
        new_name: str,
        *,
        step: int,
        forget_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> Session:
        """Opens a new session that is another one up to a step.

        For a trainer that goes back to a checkpoint and tries something else from
        there: the other session stays as it is. ``load_state_dict`` is for going back
        in the same session, which replays its batches. Given the same reports and
        snapshots, the new session gives the same batches, too.

        Where the weights that scored the step are not kept any more, the new session
        waits for ``session.publish(model)`` before its first batch, with the model as
        it was at that step.

        Args:
            name: The other session.
            new_name: What the new one is called. Every rank gives the same one; where
                this call was made before, it opens what was made then.
            step: The first step that is not shared, as ``state_dict()["step"]`` has it.
            forget_memory: Whether the policy, if it is one that remembers, starts
                with nothing. It has to where what it remembered is not kept any more.
            rank: As for :meth:`open`.
            world_size: As for :meth:`open`.

        Raises:
            UnknownSessionError: There is no session ``name``.
            SessionError: The step is not closed, or what it depends on is not kept.
            SessionMismatchError: There is another session under the new name.
        """
        check_whole("step", step, 0)
        info = self._transport.fork(name, new_name, step, forget_memory=forget_memory)
        session = Session(self._transport, info, rank, world_size)
        self._opened.append(session)
        return session

    def names(self) -> list[str]:
        """Returns the sessions that exist or are configured."""
        return self._transport.names()

    def open_sessions(self) -> list[SessionInfo]:
        """Returns what those of them are that somebody has opened; opens none."""
        return self._transport.open_sessions()

    def describe(self, name: str) -> SessionInfo:
        """Returns what a session is, where it is, and what it has cost; opens it."""
        return self._transport.describe(name)

    def close(self) -> None:
        """Ends every iterator, and closes the connection or the local sessions."""
        if not self._home.is_here:
            return  # what was forked must not end what its parent uses
        for session in self._opened:
            session.close()
        self._transport.close()

    def __enter__(self) -> Service:
        """Returns the service."""
        return self

    def __reduce__(self) -> str:
        raise elsewhere()

    def __exit__(self, *_: object) -> None:
        self.close()
