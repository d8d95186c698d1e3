"""SeTa: trains on a window of groups of similar losses that slides from easy to hard.

Shapes: ``n`` is a number of examples, ``N`` the size of the pool.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float32, Int64

from curator.samplers._base import EpochPlan, Run
from curator.samplers._checks import annealing_start, check_order, check_size, exact
from curator.samplers._clusters import group_starts
from curator.samplers._draw import draw
from curator.samplers._permutation import Permutation
from curator.samplers._plans import PermutedPlan, SubsetPlan, compact

__all__ = ["SeTa"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SeTa:
    """Trains on a window of groups of similar losses that slides from easy to hard.

    Each epoch: (1) leave out the share ``prune_ratio`` of the pool at random; (2) group
    the rest by last loss, with k-means; (3) train on ``ceil(window * num_groups)``
    groups in a row, one group further in each epoch, and from the easiest again after
    the hardest. The last epochs leave out step 2 and 3. Examples without a loss are in
    every window. Weights are 1: biased, on purpose.

    Source: Zhou et al. 2025, "Scale efficient training for large datasets", arXiv
    2503.13385.

    Attributes:
        prune_ratio: The share that is left out at random (r).
        num_groups: Into how many groups the losses are parted (k).
        window: The share of the groups that an epoch trains on (alpha).
        anneal: The share of the epochs, the last ones, without groups.
    """

    name: ClassVar[str] = "seta"

    # The authors' settings for ImageNet.
    prune_ratio: float = 0.0
    num_groups: int = 5
    window: float = 0.6
    anneal: float = 0.125

    def __post_init__(self) -> None:
        if not 0 <= self.prune_ratio < 1:
            msg = f"prune_ratio: in [0, 1); got {self.prune_ratio:g}"
            raise ValueError(msg)
        if self.num_groups < 1:
            msg = f"num_groups: at least 1; got {self.num_groups}"
            raise ValueError(msg)
        if not 0 < self.window <= 1:
            msg = f"window: in (0, 1]; got {self.window:g}"
            raise ValueError(msg)
        if not 0 <= self.anneal <= 1:
            msg = f"anneal: in [0, 1]; got {self.anneal:g}"
            raise ValueError(msg)

    @property
    def columns(self) -> frozenset[str]:
        """Reads no columns."""
        return frozenset()

    def window_of(self, epoch: int, num_groups: int) -> range:
        """Returns which of the groups an epoch trains on.

        Args:
            epoch: From 0.
            num_groups: How many there are: fewer than asked for, if there are not as
                many different losses.
        """
        width = math.ceil(exact(self.window) * num_groups)
        first = epoch % (num_groups - width + 1)
        return range(first, first + width)

    def start(self, run: Run) -> SeTaPlanner:
        """Returns a planner for a run.

        Raises:
            ConfigError: A super-batch is larger than the last epochs, or the run's
                number of epochs is needed and not known.
        """
        size = math.floor((1 - exact(self.prune_ratio)) * run.num_examples)
        why = (
            f"with prune_ratio = {self.prune_ratio:g} an epoch without groups has "
            f"{size} of the pool's {run.num_examples} examples"
        )
        check_size(run, size, why)
        return SeTaPlanner(self, run, size)


class SeTaPlanner:
    """Plans epochs from the last loss of each example."""

    def __init__(self, sampler: SeTa, run: Run, size: int) -> None:
        self._sampler = sampler
        self._run = run
        self._size = size
        self._ungrouped_from = annealing_start(sampler.anneal, run)
        self._following = 0
        # NaN: not seen yet.
        self._losses = np.full(run.num_examples, np.nan, np.float32)

    @property
    def num_examples_per_epoch(self) -> None:
        """The losses decide."""
        return

    def observe(
        self, ids: Int64[np.ndarray, " n"], losses: Float32[np.ndarray, " n"]
    ) -> None:
        """Keeps the finite losses of a batch as the last ones of its examples."""
        finite = np.isfinite(losses)
        self._losses[ids[finite]] = losses[finite]

    def state(self) -> Mapping[str, np.ndarray]:
        """Returns the last losses."""
        return {"losses": self._losses}

    def restore(self, epoch: int, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from the last losses, as they were before an epoch was planned."""
        self._following = epoch
        self._losses = state["losses"].copy()

    def plan(self, epoch: int) -> EpochPlan:
        """Returns the plan of the next epoch.

        Raises:
            ValueError: It is not the next one.
        """
        check_order(epoch, self._following)
        self._following += 1
        run = self._run
        last = self._ungrouped_from is not None and epoch >= self._ungrouped_from
        if last or epoch == 0:
            # The first so many of a permutation are a uniform draw.
            order = Permutation(run.num_examples, run.seed, epoch)
            return PermutedPlan(order, 0, self._size)
        everything = np.ones(run.num_examples, np.bool_)
        kept = draw(self._size, everything, run.seed, "seta", epoch=epoch)
        self._slide(kept, epoch)
        self._top_up(kept, epoch)
        ids = np.flatnonzero(kept)
        return SubsetPlan(
            ids=compact(ids, run.num_examples),
            order=Permutation(len(ids), run.seed, epoch),
        )

    def _slide(self, kept: Bool[np.ndarray, " N"], epoch: int) -> None:
        """Leaves in what is in the epoch's window, or has no loss yet."""
        losses = self._losses[kept]
        seen = losses[~np.isnan(losses)]
        if not len(seen):
            return
        starts = group_starts(seen, self._sampler.num_groups)
        window = self._sampler.window_of(epoch, len(starts))
        kept &= ~(self._losses < starts[window.start])
        if window.stop < len(starts):
            kept &= ~(self._losses >= starts[window.stop])

    def _top_up(self, kept: Bool[np.ndarray, " N"], epoch: int) -> None:
        """Adds, at random from the whole pool, what a super-batch lacks."""
        missing = self._run.super_batch_size - int(np.count_nonzero(kept))
        if missing > 0:
            kept |= draw(missing, ~kept, self._run.seed, "seta top-up", epoch=epoch)
