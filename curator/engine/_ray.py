"""Scorers as Ray actors. The one file that imports Ray."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from curator.config import RaySpec
from curator.engine._dispatcher import MAX_IN_FLIGHT, Dispatcher
from curator.engine._hosted_scorer import (
    MAX_HELD,
    HostedScorer,
    Logits,
    ScoringPlan,
    Shard,
    Snapshot,
)
from curator.engine._remote_scorer import Counts, ScorerLimits, ScorerLostError
from curator.errors import CuratorError, MissingDependencyError, ScoringError
from curator.pools import Pool, open_pool
from curator.types import Features

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ModuleNotFoundError as error:
    if error.name != "ray":
        raise
    msg = (
        "server.executor = 'ray' needs Ray, which is not installed: "
        "pip install 'batch-curator[ray]'"
    )
    raise MissingDependencyError(msg) from error

__all__ = ["RayDriver", "RayScorer"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
Scored = tuple[Features, float, dict[str, int]]

# Snapshots of a session in the object store: those that run-ahead still scores with.
_NUM_SNAPSHOTS = 4
_PROBE_SECONDS = 1.0
_RETRY_SECONDS = 2.0

# Ray has hardly any types.
_ray = cast("Any", ray)
_Actor: Any = _ray.remote(HostedScorer)


class RayScorer:
    """A :class:`HostedScorer` on some node of the cluster."""

    def __init__(self, plan: ScoringPlan) -> None:
        """Asks for an actor, and for it to load the models; does not wait."""
        spec = plan.ray
        self._actor = _Actor.options(
            num_cpus=spec.num_cpus,
            num_gpus=spec.num_gpus,
            resources=spec.resources,
            # Ray records each call otherwise, at a tenth of what a call costs.
            enable_task_events=False,
            # One shard reads its rows while the other has the device.
            max_concurrency=MAX_IN_FLIGHT,
            # Whoever lost it decides what comes in its place.
            max_restarts=0,
            # So that the loss of a node costs as few of them as can be.
            scheduling_strategy="SPREAD",
        ).remote()
        self._loading = self._actor.load.remote(plan)
        self.reads_pool = False

    async def ready(self) -> None:
        """Waits until models are loaded."""
        self.reads_pool = await _answer(self._loading)

    async def score(
        self, shard: Shard, snapshot: Snapshot | None, weights: object
    ) -> Scored:
        """Returns the scores of a shard.

        Args:
            shard: What to score.
            snapshot: The learner's weights.
            weights: The object that holds them.
        """
        return await _answer(self._actor.score.remote(shard, snapshot, weights))

    async def hold(
        self,
        place: tuple[str, int],
        shard: Shard,
        snapshot: Snapshot | None,
        weights: object,
    ) -> tuple[Logits, float, dict[str, int]]:
        """Scores a shard, and keeps its embeddings."""
        return await _answer(self._actor.hold.remote(place, shard, snapshot, weights))

    async def pair(
        self, place: tuple[str, int], method: str, arguments: Sequence[object]
    ) -> Any:
        """Returns what a method of :class:`curator.scores.PairShard` returns there."""
        return await _answer(self._actor.pair.remote(place, method, *arguments))

    def kill(self) -> None:
        """Ends the actor."""
        # A thread: for an actor that no node has room for, Ray waits and waits.
        threading.Thread(target=self._kill, daemon=True).start()

    def _kill(self) -> None:
        with contextlib.suppress(RayError):
            _ray.kill(self._actor, no_restart=True)


async def _answer(reference: Awaitable[T]) -> T:
    """Waits for a call of an actor.

    Raises:
        CuratorError: The call raised it.
        ScorerLostError: The actor, its node or an object is gone.
    """
    try:
        return await reference
    except RayTaskError as error:
        cause = cast("Exception | None", getattr(error, "cause", None))
        raise cause or error from None
    except RayError as error:
        text = " ".join(str(error).split())
        why = f"{type(error).__name__}: {text[:300]}"
        raise ScorerLostError(why) from None


class _Session:
    """The scorers of one session, and what they are handed."""

    def __init__(self, plan: ScoringPlan) -> None:
        spec = plan.ray
        self.plan = plan
        self.dispatcher = Dispatcher(
            plan.session,
            functools.partial(RayScorer, plan),
            ScorerLimits(
                spec.min_scorers,
                spec.max_scorers,
                spec.deadline_seconds,
                spec.start_seconds,
                spec.idle_seconds,
            ),
        )
        self._lock = threading.Lock()
        self._snapshots: collections.OrderedDict[str, tuple[Snapshot, object]] = (
            collections.OrderedDict()
        )
        self._pool: Pool | None = None
        self._holders: dict[tuple[str, int], RayScorer] = {}

    def snapshot(self, path: str | None) -> tuple[Snapshot | None, object]:
        """Returns a snapshot, and the object with its bytes: one copy per node."""
        if path is None:
            return None, None
        with self._lock:
            if path not in self._snapshots:
                try:
                    data = np.asarray(np.memmap(path, np.uint8, "r"))
                    self._snapshots[path] = Snapshot.of(path), _ray.put(data)
                except (OSError, ValueError) as error:
                    msg = f"cannot read snapshot {path!r}: {error}"
                    raise ScoringError(msg) from error
            self._snapshots.move_to_end(path)
            while len(self._snapshots) > _NUM_SNAPSHOTS:
                self._snapshots.popitem(last=False)
            return self._snapshots[path]

    async def score(
        self,
        scorer: RayScorer,
        shard: Shard,
        snapshot: Snapshot | None,
        weights: object,
    ) -> Scored:
        """Scores a shard."""
        return await scorer.score(await self._ready(scorer, shard), snapshot, weights)

    async def hold(
        self,
        scorer: RayScorer,
        place: tuple[str, int],
        shard: Shard,
        snapshot: Snapshot | None,
        weights: object,
    ) -> tuple[Logits, float, dict[str, int]]:
        """Scores a shard, and remembers who keeps its embeddings."""
        shard = await self._ready(scorer, shard)
        answer = await scorer.hold(place, shard, snapshot, weights)
        # Of two that did it, a straggler and who overtook it, the first is asked on.
        self._holders.setdefault(place, scorer)
        while len(dict.fromkeys(batch for batch, _ in self._holders)) > MAX_HELD:
            del self._holders[next(iter(self._holders))]
        return answer

    async def pair(
        self, batch: str, method: str, arguments: Sequence[Sequence[object]]
    ) -> list[Any] | None:
        """Returns the answers of all shards of a super-batch; None if one is lost."""
        places = [(batch, number) for number in range(len(arguments))]
        if any(place not in self._holders for place in places):
            return None
        calls = [
            self._holders[place].pair(place, method, these)
            for place, these in zip(places, arguments, strict=True)
        ]
        try:
            async with asyncio.timeout(self.plan.ray.deadline_seconds):
                return await asyncio.gather(*calls)
        except (ScorerLostError, LookupError, TimeoutError) as error:
            _log.warning(
                "session %r: embeddings of a super-batch are lost (%s: %s); they are "
                "computed again",
                self.plan.session,
                type(error).__name__,
                error,
            )
            for place in places:
                self._holders.pop(place, None)
            return None

    async def _ready(self, scorer: RayScorer, shard: Shard) -> Shard:
        """Returns a shard with its rows where the scorer cannot read them."""
        if shard.rows is not None or scorer.reads_pool:
            return shard
        # A thread, because reading rows would keep all scorers waiting.
        return await asyncio.to_thread(self._with_rows, shard)

    def _with_rows(self, shard: Shard) -> Shard:
        with self._lock:
            if self._pool is None:
                spec = self.plan.pool
                if spec is None:
                    msg = f"{shard.name} came without rows, and the pool is in memory"
                    raise ScoringError(msg)
                self._pool = open_pool(
                    spec.format,
                    path=spec.path,
                    num_examples=spec.num_examples,
                    cache_bytes=spec.cache_bytes,
                )
        rows = self._pool.take(shard.ids, self.plan.columns)
        return Shard(shard.name, shard.ids, shard.needs, rows)

    def close(self) -> None:
        """Ends the scorers."""
        self.dispatcher.close()
        if self._pool is not None:
            self._pool.close()


class RayDriver:
    """Ray's driver: connects to the cluster, and keeps the scorers of all sessions.

    Lives in a process of its own (:mod:`curator.engine._ray_process`), because Ray ends
    a driver whose cluster was started anew. Methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._is_connected = False
        self._sessions: dict[str, _Session] = {}
        self._stopped: set[str] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(
            target=self._loop.run_forever, name="curator-ray-loop", daemon=True
        ).start()

    def score(
        self, plan: ScoringPlan, shards: Sequence[Shard], snapshot: str | None
    ) -> tuple[list[Scored], Counts]:
        """Returns the scores of shards, in order, and what happened on the way.

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
        shards: Sequence[Shard],
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
        if found is not None:
            self._loop.call_soon_threadsafe(found.close)

    def _session(self, plan: ScoringPlan) -> _Session:
        with self._connecting:
            if not self._is_connected:
                _connect(plan.ray)
                self._is_connected = True
                threading.Thread(target=_watch_node, daemon=True).start()
        with self._lock:
            if plan.session in self._stopped:
                msg = f"the scorers of session {plan.session!r} are stopped"
                raise ScoringError(msg)
            if plan.session not in self._sessions:
                self._sessions[plan.session] = self._wait(_started(plan))
            return self._sessions[plan.session]

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _connect(spec: RaySpec) -> None:
    """Connects to the cluster, which may start after the service.

    Raises:
        ScoringError: There is none, for ``spec.start_seconds``.
    """
    deadline = time.monotonic() + spec.start_seconds
    while True:
        try:
            _try_to_connect(spec)
        except Exception as error:
            _ray.shutdown()
            msg = (
                f"no Ray cluster at ray.address = {spec.address!r}: "
                f"{' '.join(str(error).split())[:300]}. Start one on this machine with "
                "`ray start --head`, or join this machine to one with "
                "`ray start --address=HOST:PORT`"
            )
            if time.monotonic() >= deadline:
                raise ScoringError(msg) from error
            _log.warning("%s", msg)
            time.sleep(_RETRY_SECONDS)
        else:
            return


def _try_to_connect(spec: RaySpec) -> None:
    if spec.address == "local":
        own: dict[str, object] = {"include_dashboard": False}
    else:
        own = {}
        host, _, port = spec.address.rpartition(":")
        if host and port.isdigit():
            # Ray itself takes minutes to say that nobody is there.
            socket.create_connection((host, int(port)), _RETRY_SECONDS).close()
    _ray.init(address=spec.address, namespace="curator", configure_logging=False, **own)


async def _started(plan: ScoringPlan) -> _Session:
    return _Session(plan)


def _calling(
    method: Callable[..., Awaitable[T]], *arguments: object
) -> Callable[[RayScorer], Awaitable[T]]:
    """Returns a call of a method whose first argument is the scorer."""
    return lambda scorer: method(scorer, *arguments)


def _watch_node() -> None:
    """Ends this process when its own node is gone: it can do nothing any more.

    When the whole cluster is started anew under the same address, Ray itself ends the
    process at the next question; that is asked here too.
    """
    own = _ray.get_runtime_context().get_node_id()
    wait = threading.Event()
    while not wait.wait(_PROBE_SECONDS):
        try:
            nodes = cast("list[dict[str, Any]]", _ray.nodes())
            is_alive = any(node["NodeID"] == own and node["Alive"] for node in nodes)
        except (RayError, CuratorError, RuntimeError, ConnectionError, OSError):
            is_alive = False
        if not is_alive:
            _log.warning("the Ray node of this machine is gone")
            os._exit(3)
