"""What a sampler is: which examples become candidates, and when.

Shapes: ``n`` is a number of examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

__all__ = ["EpochPlan", "EpochPlanner", "ResumablePlanner", "Run", "Sampler"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """The training run that a sampler samples for.

    Attributes:
        num_examples: Size of the pool.
        super_batch_size: Candidates of a step (B).
        seed: Of everything random.
        num_epochs: How long the run is; None where it is not known.
        columns: The whole columns of the pool that the sampler asked for, by name.
    """

    num_examples: int
    super_batch_size: int
    seed: int
    num_epochs: int | None = None
    columns: Mapping[str, np.ndarray] = dataclasses.field(
        default_factory=dict[str, np.ndarray]
    )


@runtime_checkable
class EpochPlan(Protocol):
    """The examples of one epoch, in order."""

    @property
    def num_examples(self) -> int:
        """How many examples the epoch has; no example is in it twice."""
        ...

    @property
    def mean_weight(self) -> float:
        """Mean weight of its examples, in float64; 1.0 where there are no weights."""
        ...

    def take(
        self, start: int, stop: int
    ) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"] | None]:
        """Returns ids at positions ``start`` to ``stop`` of the epoch, and weights.

        The weights are sum-preserving: in expectation over the sampler's randomness,
        the weighted sum over the epoch is the sum over the pool. None: all are 1.
        """
        ...


@runtime_checkable
class EpochPlanner(Protocol):
    """A sampler at work on one run: makes the plan of each epoch.

    Where ``num_examples_per_epoch`` is a number, the plan of an epoch is a function of
    the run and the epoch alone: any epoch may be asked for, in any order, and
    :meth:`observe` is not called. Where it is None, plans are made from losses:
    epochs are planned in order, each once, and between two plans :meth:`observe` is
    called for steps, in order. All state is a function of these calls, so calling them
    again on a new planner rebuilds it exactly.
    """

    @property
    def num_examples_per_epoch(self) -> int | None:
        """How many examples every epoch has; None where the plan decides."""
        ...

    def plan(self, epoch: int) -> EpochPlan:
        """Returns the plan of an epoch, of at least ``super_batch_size`` examples."""
        ...

    def observe(
        self, ids: Int64[np.ndarray, " n"], losses: Float32[np.ndarray, " n"]
    ) -> None:
        """Takes the losses of one step's batch.

        Args:
            ids: Distinct ids of the batch.
            losses: Un-reduced and un-weighted; NaN where none was reported, or one
                that is not finite: the example is as if it had not been trained on.
        """
        ...


@runtime_checkable
class ResumablePlanner(EpochPlanner, Protocol):
    """A planner from losses whose state can be kept, so that nothing is replayed."""

    def state(self) -> Mapping[str, np.ndarray]:
        """Returns all that later plans depend on, by name; not to be changed."""
        ...

    def restore(self, epoch: int, state: Mapping[str, np.ndarray]) -> None:
        """Takes a state that was kept before an epoch was planned, which comes next."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """Decides which examples become candidates, in what order, over an epoch.

    A sampler is a frozen dataclass: its fields are its configuration.
    """

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns of the pool that it reads."""
        ...

    def start(self, run: Run) -> EpochPlanner:
        """Returns a planner for a run that starts.

        Raises:
            ConfigError: The run does not fit the sampler.
        """
        ...
