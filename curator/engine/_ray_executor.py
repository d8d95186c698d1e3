"""Scoring on a Ray cluster: requests to shards, and features back."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from curator.engine._dispatcher import MAX_IN_FLIGHT
from curator.engine._executor import ScoringRequest, ScoringResult
from curator.engine._hosted_scorer import Logits, ScoringPlan, Shard
from curator.engine._packed import PackedShard, unpack_scored
from curator.engine._ray_pairs import RayPairs
from curator.engine._ray_process import RayProcess
from curator.engine._reference_cache import Cached, ReferenceCache
from curator.engine._remote_scorer import Counts
from curator.engine._scoring_worker import outputs_of
from curator.errors import ScoringError, SnapshotError
from curator.models import Scorer, ScoreTable
from curator.pools import Pool
from curator.scores import shard_rows
from curator.store import FeatureStore
from curator.types import Feature, Features, PairEmbeddings

__all__ = ["RayExecutor"]

# Requests at once: those of steps ahead, and of batches that carry the reference's
# outputs. Their threads only wait.
_MAX_REQUESTS = 8


class RayExecutor:
    """Scores on the actors of a session.

    What the reference said before is looked up here, next to the state directory, and
    only the rest travels.
    """

    def __init__(
        self,
        process: RayProcess,
        plan: ScoringPlan,
        *,
        pool: Pool,
        learner: Scorer | None,
        reference: Scorer | ScoreTable | None,
        reference_cache: Mapping[str, FeatureStore],
    ) -> None:
        """Starts the scorers, and does not wait for them.

        Args:
            process: Ray's driver.
            plan: What scorers are.
            pool: The session's pool.
            learner: The model that snapshots have to fit.
            reference: The fixed model, or its table.
            reference_cache: Where outputs of the reference are kept, by their names.
        """
        self._process = process
        self._plan = plan
        self._pool = pool
        self._learner = learner
        self._table = reference if isinstance(reference, ScoreTable) else None
        self._cache = ReferenceCache(reference_cache)
        self._threads = concurrent.futures.ThreadPoolExecutor(
            _MAX_REQUESTS, thread_name_prefix="curator-ray"
        )
        # Not waited for: a session opens before its scorers are there.
        self._threads.submit(process.call, "open", plan)

    def submit(
        self, request: ScoringRequest
    ) -> concurrent.futures.Future[ScoringResult]:
        """Returns the future features of a request."""
        return self._threads.submit(self._run, request)

    def check_snapshot(self, path: Path) -> None:
        """Checks that weights fit the learner."""
        if self._learner is None:
            msg = "this session scores with no learner; there is nothing to publish to"
            raise SnapshotError(msg)
        self._learner.check(path)

    def close(self) -> None:
        """Ends the scorers of this session. What is being scored fails."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._process.is_used:
            with contextlib.suppress(ScoringError):  # without a driver, no scorers
                self._process.call("stop", self._plan.session)
        self._threads.shutdown(wait=True)

    def _run(self, request: ScoringRequest) -> ScoringResult:
        if request.in_place and self._plan.ray.joint_shards and self._table is None:
            return self._run_in_place(request)
        ids = request.ids
        wanted = outputs_of("reference", request.needs)
        features: dict[str, Feature] = {}
        if self._table is not None:
            found = self._table.look_up(ids, wanted)
            features |= {f"reference.{name}": value for name, value in found.items()}
            wanted = frozenset[str]()
        cached = self._cache.look_up(ids, wanted)
        rows, shards = self._shards(request, cached)
        account = _Account(self._process)
        answers = self._ask(request, shards, account) if shards else []
        for name in outputs_of("learner", request.needs):
            features[f"learner.{name}"] = _gathered(f"learner.{name}", rows, answers)
        lacking = {
            name: _gathered(f"reference.{name}", rows, answers)
            for name in cached.lacking
        }
        known = self._cache.complete(cached, ids, lacking)
        features |= {f"reference.{name}": value for name, value in known.items()}
        return account.result(features)

    def _run_in_place(self, request: ScoringRequest) -> ScoringResult:
        """Scores with embeddings that stay where they are made, one shard a scorer.

        What the reference said before is not looked up: it would have to travel.
        """
        ids, plan = request.ids, self._plan
        needs = frozenset(
            need
            for need in request.needs
            if need.startswith(("learner.", "reference."))
        )
        rows = shard_rows(ids, plan.ray.min_scorers)
        shards = [self._shard(ids[part], needs) for part in rows]
        snapshot = None if request.snapshot is None else str(request.snapshot)
        account = _Account(self._process)

        def hold(name: str) -> Logits:
            answers, counts = self._process.call("hold", plan, name, shards, snapshot)
            account.add(answers, counts)
            return answers[0][0]

        def ask(
            name: str, method: str, arguments: Sequence[Sequence[object]]
        ) -> list[Any] | None:
            return self._process.call("pair", plan, name, method, arguments)

        pairs = RayPairs(plan.session, rows, hold, ask)
        return dataclasses.replace(account.result({}), pairs=pairs)

    def _shards(
        self, request: ScoringRequest, cached: Cached
    ) -> tuple[list[Int64[np.ndarray, " _"]], list[PackedShard]]:
        """Returns near-equal shards, and which of the candidates each has.

        A candidate is in one shard, so that its row is read once.
        """
        of_learner = frozenset(n for n in request.needs if n.startswith("learner."))
        of_reference = frozenset(f"reference.{name}" for name in cached.lacking)
        known = np.delete(np.arange(len(request.ids)), cached.rows)
        size = self._plan.ray.shard_size or self._default_shard_size(len(request.ids))
        rows: list[Int64[np.ndarray, " _"]] = []
        shards: list[PackedShard] = []
        for group, needs in (
            (cached.rows, of_learner | of_reference),
            (known, of_learner),
        ):
            if not needs or not len(group):
                continue
            for part in np.array_split(group, -(-len(group) // size)):
                rows.append(part)
                shards.append(self._shard(request.ids[part], needs))
        return rows, shards

    def _default_shard_size(self, num_candidates: int) -> int:
        """Returns two shards for each scorer, in whole micro-batches."""
        micro = max(model.micro_batch_size for model, _ in self._plan.models.values())
        share = -(-num_candidates // (MAX_IN_FLIGHT * self._plan.ray.max_scorers))
        return -(-share // micro) * micro

    def _shard(
        self, ids: Int64[np.ndarray, " n"], needs: frozenset[str]
    ) -> PackedShard:
        name = f"{len(ids)} candidates from example {ids[0]} on"
        rows = None
        if self._plan.pool is None:
            rows = self._pool.take(ids, self._plan.columns)
        return PackedShard.of(Shard(name, ids, needs, rows))

    def _ask(
        self, request: ScoringRequest, shards: list[PackedShard], account: _Account
    ) -> list[Features]:
        """Returns the scorers' answers, and enters what they cost."""
        snapshot = None if request.snapshot is None else str(request.snapshot)
        packed, counts = self._process.call("score", self._plan, shards, snapshot)
        answers = [unpack_scored(answer) for answer in packed]
        account.add(answers, counts)
        return [answer for answer, _, _ in answers]


class _Account:
    """What a request has cost."""

    def __init__(self, process: RayProcess) -> None:
        self._process = process
        self._num_restarts = process.num_restarts
        self._seconds = 0.0
        self._num_scored = collections.Counter[str]()
        self._events = collections.Counter[str]()

    def add(
        self, answers: Sequence[tuple[object, float, dict[str, int]]], counts: Counts
    ) -> None:
        """Adds scorers' answers, and what happened on the way."""
        for _, seconds, num_scored in answers:
            self._seconds += seconds
            self._num_scored.update(num_scored)
        self._events.update(dataclasses.asdict(counts))

    def result(self, features: Features) -> ScoringResult:
        """Returns features with the account so far."""
        num_restarts = self._process.num_restarts - self._num_restarts
        return ScoringResult(
            features,
            self._seconds,
            dict(self._num_scored),
            {**self._events, "num_ray_restarts": num_restarts},
        )


def _gathered(
    name: str,
    rows: Sequence[Int64[np.ndarray, " _"]],
    answers: Sequence[Features],
) -> Feature:
    """Returns one feature of several shards, in the order of the candidates."""
    having = [i for i, answer in enumerate(answers) if name in answer]
    order = np.argsort(np.concatenate([rows[i] for i in having]))
    parts = [answers[i][name] for i in having]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if arrays:
        return np.concatenate(arrays)[order]
    pairs = [part for part in parts if isinstance(part, PairEmbeddings)]
    return PairEmbeddings(
        queries=np.concatenate([pair.queries for pair in pairs])[order],
        targets=np.concatenate([pair.targets for pair in pairs])[order],
        logit_scale=pairs[0].logit_scale,
        logit_bias=pairs[0].logit_bias,
    )
