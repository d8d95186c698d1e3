"""Ray: actors that score, and the cluster that has them. The one file to import it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from jaxtyping import UInt8

from curator.engine._dispatcher import MAX_IN_FLIGHT
from curator.engine._hosted_scorer import (
    HostedScorer,
    Logits,
    ScoringPlan,
)
from curator.engine._packed import (
    PackedShard,
    Scored,
    pack_scored,
    unpack_shard,
    unpack_snapshot,
)
from curator.engine._remote_scorer import ScorerLostError
from curator.errors import CuratorError, MissingDependencyError

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

__all__ = ["RayScorer", "share", "watch_node"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
Weights: TypeAlias = UInt8[np.ndarray, " size"] | None

_PROBE_SECONDS = 1.0

# Ray has hardly any types.
_ray = cast("Any", ray)


class ScoringActor(HostedScorer):
    """A scorer whose shards and scores travel packed."""

    def stay(self) -> None:
        """Never returns: who waits for it learns of the end of this process."""
        threading.Event().wait()

    def score_packed(
        self, shard: bytes, snapshot: bytes | None = None, weights: Weights = None
    ) -> bytes | Scored:
        """Returns what :meth:`score` does, packed."""
        scored = self.score(unpack_shard(shard), unpack_snapshot(snapshot), weights)
        return pack_scored(scored)

    def hold_packed(
        self,
        place: tuple[str, int],
        shard: bytes,
        snapshot: bytes | None,
        weights: Weights,
    ) -> tuple[Logits, float, dict[str, int]]:
        """Returns what :meth:`hold` does."""
        return self.hold(place, unpack_shard(shard), unpack_snapshot(snapshot), weights)


_Actor: Any = _ray.remote(ScoringActor)


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
            # One shard reads its rows while the other has the device; and a thread
            # stays.
            max_concurrency=MAX_IN_FLIGHT + 1,
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

    async def gone(self) -> None:
        """Waits until the actor has died."""
        await _answer(self._actor.stay.remote())

    async def score(
        self, shard: PackedShard, snapshot: bytes | None, weights: object
    ) -> bytes | Scored:
        """Returns the scores of a shard, packed.

        Args:
            shard: What to score.
            snapshot: The learner's weights, packed.
            weights: The object that holds them.
        """
        # Not even None is passed on as fast as nothing.
        named = () if snapshot is None else (snapshot, weights)
        return await _answer(self._actor.score_packed.remote(shard.data, *named))

    async def hold(
        self,
        place: tuple[str, int],
        shard: PackedShard,
        snapshot: bytes | None,
        weights: object,
    ) -> tuple[Logits, float, dict[str, int]]:
        """Scores a shard, and keeps its embeddings."""
        call = self._actor.hold_packed.remote(place, shard.data, snapshot, weights)
        return await _answer(call)

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


def share(data: UInt8[np.ndarray, " size"]) -> object:
    """Returns an object that all scorers can read: one copy per node."""
    return _ray.put(data)


def watch_node() -> None:
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
