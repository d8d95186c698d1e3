"""Shards to scorers: at most two at once for each, none lost, none waited for in vain.

Knows nothing of Ray: a scorer is what :class:`RemoteScorer` says. Runs in one asyncio
loop; nothing here is called from another thread.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import statistics
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from curator.engine._remote_scorer import (
    Counts,
    RemoteScorer,
    ScorerLimits,
    ScorerLostError,
)
from curator.engine._slots import Call, PendingShard, Slot
from curator.errors import CuratorError, ScoringError

__all__ = ["MAX_IN_FLIGHT", "Dispatcher"]

_log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 2
"""Shards of a scorer: one at work and one on its way, so that it never waits."""

# A shard that outlives so many scorers is taken to be what kills them.
_MAX_DEATHS = 3
# A shard is done by a second scorer too once it takes this many times the median.
_STRAGGLES_AT = 3.0
_MIN_DURATIONS = 4
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.1, 30.0
_MAX_STARTS = 3
# Without any scorer for so long, the log says so: the rest may take minutes.
_WARNS_AFTER_SECONDS = 10.0


S = TypeVar("S", bound=RemoteScorer)


class Dispatcher(Generic[S]):
    """Keeps scorers, and gives them shards.

    Shards are taken in the order they arrive. A scorer that dies, or finishes nothing
    within the deadline, is replaced and its shards go to others, first in the line. A
    shard that takes much longer than most is given to a second scorer that has nothing
    to do; the first answer counts. Answers are functions of the call alone, so none of
    this changes a result.
    """

    def __init__(self, name: str, start: Callable[[], S], limits: ScorerLimits) -> None:
        """Starts the least number of scorers.

        Args:
            name: For messages.
            start: Starts a scorer; must not block.
            limits: How many, and how long they may take.
        """
        self._name = name
        self._start = start
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._queue: collections.deque[PendingShard[S]] = collections.deque()
        self._slots: list[Slot[S]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._durations: collections.deque[float] = collections.deque(maxlen=64)
        self._num_started = 0
        self._num_failed_starts = 0
        self._num_lost_unnoticed = 0
        self._trouble = "they are still starting"
        self._unserved_since: float | None = None
        self._has_warned = False
        self._retry: asyncio.TimerHandle | None = None
        self._hedge: asyncio.TimerHandle | None = None
        self._closed = False
        self._spawn(self._watch())
        self._keep_least()

    @property
    def num_ready(self) -> int:
        """How many scorers can work now."""
        return sum(slot.is_ready for slot in self._slots)

    async def run(
        self, calls: Iterable[tuple[str, Call[S]]], counts: Counts
    ) -> list[Any]:
        """Returns the results of calls, in order.

        Args:
            calls: A name and a call each.
            counts: Filled with what happened on the way.

        Raises:
            CuratorError: A call raised it: the model failed, rows cannot be read ...
            ScoringError: There is no scorer and none can be started, or scorers die at
                one of the calls again and again.
        """
        shards = [
            PendingShard(name, call, counts, self._loop.create_future())
            for name, call in calls
        ]
        if self._closed:
            msg = f"the scorers of session {self._name!r} are stopped"
            raise ScoringError(msg)
        counts.num_lost_scorers += self._num_lost_unnoticed
        self._num_lost_unnoticed = 0
        self._queue.extend(shards)
        self._dispatch()
        try:
            return [await shard.result for shard in shards]
        finally:
            for shard in shards:  # after a failure nobody waits for the others
                if not shard.result.cancel() and not shard.result.cancelled():
                    shard.result.exception()  # so that asyncio does not log it

    def close(self) -> None:
        """Ends the scorers. What is waited for fails."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for timer in (self._retry, self._hedge):
            if timer is not None:
                timer.cancel()
        for slot in self._slots:
            slot.scorer.kill()
        self._fail_all(f"the scorers of session {self._name!r} are stopped")

    # --- shards ------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Gives shards to scorers that have room, the emptiest first."""
        while self._queue:
            free = [
                slot
                for slot in self._slots
                if slot.is_ready and len(slot.shards) < MAX_IN_FLIGHT
            ]
            if not free:
                break
            shard = self._queue.popleft()
            if not shard.result.done():
                self._give(shard, min(free, key=lambda slot: len(slot.shards)))
        self._grow()
        if not self._queue:
            self._hedge_stragglers()

    def _give(self, shard: PendingShard[S], slot: Slot[S]) -> None:
        now = self._loop.time()
        if not slot.shards:
            slot.last = now
        if not shard.slots:
            shard.since = now
        slot.shards[shard] = None
        shard.slots.add(slot)
        self._spawn(self._answer(shard, slot))

    async def _answer(self, shard: PendingShard[S], slot: Slot[S]) -> None:
        """Waits for one scorer's answer to one shard."""
        try:
            value = await shard.call(slot.scorer)
        except ScorerLostError as error:
            self._lose(slot, str(error))
            return
        except Exception as error:
            outcome: Any = _as_ours(error)
        else:
            outcome = value
            if len(shard.slots) == 1:
                self._durations.append(self._loop.time() - shard.since)
        if slot not in self._slots:
            return  # given up meanwhile; its shards are with others
        slot.last = self._loop.time()
        slot.shards.pop(shard, None)
        shard.slots.discard(slot)
        if not shard.result.done():
            if isinstance(outcome, CuratorError):
                shard.result.set_exception(outcome)
            else:
                shard.result.set_result(outcome)
        self._dispatch()

    def _hedge_stragglers(self) -> None:
        """Has idle scorers repeat shards that take much longer than most."""
        if self._hedge is not None:
            self._hedge.cancel()
            self._hedge = None
        idle = [slot for slot in self._slots if slot.is_ready and not slot.shards]
        if not idle or len(self._durations) < _MIN_DURATIONS:
            return
        allowed = _STRAGGLES_AT * statistics.median(self._durations)
        now = self._loop.time()
        alone = sorted(
            (shard.since + allowed, number, shard)
            for number, shard in enumerate(
                shard
                for slot in self._slots
                for shard in slot.shards
                if len(shard.slots) == 1 and not shard.result.done()
            )
        )
        for due, _, shard in alone:
            if due > now or not idle:
                if idle:  # looked at again then; otherwise when one is idle
                    self._hedge = self._loop.call_at(due, self._hedge_stragglers)
                return
            shard.counts.num_hedged_shards += 1
            _log.info(
                "session %r: %s takes long; another scorer does it too",
                self._name,
                shard.name,
            )
            self._give(shard, idle.pop())

    # --- scorers -----------------------------------------------------------------

    def _keep_least(self) -> None:
        self._retry = None
        while len(self._slots) < self._limits.least:
            self._add_slot()

    def _grow(self) -> None:
        """Starts scorers while more shards wait than those that start will take."""
        starting = sum(not slot.is_ready for slot in self._slots)
        wanted = -(-len(self._queue) // MAX_IN_FLIGHT)
        if self._retry is not None:
            return  # the last ones failed to start: not before the next try
        while starting < wanted and len(self._slots) < self._limits.most:
            self._add_slot()
            starting += 1

    def _add_slot(self) -> None:
        self._num_started += 1
        slot = Slot(self._start(), self._num_started, self._loop.time())
        self._slots.append(slot)
        self._spawn(self._bring_up(slot))

    async def _bring_up(self, slot: Slot[S]) -> None:
        try:
            await slot.scorer.ready()
        except ScorerLostError as error:
            self._lose(slot, str(error))
        except Exception as error:
            self._discard(slot)
            self._num_failed_starts += 1
            self._trouble = f"the last one failed to start: {error}"
            _log.warning(
                "session %r: scorer %d failed to start: %s",
                self._name,
                slot.number,
                error,
            )
            if not self.num_ready and self._num_failed_starts >= _MAX_STARTS:
                self._fail_all(
                    f"session {self._name!r} has no scorer: {self._num_failed_starts} "
                    f"failed to start, the last with: {error}"
                )
            self._retry_later()
        else:
            slot.is_ready, slot.last = True, self._loop.time()
            self._num_failed_starts = 0
            _log.info("session %r: scorer %d is ready", self._name, slot.number)
            self._spawn(self._mourn(slot))
            self._dispatch()

    async def _mourn(self, slot: Slot[S]) -> None:
        """Replaces a scorer that dies while nobody waits for it."""
        try:
            await slot.scorer.gone()
        except ScorerLostError as error:
            self._lose(slot, str(error))

    def _retry_later(self) -> None:
        if self._retry is None and not self._closed:
            failures = max(0, self._num_failed_starts - 1)
            delay = min(_FIRST_RETRY_SECONDS * 2**failures, _MAX_RETRY_SECONDS)
            self._retry = self._loop.call_later(delay, self._try_again)

    def _try_again(self) -> None:
        self._keep_least()
        self._dispatch()

    def _lose(self, slot: Slot[S], why: str) -> None:
        """Replaces a scorer that is gone, and passes its shards on."""
        if slot not in self._slots or self._closed:
            return
        self._trouble = f"the last one was lost: {why}"
        _log.warning("session %r: scorer %d: %s", self._name, slot.number, why)
        self._discard(slot)
        slot.scorer.kill()
        # Only the oldest was at work; the others waited in the scorer's line.
        at_work = next(iter(slot.shards), None)
        if at_work is not None and not at_work.result.done():
            at_work.counts.num_lost_scorers += 1
            at_work.num_deaths += 1
        elif slot.is_ready:  # nobody waits for it: the next request says so
            self._num_lost_unnoticed += 1
        for shard in reversed(slot.shards):
            shard.slots.discard(slot)
            if shard.result.done():
                continue
            if shard.num_deaths >= _MAX_DEATHS:
                msg = (
                    f"{shard.num_deaths} scorers of session {self._name!r} were lost "
                    f"while they scored {shard.name}, the last with: {why}"
                )
                shard.result.set_exception(ScoringError(msg))
            elif not shard.slots:
                shard.counts.num_retried_shards += 1
                self._queue.appendleft(shard)
        if slot.is_ready:
            self._keep_least()
        else:  # it died before it could work; its node may be going
            self._retry_later()
        self._dispatch()

    def _discard(self, slot: Slot[S]) -> None:
        if slot in self._slots:
            self._slots.remove(slot)

    async def _watch(self) -> None:
        """Replaces scorers that hang, ends idle ones, fails what nobody can serve."""
        limits = self._limits
        while True:
            await asyncio.sleep(min(1.0, limits.deadline / 10))
            now = self._loop.time()
            for slot in list(self._slots):
                if slot.shards and now - slot.last > limits.deadline:
                    self._lose(
                        slot,
                        f"it finished nothing in {limits.deadline:g} seconds "
                        "(ray.deadline_seconds)",
                    )
                elif (
                    slot.is_ready
                    and not slot.shards
                    and len(self._slots) > limits.least
                    and now - slot.last > limits.idle
                ):
                    self._discard(slot)
                    slot.scorer.kill()
            self._fail_unserved(now)

    def _fail_unserved(self, now: float) -> None:
        """Fails what has waited too long while there was no scorer at all."""
        if not self._queue or self.num_ready:
            self._unserved_since, self._has_warned = None, False
        elif self._unserved_since is None:
            self._unserved_since = now
        elif now - self._unserved_since > self._limits.start:
            self._unserved_since = None
            self._fail_all(
                f"session {self._name!r} has had no scorer for "
                f"{self._limits.start:g} seconds (ray.start_seconds): "
                f"{self._trouble}. See that nodes of the Ray cluster have what a "
                "scorer takes (ray.num_cpus, num_gpus, resources), and ask again"
            )
        elif not self._has_warned and now - self._unserved_since > _WARNS_AFTER_SECONDS:
            self._has_warned = True
            _log.warning(
                "session %r has no scorer yet: %s. What it takes (ray.num_cpus, "
                "num_gpus, resources) may be taken, also by idle scorers of other "
                "sessions; it waits %g seconds in all",
                self._name,
                self._trouble,
                self._limits.start,
            )

    def _fail_all(self, message: str) -> None:
        shards = [*self._queue, *(s for slot in self._slots for s in slot.shards)]
        self._queue.clear()
        for shard in shards:
            if not shard.result.done():
                shard.result.set_exception(ScoringError(message))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _as_ours(error: Exception) -> CuratorError:
    if isinstance(error, CuratorError):
        return error
    return ScoringError(f"a scorer raised {type(error).__name__}: {error}")
