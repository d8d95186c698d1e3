"""Epoch plans: a permutation of the pool, or of a part of it.

Shapes: ``n`` is a number of examples, ``kept`` how many of the pool are in an epoch.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, Int64, Integer, UInt

from curator.samplers._permutation import Permutation

__all__ = ["PermutedPlan", "SubsetPlan", "compact", "span"]


@dataclasses.dataclass(frozen=True, slots=True)
class PermutedPlan:
    """Part of a permutation of the whole pool, from ``start`` to ``stop``; weights 1.

    Takes no memory, whatever the size.
    """

    permutation: Permutation
    start: int
    stop: int

    @classmethod
    def of(cls, num_examples: int, seed: int, epoch: int) -> PermutedPlan:
        """Returns the plan of a whole permutation."""
        return cls(Permutation(num_examples, seed, epoch), 0, num_examples)

    @property
    def num_examples(self) -> int:
        """How many examples the epoch has."""
        return self.stop - self.start

    @property
    def mean_weight(self) -> float:
        """No weights."""
        return 1.0

    def take(
        self, start: int, stop: int
    ) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"] | None]:
        """Returns the ids at some positions of the plan."""
        return self.permutation.at(
            span(start, stop, self.num_examples) + self.start
        ), None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SubsetPlan:
    """A list of examples, read in the order of a permutation of its positions.

    Nothing is shuffled, and an id's weight is a code for one of a few weights: an
    example takes five bytes, or six.

    Attributes:
        ids: Which examples.
        order: Of their positions.
        mean_weight: Mean of their weights.
        codes: Which of the weights is that of each; None where all are 1.
        weights: The weight of each code.
    """

    ids: Integer[np.ndarray, " kept"]
    order: Permutation
    mean_weight: float = 1.0
    codes: UInt[np.ndarray, " kept"] | None = None
    weights: Float32[np.ndarray, " codes"] | None = None

    @property
    def num_examples(self) -> int:
        """How many examples the epoch has."""
        return len(self.ids)

    def take(
        self, start: int, stop: int
    ) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"] | None]:
        """Returns the ids at some positions of the plan, and their weights."""
        positions = self.order.at(span(start, stop, self.num_examples))
        ids = self.ids[positions].astype(np.int64)
        if self.codes is None or self.weights is None:
            return ids, None
        return ids, self.weights[self.codes[positions]]


def span(start: int, stop: int, num_examples: int) -> Int64[np.ndarray, " n"]:
    """Returns the positions from ``start`` to ``stop`` of a plan.

    Raises:
        ValueError: The plan does not have them.
    """
    if not 0 <= start <= stop <= num_examples:
        msg = (
            f"positions must be in [0, {num_examples}], the examples of the "
            f"epoch; got {start} to {stop}"
        )
        raise ValueError(msg)
    return np.arange(start, stop, dtype=np.int64)


def compact(
    ids: Int64[np.ndarray, " kept"], num_examples: int
) -> Integer[np.ndarray, " kept"]:
    """Returns ids in four bytes each, where a pool of that size allows it."""
    return ids.astype(np.int32) if num_examples <= 1 << 31 else ids
