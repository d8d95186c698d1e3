"""The pool and the model of a job, and the executor that brings them together."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curator.config import Config, ModelSpec, did_you_mean, load_extensions
from curator.engine import (
    Executor,
    Executors,
    ScoringRequest,
    ScoringResult,
    ScoringWorker,
)
from curator.errors import ConfigError
from curator.offline._job import ScoreJob
from curator.offline._pools import open_configured_pool
from curator.offline._where import Where
from curator.pools import Pool

__all__ = ["Source", "open_source"]

# Names of columns of a table beside those of its outputs.
_RESERVED = frozenset({"example_id", "queries", "targets", "logit_scale", "logit_bias"})
# A cluster gets a pipeline of requests; more of them would only take memory.
_LEAST_IN_FLIGHT = 2
# Fewer requests than micro-batches, and still few rows of the pool in memory at once.
_MICRO_BATCHES_PER_BLOCK = 4


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where the scores of a job come from.

    Attributes:
        pool: What is scored.
        model: The specification of what scores.
        outputs: What is computed, sorted.
        columns: What is copied from the pool, sorted.
        where: Which examples are meant; None for all.
        fingerprint: Of the model.
        num_in_flight: How many requests, beside the one that is waited for, keep all of
            it busy.
    """

    pool: Pool
    model: ModelSpec
    outputs: list[str]
    columns: list[str]
    where: Where | None
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

    def copied(self, ids: Int64[np.ndarray, " n"]) -> pa.RecordBatch | None:
        """Returns what is copied from the pool; None where nothing is.

        Raises:
            PoolError: It cannot be read.
        """
        return self.pool.take(ids, self.columns) if self.columns else None


@contextlib.contextmanager
def open_source(config: Config, job: ScoreJob) -> Generator[Source]:
    """Opens the pool of a job and builds its model.

    Raises:
        ConfigError: There is no such pool or model, the model is a table, does not give
            an output, or a column is not in the pool or would be there twice.
        PoolError: The pool cannot be read.
        SnapshotError: The weights do not fit the model.
        StorageError: The weights cannot be read.
        MissingDependencyError: Torch is not installed.
    """
    if job.model not in config.models:
        msg = f"no model {job.model!r}{did_you_mean(job.model, config.models)}"
        raise ConfigError(msg)
    model = config.models[job.model]
    if model.kind == "table":
        msg = (
            f"model: {job.model!r} is a table, which holds scores already; name one of "
            "another kind"
        )
        raise ConfigError(msg)
    outputs = job.outputs_of(model)
    where = None if job.where is None else Where(job.where)
    with open_configured_pool(config, job.pool) as pool:
        _check_columns(job, model, pool, outputs)
        if where is not None:
            where.check_columns(job.pool, pool)
        load_extensions(config.server)
        with contextlib.closing(Executors(config)) as executors:
            scorer = executors.build(model)
            if config.server.executor == "ray":
                executor = executors.make(
                    f"score-{job.model}", job.pool, pool, reference=(model, scorer)
                )
                num_in_flight = max(_LEAST_IN_FLIGHT, config.ray.max_scorers)
            else:
                executor = _ThisThread(ScoringWorker(pool, reference=scorer))
                num_in_flight = 0
            with contextlib.closing(executor):
                yield Source(
                    pool=pool,
                    model=model,
                    outputs=outputs,
                    columns=sorted(set(job.columns)),
                    where=where,
                    fingerprint=scorer.fingerprint,
                    num_in_flight=num_in_flight,
                    _executor=executor,
                )


class _ThisThread:
    """Scores in the thread that asks, at once; it is the one that built the model.

    OpenMP keeps a team for every thread that has ever computed. With a second one it
    takes the processors for oversubscribed, and no longer spins between two operations
    of a model: each waits to be woken, and a small model feels that.
    """

    def __init__(self, worker: ScoringWorker) -> None:
        self._worker = worker

    def submit(self, request: ScoringRequest) -> Future[ScoringResult]:
        """Returns the features of a request, or what went wrong, in the future."""
        future = Future[ScoringResult]()
        try:
            scored = self._worker.score(request.ids, request.needs, request.snapshot)
            future.set_result(ScoringResult(*scored))
        except Exception as error:
            future.set_exception(error)
        return future

    def check_snapshot(self, path: Path) -> None:
        """Checks that weights fit the learner, of which there is none."""
        self._worker.check_snapshot(path)

    def close(self) -> None:
        """Has nothing to stop."""


def _check_columns(
    job: ScoreJob, model: ModelSpec, pool: Pool, outputs: Sequence[str]
) -> None:
    """Checks that the pool has what the model reads, and what is copied."""
    for key, names in model.reads.items():
        for name in names:
            if name not in pool.schema.names:
                hint = did_you_mean(name, pool.schema.names)
                msg = (
                    f"models.{job.model}.{key}: pool {job.pool!r} has no {name!r}{hint}"
                )
                raise ConfigError(msg)
    for name in job.columns:
        if name not in pool.schema.names:
            hint = did_you_mean(name, pool.schema.names)
            msg = f"columns: pool {job.pool!r} has no {name!r}{hint}"
            raise ConfigError(msg)
        if name in _RESERVED or name in outputs:
            msg = (
                f"columns: the scores have a column {name!r} of their own, so the "
                "pool's cannot stand beside it: leave it out"
            )
            raise ConfigError(msg)
