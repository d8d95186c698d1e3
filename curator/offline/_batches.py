"""Whole batches planned ahead, from what a teacher says of the examples.

Shapes: ``N`` examples that have scores, ``n`` of them that are planned, ``D`` the width
of an embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped

import curator
from curator.config import Config, batches_to_table
from curator.errors import ConfigError
from curator.offline._negatives import Negatives, negatives_of
from curator.offline._plan_file import check_new, write_plan
from curator.offline._select_inputs import Inputs, open_inputs
from curator.offline._subset import read_subset
from curator.rng import generator
from curator.samplers import BatchPlan, BatchPlanner
from curator.types import Feature, PairEmbeddings

__all__ = ["BatchPlanJob", "BatchPlanReport", "plan_batches"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlanJob:
    """Batches to plan of scored examples.

    Attributes:
        batches: How.
        scores: What a teacher says of the examples: a folder of ``curator score``, or
            Parquet with ``example_id``.
        batch_size: How many examples a batch has.
        epoch: Which epoch, from 0; None for all of the run.
        num_epochs: Length of the run; its epochs have the same clusters.
        subset: What ``curator select`` wrote: only examples in it, with its weights.
        pool: Name of the configuration's pool that was scored. Needed for columns of it
            that were not copied beside the scores.
        seed: Of everything random.
        out: File of the plan; there is none yet. None for a summary alone.
    """

    batches: BatchPlanner
    scores: Path
    batch_size: int
    epoch: int | None = None
    num_epochs: int | None = None
    subset: Path | None = None
    pool: str | None = None
    seed: int = 0
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.epoch is None and self.num_epochs is None:
            msg = "epoch: which one, from 0; or num_epochs, for all of a run"
            raise ConfigError(msg)
        for name, least in (("batch_size", 1), ("epoch", 0), ("num_epochs", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                msg = f"{name}: at least {least}; got {value}"
                raise ConfigError(msg)
        epoch, length = self.epoch, self.num_epochs
        if epoch is not None and length is not None and epoch >= length:
            msg = f"epoch: below num_epochs = {self.num_epochs}; got {self.epoch}"
            raise ConfigError(msg)
        if not -(2**63) <= self.seed < 2**63:
            msg = f"seed: a 64-bit integer; got {self.seed}"
            raise ConfigError(msg)
        check_new(self.out)

    @property
    def epochs(self) -> range:
        """The epochs that are planned."""
        if self.epoch is None:
            return range(self.num_epochs or 0)
        return range(self.epoch, self.epoch + 1)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlanReport:
    """What was planned.

    Attributes:
        batches: Name and fields of what planned it, with nothing left open.
        batch_size: How many examples a batch has.
        first_epoch: The first epoch of the plan.
        num_epochs: How many it has.
        first_step: The step of its first batch.
        num_batches: How many batches an epoch has.
        num_examples: How many could be planned: that have scores, or are in the subset.
        num_quarantined: How many of them have an embedding that is not finite, or of
            length 0; they are in no batch.
        num_left_out: How many others are in no batch of an epoch; in each they are
            others, but for those of the one cluster that is not full.
        stats: Of the clusters, see :func:`curator.samplers.b3_plan` and
            :func:`curator.samplers.cluster_plan`.
        negatives: Of the batches of the first epoch; None where there are none.
        random_negatives: Of random batches of the same examples.
        num_bytes: Of the file.
    """

    batches: Mapping[str, object]
    batch_size: int
    first_epoch: int
    num_epochs: int
    first_step: int
    num_batches: int
    num_examples: int
    num_quarantined: int
    num_left_out: int
    stats: Mapping[str, float]
    negatives: Negatives | None
    random_negatives: Negatives | None
    num_bytes: int | None


def plan_batches(job: BatchPlanJob, config: Config | None = None) -> BatchPlanReport:
    """Plans the batches of one epoch or of a run, and writes them as a plan.

    The same scores, job, version of batch-curator and partitioner give the same bytes.

    Args:
        job: What to plan.
        config: Has the pool, where one is named.

    Raises:
        ConfigError: The job does not fit the scores, or there are too few examples.
        FeatureError: The column of labels is neither numbers nor strings.
        PoolError: The pool cannot be read.
        StorageError: Scores cannot be read, or the plan cannot be written.
    """
    try:
        job = dataclasses.replace(job, batches=job.batches.settled(job.batch_size))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    with open_inputs({"scores": job.scores}, config, job.pool) as inputs:
        examples = _Examples.of(job, inputs)
        model = inputs.scores["scores"].model_fingerprint
        pool = inputs.scores["scores"].pool_fingerprint
    made = _plan(job, examples)
    first_step = job.epochs.start * len(made.batches)
    metadata = {
        "format": 1,
        "batches": batches_to_table(job.batches),
        "batch_size": job.batch_size,
        "num_batches": len(made.batches),
        "first_epoch": job.epochs.start,
        "num_epochs": len(job.epochs),
        "first_step": first_step,
        "num_examples": examples.num_examples,
        "seed": job.seed,
        "pool_fingerprint": pool,
        "model_fingerprint": model,
        "versions": {"batch-curator": curator.__version__},
    }
    num_bytes = None
    if job.out is not None:
        num_bytes = write_plan(
            job.out,
            metadata,
            _blocks(job, made, examples),
            batch_size=job.batch_size,
            first_step=first_step,
        )
    random = generator(job.seed, "random_batches").permutation(made.batches.ravel())
    sides = (examples.queries, examples.targets, examples.labels)
    return BatchPlanReport(
        batches=batches_to_table(job.batches),
        batch_size=job.batch_size,
        first_epoch=job.epochs.start,
        num_epochs=len(job.epochs),
        first_step=first_step,
        num_batches=len(made.batches),
        num_examples=examples.num_examples,
        num_quarantined=examples.num_examples - len(examples.ids),
        num_left_out=len(made.leftover),
        stats=dict(made.stats),
        negatives=negatives_of(made.batches, *sides),
        random_negatives=negatives_of(random.reshape(made.batches.shape), *sides),
        num_bytes=num_bytes,
    )


def _plan(job: BatchPlanJob, examples: _Examples) -> BatchPlan:
    """Plans the first epoch."""
    if job.batch_size > len(examples.ids):
        aside = examples.num_examples - len(examples.ids)
        why = f", {aside:,} of them without a finite embedding" if aside else ""
        msg = (
            f"batch_size: at most the number of examples, {examples.num_examples:,}"
            f"{why}; got {job.batch_size:,}"
        )
        raise ConfigError(msg)
    return job.batches.plan(
        examples.queries,
        examples.targets,
        batch_size=job.batch_size,
        labels=examples.labels,
        seed=job.seed,
        epoch=job.epochs.start,
    )


def _blocks(
    job: BatchPlanJob, made: BatchPlan, examples: _Examples
) -> Iterator[tuple[Int64[np.ndarray, " _"], Float32[np.ndarray, " _"]]]:
    """Yields ids and weights, epoch after epoch."""
    for epoch in job.epochs:
        places = made.for_epoch(epoch).batches.ravel()
        yield examples.ids[places], examples.weights[places]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Examples:
    """The examples that can be in a batch.

    Attributes:
        ids: Ascending.
        weights: Of the subset; 1 without one.
        queries: Their embeddings.
        targets: Of the right answers; ``queries`` itself where there is one embedding.
        labels: The same number for the same label.
        num_examples: How many there are with those that cannot.
    """

    ids: Int64[np.ndarray, " n"]
    weights: Float32[np.ndarray, " n"]
    queries: Float32[np.ndarray, "n D"]
    targets: Float32[np.ndarray, "n D"]
    labels: Int64[np.ndarray, " n"] | None
    num_examples: int

    @classmethod
    def of(cls, job: BatchPlanJob, inputs: Inputs) -> _Examples:
        name, label = job.batches.embeddings, job.batches.label
        column = None if label is None else f"pool.{label}"
        needs = frozenset({name} if column is None else {name, column})
        inputs.check(needs, f"batches {job.batches!r}")
        places, weights = _chosen(job.subset, inputs)
        queries, targets = _sides(name, inputs.feature(name))
        usable = _has_length(queries)
        if targets is not queries:
            usable &= _has_length(targets)
        kept = np.flatnonzero(usable[places])
        if len(kept) < len(usable):
            rows = places[kept]
            is_single = targets is queries
            queries = queries[rows]
            targets = queries if is_single else targets[rows]
        labels = None if column is None else _numbered(inputs.values(column)[places])
        return cls(
            ids=inputs.ids[places[kept]],
            weights=weights[kept],
            queries=queries,
            targets=targets,
            labels=None if labels is None else labels[kept],
            num_examples=len(places),
        )


def _chosen(
    subset: Path | None, inputs: Inputs
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Returns where the examples of a subset are, or of all, and their weights."""
    if subset is None:
        size = len(inputs.ids)
        return np.arange(size), np.ones(size, np.float32)
    found = read_subset(subset)
    scores = inputs.scores["scores"]
    pools = (found.metadata["pool_fingerprint"], scores.pool_fingerprint)
    if None not in pools and pools[0] != pools[1]:
        msg = (
            f"subset {str(subset)!r} is of another pool than the scores "
            f"{str(scores.path)!r}: the fingerprints are {pools[0]} and {pools[1]}"
        )
        raise ConfigError(msg)
    places = np.searchsorted(inputs.ids, found.ids)
    known = inputs.ids[np.minimum(places, len(inputs.ids) - 1)] == found.ids
    if not known.all():
        msg = (
            f"subset {str(subset)!r} has example {found.ids[~known][0]}, of which the "
            f"scores {str(scores.path)!r} say nothing: score it too"
        )
        raise ConfigError(msg)
    return places, found.weights


def _sides(
    name: str, feature: Feature
) -> tuple[Float32[np.ndarray, "N D"], Float32[np.ndarray, "N D"]]:
    if isinstance(feature, PairEmbeddings):
        return feature.queries, feature.targets
    if feature.ndim != 2 or not np.issubdtype(feature.dtype, np.number):
        msg = (
            f"embeddings: {name!r} is not a row of numbers per example, or pairs of "
            "rows; name an output or a column that is (-o embeddings=pool.COLUMN)"
        )
        raise ConfigError(msg)
    rows: Any = feature.astype(np.float32, copy=False)
    return rows, rows


def _has_length(rows: Float32[np.ndarray, "N D"]) -> np.ndarray:
    squared = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return np.isfinite(squared) & (squared > 0)


def _numbered(values: Shaped[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Returns the same number for the same value; a null is like no other."""
    numbers = np.arange(len(values)) + len(values)
    known = np.ones(len(values), bool)
    if values.dtype == object:
        known = np.array([value is not None for value in values.tolist()], bool)
    numbers[known] = np.unique(values[known], return_inverse=True)[1]
    return numbers
