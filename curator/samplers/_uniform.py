"""The uniform sampler: every example once an epoch, in random order."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Int64

from curator.samplers._base import Run
from curator.samplers._checks import check_size
from curator.samplers._plans import PermutedPlan

__all__ = ["Uniform"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Every example of the pool once an epoch, in the order of a random permutation."""

    name: ClassVar[str] = "uniform"

    @property
    def columns(self) -> frozenset[str]:
        """Reads no columns."""
        return frozenset()

    def start(self, run: Run) -> UniformPlanner:
        """Returns a planner for a run.

        Raises:
            ConfigError: A super-batch is larger than the pool.
        """
        size = run.num_examples
        check_size(run, size, f"the pool has {size} examples")
        return UniformPlanner(run)


class UniformPlanner:
    """Plans epochs of the whole pool, at any epoch in O(1)."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def num_examples_per_epoch(self) -> int:
        """All of them."""
        return self._run.num_examples

    def plan(self, epoch: int) -> PermutedPlan:
        """Returns the pool's permutation of an epoch."""
        return PermutedPlan.of(self._run.num_examples, self._run.seed, epoch)

    def observe(
        self, ids: Int64[np.ndarray, " n"], losses: Float32[np.ndarray, " n"]
    ) -> None:
        """Nothing to learn."""
