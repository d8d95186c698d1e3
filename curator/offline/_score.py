"""Scoring a pool once: blocks of ids through an executor, shards to a folder."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import wait
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from curator.config import Config
from curator.engine import ScoringResult
from curator.files import claimed
from curator.models import model_identity
from curator.offline._examples import Examples
from curator.offline._job import Progress, ScoreEstimate, ScoreJob, ScoreReport
from curator.offline._manifest import Manifest, agree, code_versions
from curator.offline._shards import (
    Block,
    ShardWriter,
    not_finite_of,
    shard_path,
    to_rows,
)
from curator.offline._source import Source, open_source

__all__ = ["estimate", "score"]

# Blocks that an estimate is made from, at least.
_LEAST_TRIED = 2
# How long a signal goes unnoticed while the first block is waited for.
_ASK_SECONDS = 0.2


def score(
    config: Config,
    job: ScoreJob,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ScoreReport:
    """Scores what is not scored yet.

    A run that was interrupted in any way continues where it was, and the files are the
    same, byte for byte. Memory does not grow with the pool.

    Args:
        config: Has the pool and the model.
        job: What to score.
        on_progress: Called after every block of examples.
        should_stop: Asked after every shard whether to leave the rest for another run.

    Raises:
        ConfigError: The job does not fit the configuration, or the folder holds scores
            of something else.
        PoolError: The pool cannot be read.
        ScoringError: The model failed.
        SnapshotError: The weights do not fit the model.
        StorageError: The folder cannot be read or written, or another process writes
            to it.
        MissingDependencyError: Torch is not installed.
    """
    with open_source(config, job) as source:
        examples = Examples.of(source, job)
        manifest = Manifest(
            pool_fingerprint=source.pool.fingerprint,
            model_fingerprint=source.fingerprint,
            model=model_identity(source.model),
            outputs=source.outputs,
            columns=source.columns,
            where=None if source.where is None else source.where.text,
            pool_num_examples=source.pool.num_examples,
            num_examples=examples.num_examples,
            shard_size=job.shard_size,
            versions=code_versions(),
        )
        with claimed(job.out):
            agree(job.out, manifest)
            return _fill(
                source,
                job,
                examples,
                manifest,
                on_progress or (lambda _: None),
                should_stop or (lambda: False),
            )


def estimate(config: Config, job: ScoreJob) -> ScoreEstimate:
    """Returns what a whole run would cost; writes nothing.

    A few blocks are scored, after one that warms up.

    Raises:
        CuratorError: As for :func:`score`, but for the folder.
    """
    with open_source(config, job) as source:
        examples = Examples.of(source, job)
        num_examples = examples.num_examples
        size = min(source.block_size, job.shard_size, num_examples)
        ids = examples.at(np.arange(size))
        features = source.submit(ids).result().features
        rows, _ = to_rows(Block(ids, features, source.copied(ids)), source.outputs)
        started = time.perf_counter()
        futures = [
            # Other examples than before, as far as there are others.
            source.submit(examples.at((np.arange(size) + i * size) % num_examples))
            for i in range(1, max(_LEAST_TRIED, source.num_in_flight) + 1)
        ]
        results = [future.result() for future in futures]
        scale = num_examples / (size * len(results))
        return ScoreEstimate(
            num_examples=num_examples,
            num_shards=-(-num_examples // job.shard_size),
            num_bytes=round(rows.nbytes * num_examples / size),
            outputs=source.outputs,
            num_tried=min(num_examples, size * (1 + len(results))),
            seconds=(time.perf_counter() - started) * scale,
            device_seconds=sum(result.seconds for result in results) * scale,
        )


def _fill(
    source: Source,
    job: ScoreJob,
    examples: Examples,
    manifest: Manifest,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> ScoreReport:
    """Writes the shards that are missing."""
    missing, not_finite = _existing(job.out, manifest)
    num_ready = manifest.num_examples - sum(map(manifest.size, missing))
    num_scored = 0
    device_seconds = 0.0
    started = time.perf_counter()
    size = source.block_size
    every = (
        ids for shard in missing for ids in examples.blocks(*manifest.span(shard), size)
    )
    results = _scored(source, every, should_stop)
    with ShardWriter(job.out, manifest) as writer:
        for shard in missing:
            blocks: list[Block] = []
            blocks_of_ids = examples.blocks(*manifest.span(shard), size)
            for ids, result in zip(blocks_of_ids, results, strict=False):
                blocks.append(Block(ids, result.features, source.copied(ids)))
                num_scored += len(ids)
                device_seconds += result.seconds
                writer.check()
                on_progress(
                    Progress(
                        num_examples=manifest.num_examples,
                        num_ready=num_ready,
                        num_scored=num_scored,
                        seconds=time.perf_counter() - started,
                    )
                )
            if not blocks:
                break  # stopped before the first one
            writer.begin(shard, blocks)
            if should_stop():
                break
        writer.wait()
    not_finite.update(writer.not_finite)
    return ScoreReport(
        num_examples=manifest.num_examples,
        num_ready=num_ready,
        num_scored=num_scored,
        num_shards=manifest.num_shards,
        num_bytes=writer.num_bytes,
        outputs=manifest.outputs,
        not_finite={name: not_finite[name] for name in manifest.outputs},
        seconds=time.perf_counter() - started,
        device_seconds=device_seconds,
        is_finished=num_ready + num_scored == manifest.num_examples,
    )


def _existing(
    folder: Path, manifest: Manifest
) -> tuple[list[int], collections.Counter[str]]:
    """Returns the shards that are missing, and what the others have counted."""
    missing: list[int] = []
    not_finite = collections.Counter[str]()
    for shard in range(manifest.num_shards):
        counted = not_finite_of(shard_path(folder, shard))
        if counted is None:
            missing.append(shard)
        else:
            not_finite.update(counted)
    return missing, not_finite


def _scored(
    source: Source,
    blocks: Iterable[Int64[np.ndarray, " b"]],
    should_stop: Callable[[], bool],
) -> Iterator[ScoringResult]:
    """Yields what is computed of blocks, in order; a few are always under way.

    Ends early if it is to stop before there is anything: a cluster may never come.
    """
    left = iter(blocks)
    pending = collections.deque(
        map(source.submit, islice(left, source.num_in_flight + 1))
    )
    while pending and not wait([pending[0]], _ASK_SECONDS).done:
        if should_stop():
            return
    while pending:
        yield pending.popleft().result()
        pending.extend(map(source.submit, islice(left, 1)))
