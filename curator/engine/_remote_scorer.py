"""What a dispatcher keeps: scorers, how many, and what happened to them."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

__all__ = ["Counts", "RemoteScorer", "ScorerLimits", "ScorerLostError"]


class ScorerLostError(Exception):
    """A scorer is gone, for a reason that is not the model's or the data's."""


@runtime_checkable
class RemoteScorer(Protocol):
    """A scorer in a process of its own."""

    async def ready(self) -> None:
        """Waits until models are loaded.

        Raises:
            CuratorError: They cannot be.
            ScorerLostError: The scorer died meanwhile.
        """
        ...

    async def gone(self) -> None:
        """Waits, once it is ready, until the scorer has died.

        Raises:
            ScorerLostError: Always; it says why.
        """
        ...

    def kill(self) -> None:
        """Ends the scorer. What it is doing fails with :class:`ScorerLostError`."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ScorerLimits:
    """How many scorers, and how long they are waited for.

    Attributes:
        least: How many there always are.
        most: How many there may be while shards wait.
        deadline: Seconds after which a scorer that finishes nothing is replaced.
        start: Seconds after which shards fail that wait with no scorer at all.
        idle: Seconds after which one above ``least`` ends that has nothing to do.
    """

    least: int
    most: int
    deadline: float
    start: float
    idle: float


@dataclasses.dataclass(slots=True, eq=False)
class Counts:
    """What happened to the shards of a request, beside being scored."""

    num_retried_shards: int = 0
    num_hedged_shards: int = 0
    num_lost_scorers: int = 0
