"""Where a trainer is, as a small mapping that it keeps in its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from curator.errors import SessionMismatchError

__all__ = ["read_state", "restored_error", "write_state"]

VERSION = 1


def write_state(session: str, fingerprint: str, step: int) -> dict[str, Any]:
    """Returns the state of a trainer whose next step is ``step``."""
    return {
        "version": VERSION,
        "session": session,
        "fingerprint": fingerprint,
        "step": step,
    }


def read_state(state: Any, session: str, fingerprint: str) -> int:
    """Returns the next step of a state.

    Raises:
        SessionMismatchError: The state is not of this session.
    """
    if not isinstance(state, Mapping):
        msg = f"a state is what state_dict() returned; got {type(state).__name__}"
        raise SessionMismatchError(msg)
    state = cast("Mapping[str, Any]", state)
    for key, ours in write_state(session, fingerprint, 0).items():
        if key != "step" and state.get(key) != ours:
            msg = (
                f"the state is not of this session: {key} is {state.get(key)!r}, "
                f"this session's is {ours!r}"
            )
            raise SessionMismatchError(msg)
    step = state.get("step")
    if not isinstance(step, int) or step < 0:
        msg = f"the state's step must be an integer from 0; got {step!r}"
        raise SessionMismatchError(msg)
    return step


def restored_error(session: str, why: str, next_step: int) -> SessionMismatchError:
    """Returns the error of a trainer that is ahead of its session.

    Args:
        session: The session's name.
        why: How that is known.
        next_step: Where the session is.
    """
    return SessionMismatchError(
        f"{why}, and session {session!r} is at step {next_step}: the service was "
        "restored from an older checkpoint than the trainer's. Load a trainer "
        f"checkpoint of step {next_step} or before, or restore the service's newer one"
    )
