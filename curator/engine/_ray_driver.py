"""Ray's driver: who is connected to the cluster, and answers the service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from curator.engine._hosted_scorer import Logits, ScoringPlan
from curator.engine._packed import PackedShard, Scored
from curator.engine._ray import RayScorer, watch_node
from curator.engine._ray_connection import RayConnection
from curator.engine._ray_session import RaySession
from curator.engine._remote_scorer import Counts
from curator.errors import ScoringError

__all__ = ["RayDriver"]

T = TypeVar("T")


class RayDriver:
    """Ray's driver: connects to the cluster, and keeps the scorers of all sessions.

    Lives in a process of its own (:mod:`curator.engine._ray_process`), because Ray ends
    a driver whose cluster was started anew. Methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection = RayConnection(watch_node)
        self._sessions: dict[str, RaySession] = {}
        self._stopped: set[str] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(
            target=self._loop.run_forever, name="curator-ray-loop", daemon=True
        ).start()

    def score(
        self, plan: ScoringPlan, shards: Sequence[PackedShard], snapshot: str | None
    ) -> tuple[list[bytes | Scored], Counts]:
        """Returns packed scores of shards, in order, and what happened on the way.

        Args:
            plan: The session; its scorers start with the first call.
            shards: What to score.
            snapshot: File with the learner's weights; None for the configured ones.

        Raises:
            CuratorError: A model failed, there is no cluster, no scorer can start ...
        """
        session = self._session(plan)
        weights = session.snapshot(snapshot)
        counts = Counts()
        calls = [
            (shard.name, _calling(session.score, shard, *weights)) for shard in shards
        ]
        return self._wait(session.dispatcher.run(calls, counts)), counts

    def hold(
        self,
        plan: ScoringPlan,
        batch: str,
        shards: Sequence[PackedShard],
        snapshot: str | None,
    ) -> tuple[list[tuple[Logits, float, dict[str, int]]], Counts]:
        """Scores shards whose embeddings stay with the scorers.

        Args:
            plan: The session.
            batch: What to call the super-batch in :meth:`pair`.
            shards: What to score.
            snapshot: As for :meth:`score`.

        Raises:
            CuratorError: As for :meth:`score`.
        """
        session = self._session(plan)
        weights = session.snapshot(snapshot)
        counts = Counts()
        calls = [
            (shard.name, _calling(session.hold, (batch, i), shard, *weights))
            for i, shard in enumerate(shards)
        ]
        return self._wait(session.dispatcher.run(calls, counts)), counts

    def pair(
        self,
        plan: ScoringPlan,
        batch: str,
        method: str,
        arguments: Sequence[Sequence[object]],
    ) -> list[Any] | None:
        """Returns what a method of each shard of a super-batch returns.

        None where embeddings were lost, with a scorer or with an earlier driver.

        Args:
            plan: The session.
            batch: As given to :meth:`hold`.
            method: Of :class:`curator.scores.PairShard`.
            arguments: Of each shard.
        """
        return self._wait(self._session(plan).pair(batch, method, arguments))

    def open(self, plan: ScoringPlan) -> None:
        """Starts the scorers of a session, unless they are started."""
        self._session(plan)

    def num_ready(self, session: str) -> int:
        """Returns how many scorers of a session can work now."""
        found = self._sessions.get(session)
        return 0 if found is None else found.dispatcher.num_ready

    def stop(self, session: str) -> None:
        """Ends the scorers of a session."""
        with self._lock:
            # For good: what was asked for just before may arrive just after.
            self._stopped.add(session)
            found = self._sessions.pop(session, None)
        self._connection.wake()
        if found is not None:
            self._loop.call_soon_threadsafe(found.close)

    def _session(self, plan: ScoringPlan) -> RaySession:
        self._connection.wait(plan.ray, lambda: plan.session not in self._stopped)
        with self._lock:
            if plan.session in self._stopped:
                msg = f"the scorers of session {plan.session!r} are stopped"
                raise ScoringError(msg)
            if plan.session not in self._sessions:
                self._sessions[plan.session] = self._wait(_started(plan))
            return self._sessions[plan.session]

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


async def _started(plan: ScoringPlan) -> RaySession:
    return RaySession(plan)


def _calling(
    method: Callable[..., Awaitable[T]], *arguments: object
) -> Callable[[RayScorer], Awaitable[T]]:
    """Returns a call of a method whose first argument is the scorer."""
    return lambda scorer: method(scorer, *arguments)
