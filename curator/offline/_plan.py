"""What a sampler would do in an epoch: the same examples that a session offers.

Shapes: ``n`` examples of a block, ``N`` the pool.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

import curator
from curator.config import Weighting, sampler_to_table
from curator.errors import ConfigError
from curator.offline._losses import Losses, Step
from curator.offline._plan_file import check_new, write_plan
from curator.samplers import EpochPlan, EpochPlanner, Run, Sampler

__all__ = ["PlanJob", "PlanReport", "plan"]

_BLOCK = 1 << 18
_MAX_WEIGHTS = 16
# Bytes that are spent to say which examples of the pool are in an epoch.
_MAX_MARKED = 1 << 31


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlanJob:
    """An epoch to plan.

    Attributes:
        sampler: What plans it.
        run: The run that it plans for.
        epoch: Which one, from 0.
        losses: What is known of losses; a sampler that reads none ignores them.
        max_ahead: As in a session: an epoch is planned as of the report of the step
            that far before its first.
        weighting: As in a session.
        pool_fingerprint: Of the pool, where there is one.
        out: File of the plan; there is none yet. None for a summary alone.
    """

    sampler: Sampler
    run: Run
    epoch: int
    losses: Losses | None = None
    max_ahead: int = 0
    weighting: Weighting = "sum"
    pool_fingerprint: str | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        for name in ("epoch", "max_ahead"):
            if getattr(self, name) < 0:
                msg = f"{name}: at least 0; got {getattr(self, name)}"
                raise ConfigError(msg)
        num_epochs = self.run.num_epochs
        if num_epochs is not None and self.epoch >= num_epochs:
            msg = f"epoch: below num_epochs = {num_epochs}; got {self.epoch}"
            raise ConfigError(msg)
        check_new(self.out)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlanReport:
    """What a sampler would do in an epoch.

    Attributes:
        sampler: Its name and fields.
        epoch: The epoch.
        num_examples: Size of the pool.
        super_batch_size: Of each step.
        num_planned: How many examples the plan has.
        num_left_out: How many of the pool it has not.
        first_step: The epoch's first step.
        num_steps: How many steps it has.
        num_not_offered: Planned examples at the end, which make no super-batch.
        num_losses: How many examples had a loss by then; None where none are read.
        mean_loss: Mean of the last losses of what is offered.
        mean_loss_left_out: Likewise of what is not planned.
        num_new: Offered here and not in the epoch before; None for epoch 0.
        num_gone: The reverse.
        min_weight: The lowest weight.
        mean_weight: The mean weight.
        max_weight: The highest weight.
        weights: How many examples have each weight, by weight; empty where there are
            many.
        num_bytes: Of the file.
    """

    sampler: Mapping[str, object]
    epoch: int
    num_examples: int
    super_batch_size: int
    num_planned: int
    num_left_out: int
    first_step: int
    num_steps: int
    num_not_offered: int
    num_losses: int | None
    mean_loss: float | None
    mean_loss_left_out: float | None
    num_new: int | None
    num_gone: int | None
    min_weight: float
    mean_weight: float
    max_weight: float
    weights: list[tuple[float, int]]
    num_bytes: int | None


def plan(job: PlanJob) -> PlanReport:
    """Plans an epoch, and writes it: a row for each example of each super-batch.

    The columns are ``step``, ``position`` in its super-batch, ``example_id`` and
    ``weight``; the same job writes the same bytes.

    Raises:
        ConfigError: The run does not fit the sampler, which may need losses that are
            not there.
        StorageError: The file cannot be written.
    """
    planner = job.sampler.start(job.run)
    if planner.num_examples_per_epoch is None:
        epoch = _planned_from_losses(job, planner)
    else:
        num_steps = planner.num_examples_per_epoch // job.run.super_batch_size
        before = planner.plan(job.epoch - 1) if job.epoch else None
        epoch = _Planned(
            planner.plan(job.epoch), before, job.epoch * num_steps, None, job
        )
    return epoch.report()


def _planned_from_losses(job: PlanJob, planner: EpochPlanner) -> _Planned:
    """Plans all epochs up to the one that is wanted, each from the losses before it."""
    run, size = job.run, job.run.super_batch_size
    known = np.full(run.num_examples, np.nan, np.float32)
    if job.epoch == 0:
        return _Planned(planner.plan(0), None, 0, known, job)
    if job.losses is None:
        msg = (
            f"losses: {job.sampler!r} plans epoch {job.epoch} from the losses of those "
            "before it; give them, or ask for epoch 0"
        )
        raise ConfigError(msg)
    job.losses.check(job.epoch)
    current, before = planner.plan(0), None
    first = 0
    # Of steps that are not reported yet when an epoch is planned.
    waiting = collections.deque[Step]()
    for epoch in range(job.epoch):
        for step in job.losses.steps(epoch, current, first, size):
            waiting.append(step)
            if len(waiting) > job.max_ahead:
                _observe(planner, waiting.popleft(), known)
        first += current.num_examples // size
        before, current = current, planner.plan(epoch + 1)
    return _Planned(current, before, first, known, job)


def _observe(
    planner: EpochPlanner, step: Step, known: Float32[np.ndarray, " N"]
) -> None:
    ids, losses = step
    finite = np.isfinite(losses)
    if finite.any():
        known[ids[finite]] = losses[finite]
        planner.observe(ids, losses)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Planned:
    """An epoch's plan, and what it came from."""

    plan: EpochPlan
    before: EpochPlan | None
    first_step: int
    known: Float32[np.ndarray, " N"] | None
    job: PlanJob

    @property
    def num_steps(self) -> int:
        return self.plan.num_examples // self.job.run.super_batch_size

    def blocks(
        self, tally: _Tally
    ) -> Iterator[tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]]:
        """Yields ids and weights of what is offered, and counts the latter."""
        stop = self.num_steps * self.job.run.super_batch_size
        for start in range(0, stop, _BLOCK):
            ids, weights = self.plan.take(start, min(start + _BLOCK, stop))
            if weights is None:
                weights = np.ones(len(ids), np.float32)
            elif self.job.weighting == "mean":
                weights = (weights / self.plan.mean_weight).astype(np.float32)
            tally.add(weights)
            yield ids, weights

    def report(self) -> PlanReport:
        """Writes the plan where it is to be written, and sums it up."""
        run, job = self.job.run, self.job
        tally = _Tally()
        num_bytes = None
        if job.out is None:
            for _ in self.blocks(tally):
                pass  # they are only counted
        else:
            num_bytes = write_plan(
                job.out,
                self._metadata(),
                self.blocks(tally),
                batch_size=run.super_batch_size,
                first_step=self.first_step,
            )
        planned = _marked(self.plan, self.plan.num_examples, run)
        offered_size = self.num_steps * run.super_batch_size
        offered = _marked(self.plan, offered_size, run)
        new = gone = None
        if self.before is not None and offered is not None:
            steps = self.before.num_examples // run.super_batch_size
            earlier = _marked(self.before, steps * run.super_batch_size, run)
            if earlier is not None:
                new = int(np.count_nonzero(offered & ~earlier))
                gone = int(np.count_nonzero(earlier & ~offered))
        return PlanReport(
            sampler=sampler_to_table(job.sampler),
            epoch=job.epoch,
            num_examples=run.num_examples,
            super_batch_size=run.super_batch_size,
            num_planned=self.plan.num_examples,
            num_left_out=run.num_examples - self.plan.num_examples,
            first_step=self.first_step,
            num_steps=self.num_steps,
            num_not_offered=self.plan.num_examples - offered_size,
            num_losses=None
            if self.known is None
            else int(np.count_nonzero(~np.isnan(self.known))),
            mean_loss=_mean(self.known, offered),
            mean_loss_left_out=_mean(self.known, None if planned is None else ~planned),
            num_new=new,
            num_gone=gone,
            min_weight=tally.least,
            mean_weight=tally.total / tally.count,
            max_weight=tally.most,
            weights=tally.distinct(),
            num_bytes=num_bytes,
        )

    def _metadata(self) -> dict[str, Any]:
        run, job = self.job.run, self.job
        return {
            "format": 1,
            "sampler": sampler_to_table(job.sampler),
            "epoch": job.epoch,
            "first_step": self.first_step,
            "num_steps": self.num_steps,
            "num_examples": run.num_examples,
            "super_batch_size": run.super_batch_size,
            "seed": run.seed,
            "num_epochs": run.num_epochs,
            "max_ahead": job.max_ahead,
            "weighting": job.weighting,
            "pool_fingerprint": job.pool_fingerprint,
            "versions": {"batch-curator": curator.__version__},
        }


class _Tally:
    """Counts weights."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.least, self.most = float("inf"), float("-inf")
        self._counts = collections.Counter[float]()
        self._is_few = True

    def add(self, weights: Float32[np.ndarray, " n"]) -> None:
        """Counts those of a block."""
        self.count += len(weights)
        self.total += float(weights.sum(dtype=np.float64))
        self.least = min(self.least, float(weights.min()))
        self.most = max(self.most, float(weights.max()))
        if self._is_few:
            values, counts = np.unique(weights, return_counts=True)
            self._counts.update(
                dict(zip(values.tolist(), counts.tolist(), strict=True))
            )
            self._is_few = len(self._counts) <= _MAX_WEIGHTS

    def distinct(self) -> list[tuple[float, int]]:
        """Returns each weight and its count; nothing where there are many."""
        return sorted(self._counts.items()) if self._is_few else []


def _marked(plan: EpochPlan, size: int, run: Run) -> Bool[np.ndarray, " N"] | None:
    """Returns which of the pool are among the first of a plan; None if it is huge."""
    if run.num_examples > _MAX_MARKED:
        return None
    marks = np.zeros(run.num_examples, np.bool_)
    for start in range(0, size, _BLOCK):
        marks[plan.take(start, min(start + _BLOCK, size))[0]] = True
    return marks


def _mean(
    values: Float32[np.ndarray, " N"] | None, chosen: Bool[np.ndarray, " N"] | None
) -> float | None:
    """Returns the mean of those that are known; None where none is."""
    if values is None or chosen is None:
        return None
    known = values[chosen]
    known = known[~np.isnan(known)]
    return float(known.mean(dtype=np.float64)) if len(known) else None
