"""The joint score of each candidate: the costs of its pairs, by model, weighted.

Costs only grow with the examples added. So where a model's coefficient is negative,
what was not yet added to its costs can only lower the score, and the score that is
known is an upper bound. Those costs wait until the candidate is settled: of most
candidates the bound is too low to be drawn, and they never are. (The lazy evaluation of
Minoux 1978, "Accelerated greedy algorithms for maximizing submodular set functions".)

Shapes: ``B`` is the super-batch size, ``m`` the number of examples in a chunk, ``n``
that of candidates that are settled.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

from curator.scores._losses import PAIR_COSTS, PairLoss
from curator.scores._pairwise import BLOCK_SIZE, PairModel
from curator.types import PairRows

__all__ = ["JointScores", "PairScores"]

# Candidates of a smaller block never wait: what is saved is less than what it costs to
# keep the account.
_MIN_WAITING = 1024
_ALL = np.iinfo(np.int64).max


@runtime_checkable
class JointScores(Protocol):
    """The score of every candidate given those that were added before.

    This is all that the joint policy sees of the heavy array work; another device or
    a sharded super-batch is another implementation of it.

    Constraints:
        * nothing is added at first, and each candidate is added at most once;
        * scores are float64 and finite, and the caller may write to them;
        * the score of a candidate that was added stays what it was before that.
    """

    def bounds(self) -> Float64[np.ndarray, " B"]:
        """Returns what no score given the candidates added so far is above."""
        ...

    def settle(self, candidates: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Returns the scores of some candidates, which are their bounds from now on.

        Until more is added, that is. The less is settled, the less it costs.

        Args:
            candidates: Positions, each once.
        """
        ...

    def add(self, chunk: Int64[np.ndarray, " m"]) -> None:
        """Adds candidates, by position."""
        ...


class PairScores:
    """Joint scores that are computed from embeddings, here or for other shards too.

    Adding candidates is to take their embeddings and then to add these; examples that
    lie on another shard are added by their embeddings alone. No memory grows with
    ``m B``.

    A BLAS rounds a logit by where in a product it is. Candidates are therefore
    multiplied in blocks of places, those before unusable candidates were left out, and
    none changes its block: rounding depends on nothing outside the block, and shards of
    whole blocks round alike.
    """

    def __init__(
        self,
        loss: PairLoss,
        models: Sequence[PairModel],
        places: Int64[np.ndarray, " B"] | None = None,
    ) -> None:
        """Scores the candidates given nothing.

        Args:
            loss: The contrastive loss of the models.
            models: Of rows that all of them can use.
            places: Of each row, increasing; None for all of them.
        """
        rows = np.arange(len(models[0].queries))
        self._models = models
        self._costs = [PAIR_COSTS[loss](model) for model in models]
        self._blocks = (rows if places is None else places) // BLOCK_SIZE
        self._is_left = np.ones(len(rows), bool)
        # What was added, for costs that wait; how much it is; and how much of it the
        # costs of each candidate have: all of it, where they never wait.
        self._added = [
            _Rows(model) if model.coefficient < 0 else None for model in models
        ]
        self._num_added = 0
        waits = np.bincount(self._blocks)[self._blocks] >= _MIN_WAITING
        waits &= any(model.coefficient < 0 for model in models)
        self._num_settled = np.where(waits, 0, _ALL)

    def bounds(self) -> Float64[np.ndarray, " B"]:
        """Returns what no score given the candidates added so far is above."""
        return self._scores(slice(None))

    def settle(self, candidates: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Returns the scores of some candidates, which are their bounds from now on."""
        waiting = candidates[self._num_settled[candidates] < self._num_added]
        if len(waiting):
            for block in self._by_block(np.sort(waiting)):
                for start, stop, those in self._turns(block):
                    for costs, added in zip(self._costs, self._added, strict=True):
                        if added is not None:
                            costs.add(added.rows(start, stop), [those])
            self._num_settled[waiting] = self._num_added
        return self._scores(candidates)

    def add(self, chunk: Int64[np.ndarray, " m"]) -> None:
        """Adds candidates, by position."""
        self.add_rows(self.take_rows(chunk))

    def take_rows(self, chunk: Int64[np.ndarray, " m"]) -> list[PairRows]:
        """Returns the embeddings of candidates, by model, and scores them no more."""
        self.settle(chunk)
        self._is_left[chunk] = False
        self._num_settled[chunk] = _ALL
        return [
            np.stack([model.queries[chunk], model.targets[chunk]])
            for model in self._models
        ]

    def add_rows(self, rows: Sequence[PairRows]) -> None:
        """Adds examples that are not scored here, or no more, by their embeddings."""
        left = np.flatnonzero(self._is_left)
        waiting = self._num_settled < _ALL
        blocks = self._by_block(left)
        at_once = self._by_block(left[~waiting[left]])
        for model, costs, added, chunk in zip(
            self._models, self._costs, self._added, rows, strict=True
        ):
            scaled = model.scaled(chunk)
            if added is None:
                costs.add(scaled, blocks)
                continue
            costs.add(scaled, at_once)
            if not self._num_added:
                costs.leave_alone(np.flatnonzero(waiting))
            added.append(scaled)
        self._num_added += rows[0].shape[1]

    def _scores(
        self, candidates: Int64[np.ndarray, " n"] | slice
    ) -> Float64[np.ndarray, " n"]:
        parts = [
            model.coefficient * costs.values[candidates]
            for model, costs in zip(self._models, self._costs, strict=True)
        ]
        return np.sum(parts, axis=0)

    def _turns(
        self, block: Int64[np.ndarray, " n"]
    ) -> Iterator[tuple[int, int, Int64[np.ndarray, " _"]]]:
        """Yields what was added, from one to another, and those who wait for it.

        Who waits for more waits for less, too: so the few that were settled not long
        ago join the many that never were, as products of few columns are slow.
        """
        have = self._num_settled[block]
        edges = np.unique(np.append(have, self._num_added)).tolist()
        for start, stop in itertools.pairwise(edges):
            yield start, stop, block[have <= start]

    def _by_block(
        self, candidates: Int64[np.ndarray, " n"]
    ) -> list[Int64[np.ndarray, " _"]]:
        return np.split(
            candidates, np.flatnonzero(np.diff(self._blocks[candidates])) + 1
        )


class _Rows:
    """Examples in the order in which they were added, in one array that grows."""

    def __init__(self, model: PairModel) -> None:
        self._num = 0
        # Room for all candidates here is more than enough, and memory that is never
        # written to is none. Other shards may have more than that.
        self._rows: PairRows = np.empty((2, *model.queries.shape), np.float32)

    def append(self, rows: PairRows) -> None:
        """Adds examples."""
        stop = self._num + rows.shape[1]
        if stop > self._rows.shape[1]:  # twice as large: each is copied twice at most
            grown = np.empty((2, 2 * stop, rows.shape[2]), np.float32)
            grown[:, : self._num] = self._rows[:, : self._num]
            self._rows = grown
        self._rows[:, self._num : stop] = rows
        self._num = stop

    def rows(self, start: int, stop: int) -> PairRows:
        """Returns some of them."""
        return self._rows[:, start:stop]
