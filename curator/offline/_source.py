"""The pool and the model of a job, and the executor that brings them together."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int64

from curator.config import Config, ModelSpec, did_you_mean
from curator.engine import Executor, Executors, ScoringRequest, ScoringResult
from curator.errors import ConfigError
from curator.offline._job import ScoreJob
from curator.pools import Pool, open_pool

__all__ = ["Source", "open_source"]

T = TypeVar("T")
# A model gets a pipeline of requests; more of them would only take memory.
_LOCAL_IN_FLIGHT = 2
# Fewer requests than micro-batches, and still few rows of the pool in memory at once.
_MICRO_BATCHES_PER_BLOCK = 4


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where the scores of a job come from.

    Attributes:
        pool: What is scored.
        model: The specification of what scores.
        outputs: What is computed, sorted.
        fingerprint: Of the model.
        num_in_flight: How many requests keep all of it busy.
    """

    pool: Pool
    model: ModelSpec
    outputs: list[str]
    fingerprint: str
    num_in_flight: int
    _executor: Executor

    @property
    def block_size(self) -> int:
        """How many examples a request has."""
        return _MICRO_BATCHES_PER_BLOCK * self.model.micro_batch_size

    def submit(self, ids: Int64[np.ndarray, " n"]) -> Future[ScoringResult]:
        """Returns the future outputs, under ``reference.OUTPUT``."""
        needs = frozenset(f"reference.{name}" for name in self.outputs)
        return self._executor.submit(ScoringRequest(ids, needs, None))


@contextlib.contextmanager
def open_source(config: Config, job: ScoreJob) -> Generator[Source]:
    """Opens the pool of a job and builds its model.

    Raises:
        ConfigError: There is no such pool or model, the model is a table, does not give
            an output, or reads a column that the pool has not.
        PoolError: The pool cannot be read.
        SnapshotError: The weights do not fit the model.
        StorageError: The weights cannot be read.
        MissingDependencyError: Torch is not installed.
    """
    pool_spec = _named("pool", job.pool, config.pools)
    model = _named("model", job.model, config.models)
    if model.kind == "table":
        msg = (
            f"model: {job.model!r} is a table, which holds scores already; name one of "
            "another kind"
        )
        raise ConfigError(msg)
    outputs = job.outputs_of(model)
    pool = open_pool(
        pool_spec.format,
        path=pool_spec.path,
        num_examples=pool_spec.num_examples,
        cache_bytes=pool_spec.cache_bytes,
        fingerprint_cache=Path(config.server.state_dir) / "fingerprints.sqlite",
    )
    with contextlib.closing(pool):
        _check_columns(job, model, pool)
        for folder in reversed(config.server.python_path):
            if folder not in sys.path:
                sys.path.insert(0, folder)
        with contextlib.closing(Executors(config)) as executors:
            scorer = executors.build(model)
            executor = executors.make(
                f"score-{job.model}", job.pool, pool, reference=(model, scorer)
            )
            num_in_flight = _LOCAL_IN_FLIGHT
            if config.server.executor == "ray":
                num_in_flight = max(num_in_flight, config.ray.max_scorers)
            with contextlib.closing(executor):
                yield Source(
                    pool, model, outputs, scorer.fingerprint, num_in_flight, executor
                )


def _check_columns(job: ScoreJob, model: ModelSpec, pool: Pool) -> None:
    """Checks that the pool has what the model reads."""
    for key, names in model.reads.items():
        for name in names:
            if name not in pool.schema.names:
                hint = did_you_mean(name, pool.schema.names)
                msg = (
                    f"models.{job.model}.{key}: pool {job.pool!r} has no {name!r}{hint}"
                )
                raise ConfigError(msg)


def _named(kind: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        msg = f"no {kind} {name!r}{did_you_mean(name, known)}"
        raise ConfigError(msg)
    return known[name]
