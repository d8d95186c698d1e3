"""The uniform sampler: every example once an epoch, in random order."""

from __future__ import annotations

import dataclasses

import numpy as np

from curator.errors import ConfigError
from curator.samplers._permutation import Permutation
from curator.types import SuperBatch

__all__ = ["Uniform"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Cuts each epoch's permutation of the pool into super-batches.

    The last ``num_examples % super_batch_size`` examples of an epoch's permutation are
    not offered in that epoch; in each epoch they are others.

    Attributes:
        num_examples: Size of the pool, at most 2^48.
        super_batch_size: Candidates per step (B).
        seed: Of the permutations.

    Raises:
        ConfigError: ``super_batch_size`` is below 1 or above ``num_examples``.
    """

    num_examples: int
    super_batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.super_batch_size <= self.num_examples:
            msg = (
                "super_batch_size must be in [1, examples of the pool]; got "
                f"super_batch_size={self.super_batch_size} for a pool of "
                f"{self.num_examples}"
            )
            raise ConfigError(msg)

    @property
    def num_steps_per_epoch(self) -> int:
        """How many whole super-batches the pool gives."""
        return self.num_examples // self.super_batch_size

    def super_batch(self, step: int) -> SuperBatch:
        """Returns the candidates of a step.

        Raises:
            ValueError: ``step`` is negative.
        """
        if step < 0:
            msg = f"step must be at least 0; got {step}"
            raise ValueError(msg)
        epoch, index = divmod(step, self.num_steps_per_epoch)
        start = index * self.super_batch_size
        positions = np.arange(start, start + self.super_batch_size, dtype=np.int64)
        order = Permutation(self.num_examples, self.seed, epoch)
        return SuperBatch(step, epoch, order.at(positions))
