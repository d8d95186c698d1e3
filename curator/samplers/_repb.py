"""RePB: prunes within each batch, and reweights by how often an example was in.

Shapes: ``n`` is a number of examples, ``N`` the size of the pool.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Int64

from curator.rng import Noise
from curator.samplers._base import EpochPlan, Run
from curator.samplers._checks import check_order, check_size
from curator.samplers._draw import draw
from curator.samplers._permutation import Permutation
from curator.samplers._plans import PermutedPlan, SubsetPlan, compact
from curator.samplers._thresholds import mean_threshold

__all__ = ["RePB"]

_OUT, _IN, _PRUNED = range(3)
_BLOCK = 1 << 18


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RePB:
    """Leaves out of the next epoch part of each batch's losses below that batch's mean.

    Only losses of the same batch are compared, so no loss is out of date. What was not
    in an epoch is in the next with probability ``1 - prune_ratio``, whatever its loss.
    An example that was in N of E epochs, the present one included, weighs E / N.

    Source: "Inconsistency biases in dynamic data pruning", ICLR 2026 (RePB); from a
    summary and the reviews, as neither code nor full text could be had.

    Attributes:
        prune_ratio: The probability that a low loss is left out (rho).
        max_weight: Weights are clipped here: an example that comes back after a long
            absence would have a very large one.
    """

    name: ClassVar[str] = "repb"

    prune_ratio: float = 0.5
    max_weight: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.prune_ratio < 1:
            msg = f"prune_ratio: in [0, 1); got {self.prune_ratio:g}"
            raise ValueError(msg)
        if not 1 <= self.max_weight < float("inf"):
            msg = f"max_weight: at least 1, and finite; got {self.max_weight:g}"
            raise ValueError(msg)

    @property
    def columns(self) -> frozenset[str]:
        """Reads no columns."""
        return frozenset()

    def start(self, run: Run) -> RePBPlanner:
        """Returns a planner for a run.

        Raises:
            ConfigError: A super-batch is larger than the pool.
        """
        size = run.num_examples
        check_size(run, size, f"the pool has {size} examples")
        return RePBPlanner(self, run)


class RePBPlanner:
    """Plans epochs from what each batch decided about its examples."""

    def __init__(self, sampler: RePB, run: Run) -> None:
        self._sampler = sampler
        self._run = run
        self._following = 0
        # Of the epoch planned last: not in it, in it, or in it and to be left out next.
        self._state = np.full(run.num_examples, _IN, np.uint8)
        self._num_epochs_in = np.zeros(run.num_examples, np.uint32)

    @property
    def num_examples_per_epoch(self) -> None:
        """The losses decide."""
        return

    def observe(
        self, ids: Int64[np.ndarray, " n"], losses: Float32[np.ndarray, " n"]
    ) -> None:
        """Decides which examples of a batch are left out of the next epoch.

        Those without a finite loss are not judged: they stay in.
        """
        # What is out was judged before, and is the business of the next plan.
        judged = np.isfinite(losses) & (self._state[ids] != _OUT)
        ids, losses = ids[judged], losses[judged]
        self._state[ids] = _IN  # the last batch decides, where reports run behind
        for threshold in mean_threshold(losses):
            low = ids[losses < threshold]
            noise = Noise(self._run.seed, self._following, "repb batch")
            unlucky = noise.uniform(low) < self._sampler.prune_ratio
            self._state[low[unlucky]] = _PRUNED

    def state(self) -> Mapping[str, np.ndarray]:
        """Returns what was decided about each example, and how often it was in."""
        return {"state": self._state, "num_epochs_in": self._num_epochs_in}

    def restore(self, epoch: int, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from what was decided before an epoch was planned."""
        self._following = epoch
        self._state = state["state"].copy()
        self._num_epochs_in = state["num_epochs_in"].copy()

    def plan(self, epoch: int) -> EpochPlan:
        """Returns the plan of the next epoch.

        Raises:
            ValueError: It is not the next one.
        """
        check_order(epoch, self._following)
        self._following += 1
        run = self._run
        self._turn_over(epoch)
        self._top_up(epoch)
        ids = np.flatnonzero(self._state == _IN)
        self._num_epochs_in[ids] += 1
        if epoch == 0:
            return PermutedPlan.of(run.num_examples, run.seed, epoch)
        codes = self._num_epochs_in[ids]
        weights = np.minimum(
            (epoch + 1) / np.maximum(1, np.arange(epoch + 2)), self._sampler.max_weight
        )
        counts = np.bincount(codes, minlength=epoch + 2)
        return SubsetPlan(
            ids=compact(ids, run.num_examples),
            order=Permutation(len(ids), run.seed, epoch),
            mean_weight=float(counts @ weights) / len(ids),
            codes=codes,
            weights=weights.astype(np.float32),
        )

    def _turn_over(self, epoch: int) -> None:
        """Leaves out what was pruned, and lets back what was out for an epoch."""
        noise = Noise(self._run.seed, epoch, "repb return")
        for start in range(0, len(self._state), _BLOCK):
            state = self._state[start : start + _BLOCK]
            out = np.flatnonzero(state == _OUT)
            state[state == _PRUNED] = _OUT
            lucky = noise.uniform(out + start) >= self._sampler.prune_ratio
            state[out[lucky]] = _IN

    def _top_up(self, epoch: int) -> None:
        """Lets back, at random, what a super-batch lacks."""
        num_in = int(np.count_nonzero(self._state == _IN))
        missing = self._run.super_batch_size - num_in
        if missing > 0:
            out = self._state == _OUT
            drawn = draw(missing, out, self._run.seed, "repb top-up", epoch=epoch)
            self._state[drawn] = _IN
