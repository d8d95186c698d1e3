"""InfoBatch: prunes what is already learned, and reweights what is left of it.

Shapes: ``n`` is a number of examples, ``N`` the size of the pool.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from curator.samplers._base import EpochPlan, Run
from curator.samplers._checks import annealing_start, check_order, check_size, exact
from curator.samplers._draw import draw
from curator.samplers._permutation import Permutation
from curator.samplers._plans import PermutedPlan, SubsetPlan, compact
from curator.samplers._thresholds import mean_threshold, percentile_thresholds

__all__ = ["InfoBatch", "num_kept"]

_MAX_BUCKETS = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InfoBatch:
    """Leaves out, at random, part of the examples whose last loss is below the mean.

    Those of them that are kept have a higher weight, so that the weighted sum over the
    epoch is in expectation the sum over the pool. Examples without a loss are kept. The
    last epochs have every example. Costs no forward pass: the losses are those that
    training computed anyway.

    Source: Qin et al. 2024, "InfoBatch: lossless training speed up by unbiased dynamic
    data pruning", arXiv 2303.04947; percentiles as in the authors' ImageNet code.

    Attributes:
        prune_ratio: The share of the low losses that an epoch leaves out; with
            ``percentiles`` a list, one for each bucket from the lowest losses up.
        percentiles: Of the losses; they part them into buckets, of which the highest is
            kept whole. None: there is one bucket, the losses below the mean.
        anneal: The share of the epochs, the last ones, that leave nothing out.
        min_inclusion: At least this share of a bucket is kept, whatever rounding does,
            so that no weight is above ``1 / min_inclusion``.
    """

    name: ClassVar[str] = "infobatch"

    prune_ratio: float | list[float] = 0.5
    percentiles: list[float] = dataclasses.field(default_factory=list[float])
    anneal: float = 0.125  # the paper's delta is 0.875
    min_inclusion: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.prune_ratio, list) != bool(self.percentiles) or (
            isinstance(self.prune_ratio, list)
            and len(self.prune_ratio) != len(self.percentiles)
        ):
            msg = (
                "prune_ratio: a number, or with percentiles a list of one for each of "
                f"them; got {self.prune_ratio} for percentiles = {self.percentiles}"
            )
            raise ValueError(msg)
        for ratio in self._prune_ratios():
            if not 0 <= ratio < 1:
                msg = f"prune_ratio: in [0, 1); got {ratio:g}"
                raise ValueError(msg)
        marks = [0, *self.percentiles, 100]
        rising = all(low < high for low, high in itertools.pairwise(marks))
        if not rising or len(self.percentiles) > _MAX_BUCKETS:
            msg = (
                f"percentiles: at most {_MAX_BUCKETS}, rising, between 0 and 100; "
                f"got {self.percentiles}"
            )
            raise ValueError(msg)
        for field, value in (
            ("anneal", self.anneal),
            ("min_inclusion", self.min_inclusion),
        ):
            if not 0 <= value <= 1:
                msg = f"{field}: in [0, 1]; got {value:g}"
                raise ValueError(msg)

    @property
    def columns(self) -> frozenset[str]:
        """Reads no columns."""
        return frozenset()

    @property
    def keep_shares(self) -> list[Fraction]:
        """The share of each bucket that is kept, from the lowest losses up."""
        return [1 - exact(ratio) for ratio in self._prune_ratios()]

    def start(self, run: Run) -> InfoBatchPlanner:
        """Returns a planner for a run.

        Raises:
            ConfigError: A super-batch may be larger than a pruned epoch, or the run's
                number of epochs is needed and not known.
        """
        fewest = self._fewest(run.num_examples)
        why = (
            f"with prune_ratio = {self.prune_ratio} an epoch may be left with {fewest} "
            f"of the pool's {run.num_examples} examples"
        )
        check_size(run, fewest, why)
        return InfoBatchPlanner(self, run)

    def _prune_ratios(self) -> list[float]:
        if isinstance(self.prune_ratio, list):
            return self.prune_ratio
        return [self.prune_ratio]

    def _fewest(self, num_examples: int) -> int:
        """Returns a lower bound of the size of an epoch.

        At most ``N - 1`` losses are below the mean; at most ``ceil(q (N - 1))`` are
        below the quantile q. Each bucket's size is rounded by a half at most.
        """
        num_low = Fraction(num_examples - 1)
        if self.percentiles:
            num_low = math.ceil(exact(self.percentiles[-1]) / 100 * num_low)
        shares = self.keep_shares
        kept = num_examples - num_low * (1 - min(shares)) - Fraction(len(shares), 2)
        return max(1, math.ceil(kept))


class InfoBatchPlanner:
    """Plans epochs from the last loss of each example."""

    def __init__(self, sampler: InfoBatch, run: Run) -> None:
        self._sampler = sampler
        self._run = run
        self._full_from = annealing_start(sampler.anneal, run)
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
        everything = PermutedPlan.of(run.num_examples, run.seed, epoch)
        if self._full_from is not None and epoch >= self._full_from:
            return everything
        codes = self._buckets()
        kept = codes == 0
        if kept.all():
            return everything
        weights = self._prune(codes, kept, epoch)
        ids = np.flatnonzero(kept)
        return SubsetPlan(
            ids=compact(ids, run.num_examples),
            order=Permutation(len(ids), run.seed, epoch),
            # The weights of each bucket's kept add up to its size.
            mean_weight=run.num_examples / len(ids),
            codes=codes[ids],
            weights=np.array(weights, np.float32),
        )

    def _buckets(self) -> UInt8[np.ndarray, " N"]:
        """Returns each example's bucket: 0 is kept whole, the last has lowest losses.

        A loss equal to a threshold is in the upper bucket, and so is one without a
        loss: NaN is not below anything.
        """
        percentiles = self._sampler.percentiles
        if percentiles:
            thresholds = percentile_thresholds(self._losses, percentiles)
        else:
            thresholds = mean_threshold(self._losses)
        codes = np.zeros(len(self._losses), np.uint8)
        for threshold in thresholds:
            codes += self._losses < threshold
        return codes

    def _prune(
        self, codes: UInt8[np.ndarray, " N"], kept: np.ndarray, epoch: int
    ) -> list[float]:
        """Draws what is kept of each bucket into ``kept``; returns their weights."""
        weights = [1.0]
        for code, share in enumerate(reversed(self._sampler.keep_shares), start=1):
            members = codes == code
            size = int(np.count_nonzero(members))
            drawn = num_kept(size, share, exact(self._sampler.min_inclusion))
            weights.append(size / max(1, drawn))
            kept |= draw(drawn, members, self._run.seed, "infobatch", epoch=epoch)
        return weights


def num_kept(size: int, share: Fraction, least: Fraction) -> int:
    """Returns how many of a bucket are kept; each then weighs ``size / num_kept``.

    Not ``int(share * size)``, which keeps nothing of a small bucket, nor the weight
    ``1 / share``, which then is wrong: these weights add up to ``size`` exactly.
    """
    return min(size, max(1, round(share * size), math.ceil(least * size)))
