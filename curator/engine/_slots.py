"""What a dispatcher knows of each of its scorers, and of each shard."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from curator.engine._remote_scorer import Counts, RemoteScorer

__all__ = ["Call", "PendingShard", "Slot"]

S = TypeVar("S", bound=RemoteScorer)
Call = Callable[[S], Awaitable[Any]]


@dataclasses.dataclass(slots=True, eq=False)
class PendingShard(Generic[S]):
    """One call that any scorer may answer.

    Attributes:
        name: For messages.
        call: The call itself; it may be made more than once.
        counts: Of the request that it belongs to.
        result: Its outcome.
        slots: The scorers that are at it.
        since: When it was first given to one.
        num_deaths: How many scorers died of it, or at it.
    """

    name: str
    call: Call[S]
    counts: Counts
    result: asyncio.Future[Any]
    slots: set[Slot[S]] = dataclasses.field(default_factory=set["Slot[S]"])
    since: float = 0.0
    num_deaths: int = 0


@dataclasses.dataclass(slots=True, eq=False)
class Slot(Generic[S]):
    """A scorer, and what it is doing.

    Attributes:
        scorer: The scorer.
        number: For messages.
        is_ready: Whether its models are loaded.
        shards: What it is doing, oldest first.
        last: When it last finished something, or was given something while idle.
    """

    scorer: S
    number: int
    last: float
    is_ready: bool = False
    shards: dict[PendingShard[S], None] = dataclasses.field(
        default_factory=dict["PendingShard[S]", None]
    )
