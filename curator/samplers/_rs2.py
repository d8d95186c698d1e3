"""RS2: another random subset of the pool in each epoch, a round.

Shapes: ``n`` is a number of examples.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Int64

from curator.errors import ConfigError
from curator.rng import key
from curator.samplers._base import EpochPlan, Run
from curator.samplers._checks import check_size, exact
from curator.samplers._permutation import Permutation
from curator.samplers._plans import SubsetPlan, compact, span
from curator.samplers._rounds import Rounds

__all__ = ["RS2"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RS2:
    """Trains each round on another random subset of ``round(ratio * N)`` examples.

    Without replacement (the default) all examples are used equally often, as far as
    that is possible: after any number of rounds, no two differ by more than one use.
    Weights are 1. Any other sampler has to be better than this one.

    Source: Okanovic et al. 2024, "Repeated random sampling for minimizing the
    time-to-accuracy of learning", arXiv 2305.18424.

    Attributes:
        ratio: The share of the pool that a round trains on.
        replace: Whether a round forgets what the rounds before it used. Within a round
            no example comes twice, either way.
        stratify_by: A column of the pool; of each of its values a round has
            ``round(ratio * n)`` of the n examples, and at least one.
    """

    name: ClassVar[str] = "rs2"

    ratio: float
    replace: bool = False
    stratify_by: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            msg = f"ratio: in (0, 1]; got {self.ratio:g}"
            raise ValueError(msg)

    @property
    def columns(self) -> frozenset[str]:
        """The column that is stratified by."""
        return frozenset(() if self.stratify_by is None else (self.stratify_by,))

    def start(self, run: Run) -> RS2Planner | StratifiedPlanner:
        """Returns a planner for a run.

        Raises:
            ConfigError: A super-batch is larger than a round, or the column is not one
                value per example.
        """
        if self.stratify_by is None:
            planner = RS2Planner(self._rounds(run.num_examples, run.seed))
        else:
            classes = _classes(self.stratify_by, run)
            planner = StratifiedPlanner(
                [
                    (ids, self._rounds(len(ids), key(run.seed, "rs2 class", i)))
                    for i, ids in enumerate(classes)
                ],
                run,
            )
        size = planner.num_examples_per_epoch
        why = (
            f"with ratio = {self.ratio:g} a round has {size} of the pool's "
            f"{run.num_examples} examples"
        )
        check_size(run, size, why)
        return planner

    def _rounds(self, num_examples: int, seed: int) -> Rounds:
        size = round(exact(self.ratio) * num_examples)
        if self.stratify_by is not None:
            size = max(1, size)  # or the class would never be trained on
        return Rounds(num_examples, size, seed, self.replace)


@dataclasses.dataclass(frozen=True, slots=True)
class RS2Planner:
    """Plans rounds over the whole pool, any round in O(1)."""

    rounds: Rounds

    @property
    def num_examples_per_epoch(self) -> int:
        """The same share of the pool in every round."""
        return self.rounds.size

    def plan(self, epoch: int) -> RoundPlan:
        """Returns the plan of a round."""
        return RoundPlan(self.rounds, epoch)

    def observe(
        self, ids: Int64[np.ndarray, " n"], losses: Float32[np.ndarray, " n"]
    ) -> None:
        """Nothing to learn."""


@dataclasses.dataclass(frozen=True, slots=True)
class RoundPlan:
    """One round; takes no memory, whatever the size."""

    rounds: Rounds
    epoch: int

    @property
    def num_examples(self) -> int:
        """How many examples the round has."""
        return self.rounds.size

    @property
    def mean_weight(self) -> float:
        """No weights."""
        return 1.0

    def take(
        self, start: int, stop: int
    ) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"] | None]:
        """Returns the ids at some positions of the round."""
        return self.rounds.at(self.epoch, span(start, stop, self.num_examples)), None


class StratifiedPlanner:
    """Plans rounds over each class; a plan is a list of ids, four bytes each."""

    def __init__(
        self, classes: list[tuple[Int64[np.ndarray, " _"], Rounds]], run: Run
    ) -> None:
        self._classes = classes
        self._run = run
        self._size = sum(rounds.size for _, rounds in classes)

    @property
    def num_examples_per_epoch(self) -> int:
        """The same share of each class in every round."""
        return self._size

    def plan(self, epoch: int) -> EpochPlan:
        """Returns the plan of a round."""
        ids = [
            members[rounds.at(epoch, np.arange(rounds.size))]
            for members, rounds in self._classes
        ]
        order = Permutation(self._size, key(self._run.seed, "rs2 order"), epoch)
        return SubsetPlan(
            ids=compact(np.concatenate(ids), self._run.num_examples), order=order
        )

    def observe(
        self, ids: Int64[np.ndarray, " n"], losses: Float32[np.ndarray, " n"]
    ) -> None:
        """Nothing to learn."""


def _classes(column: str, run: Run) -> list[Int64[np.ndarray, " _"]]:
    """Returns the ids of each value of a column."""
    values = run.columns.get(column)
    if values is None or values.shape != (run.num_examples,):
        what = "is missing" if values is None else f"has shape {values.shape}"
        msg = (
            f"stratify_by: needs one value per example of the pool, shape "
            f"({run.num_examples},); column {column!r} {what}"
        )
        raise ConfigError(msg)
    _, codes = np.unique(values, return_inverse=True)
    ids = np.argsort(codes, kind="stable")
    return np.split(ids, np.cumsum(np.bincount(codes))[:-1])
