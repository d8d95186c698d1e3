"""What may be asked of a session: steps that it has, for as long as it is open."""

from __future__ import annotations

from curator.engine._epochs import Epochs
from curator.errors import SessionError

__all__ = ["Bounds"]


class Bounds:
    """How long a session is, and whether it is open.

    Attributes:
        is_closed: Whether the session is closed; changes with the engine's lock held.
    """

    def __init__(self, name: str, epochs: Epochs) -> None:
        self._name = name
        self._epochs = epochs
        self.is_closed = False

    def close(self) -> None:
        """Ends what may be asked. Called with the lock held."""
        self.is_closed = True

    @property
    def closed_error(self) -> SessionError:
        """What is raised to whoever asks a closed session."""
        return SessionError(
            f"session {self._name!r} is closed: the server is shutting down"
        )

    def check_open(self) -> None:
        """Checks that the session is open.

        Raises:
            SessionError: It is not.
        """
        if self.is_closed:
            raise self.closed_error

    def check_step(self, step: int) -> None:
        """Checks that the session has a step, as far as its length is known.

        Raises:
            SessionError: It has not.
        """
        num_steps = self._epochs.num_steps
        if step < 0 or (num_steps is not None and step >= num_steps):
            end = "endless" if num_steps is None else f"{num_steps} steps long"
            msg = f"session {self._name!r} is {end}; got step {step}"
            raise SessionError(msg)
