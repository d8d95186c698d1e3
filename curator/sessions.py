"""What a session says of itself, and how a batch is cut for its ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Integral

from curator.config import SessionSpec
from curator.errors import SessionError, SessionMismatchError

__all__ = ["SessionInfo", "ahead_error", "rank_slice"]


@dataclasses.dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a session is, where it is, and what it has cost.

    Attributes:
        name: The session.
        spec: Its specification.
        fingerprint: Digest of specification, pool and models.
        num_examples: Of the pool.
        num_steps_per_epoch: Of the newest epoch that is planned.
        num_steps: How long it is; None where it is endless, or not known yet.
        num_defined: Steps in the ledger.
        next_step: The first that is not closed.
        needs_learner: The server scores with snapshots of the learner.
        needs_initial_snapshot: The next step waits for one: the learner has no weights.
        depends_on_losses: Epochs are planned from reported losses.
        cost: What selection has cost so far, by name.
    """

    name: str
    spec: SessionSpec
    fingerprint: str
    num_examples: int
    num_steps_per_epoch: int
    num_steps: int | None
    num_defined: int
    next_step: int
    needs_learner: bool
    needs_initial_snapshot: bool
    depends_on_losses: bool
    cost: Mapping[str, float]


def rank_slice(batch_size: int, rank: int, world_size: int) -> slice:
    """Returns which rows of a global batch are a rank's.

    Raises:
        SessionError: The batch cannot be cut into equal slices, or there is no such
            rank.
    """
    are_whole = isinstance(rank, Integral) and isinstance(world_size, Integral)
    if not are_whole or world_size < 1 or not 0 <= rank < world_size:
        msg = (
            "rank must be a whole number in [0, world_size); got rank "
            f"{rank!r} of {world_size!r}"
        )
        raise SessionError(msg)
    if batch_size % world_size:
        msg = (
            f"a batch of {batch_size} examples cannot be cut into {world_size} equal "
            "slices: choose a world_size that divides the session's batch_size"
        )
        raise SessionError(msg)
    size = batch_size // world_size
    return slice(rank * size, (rank + 1) * size)


def ahead_error(
    session: str, what: str, num_defined: int, next_step: int
) -> SessionMismatchError:
    """Returns the error of a trainer that is beyond what its session has defined.

    Args:
        session: The session's name.
        what: What the trainer asks for or tells.
        num_defined: How many steps are defined.
        next_step: The first that is not closed.
    """
    return SessionMismatchError(
        f"{what}, but session {session!r} is at step {next_step} and only its first "
        f"{num_defined} steps are defined. If the service was restored from an older "
        f"checkpoint than the trainer's, load a trainer checkpoint of step {next_step} "
        "or before, or restore the service's newer one"
    )
