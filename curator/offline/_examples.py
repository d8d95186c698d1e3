"""Which examples of a pool a job scores, and in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from curator.errors import ConfigError
from curator.offline._job import ScoreJob
from curator.offline._source import Source

__all__ = ["Examples"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Examples of a pool in the order of their ids; without a condition, the first.

    Attributes:
        num_examples: How many.
    """

    num_examples: int
    _ids: Int64[np.ndarray, " n"] | None

    @classmethod
    def of(cls, source: Source, job: ScoreJob) -> Examples:
        """Returns those of a job; with a condition, the pool is read for it.

        Raises:
            ConfigError: There are none, or a column does not go with the condition.
            PoolError: The pool cannot be read.
        """
        size = source.pool.num_examples
        if source.where is None:
            return cls(min(job.limit or size, size), None)
        ids = source.where.ids(source.pool, job.limit)
        if not len(ids):
            msg = (
                f"where: {source.where.text} is true of none of the {size} examples of "
                f"pool {job.pool!r}: nothing to score"
            )
            raise ConfigError(msg)
        return cls(len(ids), ids)

    def at(self, positions: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        """Returns the ids at some positions of the order."""
        return positions if self._ids is None else self._ids[positions]

    def blocks(
        self, start: int, stop: int, size: int
    ) -> Iterator[Int64[np.ndarray, " b"]]:
        """Yields the ids from a position to another, in blocks."""
        for first in range(start, stop, size):
            yield self.at(np.arange(first, min(first + size, stop)))
