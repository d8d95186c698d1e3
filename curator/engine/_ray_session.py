"""The scorers of one session on a Ray cluster."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from curator.engine._dispatcher import Dispatcher
from curator.engine._hosted_scorer import (
    MAX_HELD,
    Logits,
    ScoringPlan,
    Snapshot,
)
from curator.engine._packed import (
    PackedShard,
    Scored,
    pack_snapshot,
    unpack_shard,
)
from curator.engine._ray import RayScorer, share
from curator.engine._remote_scorer import ScorerLimits, ScorerLostError
from curator.errors import ScoringError
from curator.pools import Pool, open_pool

__all__ = ["RaySession"]

_log = logging.getLogger(__name__)

# Snapshots of a session in the object store: those that run-ahead still scores with.
_NUM_SNAPSHOTS = 4


class RaySession:
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
        self._snapshots: collections.OrderedDict[str, tuple[bytes, object]] = (
            collections.OrderedDict()
        )
        self._pool: Pool | None = None
        self._holders: dict[tuple[str, int], RayScorer] = {}

    def snapshot(self, path: str | None) -> tuple[bytes | None, object]:
        """Returns a snapshot, packed, and the object with its weights: one per node."""
        if path is None:
            return None, None
        with self._lock:
            if path not in self._snapshots:
                try:
                    data = np.asarray(np.memmap(path, np.uint8, "r"))
                    self._snapshots[path] = (
                        pack_snapshot(Snapshot.of(path)),
                        share(data),
                    )
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
        shard: PackedShard,
        snapshot: bytes | None,
        weights: object,
    ) -> bytes | Scored:
        """Scores a shard; returns what :meth:`HostedScorer.score` does, packed."""
        return await scorer.score(await self._ready(scorer, shard), snapshot, weights)

    async def hold(
        self,
        scorer: RayScorer,
        place: tuple[str, int],
        shard: PackedShard,
        snapshot: bytes | None,
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

    async def _ready(self, scorer: RayScorer, shard: PackedShard) -> PackedShard:
        """Returns a shard with its rows where the scorer cannot read them."""
        if shard.has_rows or scorer.reads_pool:
            return shard
        # A thread, because reading rows would keep all scorers waiting.
        return await asyncio.to_thread(self._with_rows, shard)

    def _with_rows(self, packed: PackedShard) -> PackedShard:
        shard = unpack_shard(packed.data)
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
        return PackedShard.of(dataclasses.replace(shard, rows=rows))

    def close(self) -> None:
        """Ends the scorers."""
        self.dispatcher.close()
        if self._pool is not None:
            self._pool.close()
