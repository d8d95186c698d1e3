"""Rounds of equal size that use all examples equally often, at any round in O(1).

Shapes: ``n`` is a number of examples.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int64

from curator.rng import key
from curator.samplers._permutation import Permutation

__all__ = ["Rounds"]


@dataclasses.dataclass(frozen=True, slots=True)
class Rounds:
    """Rounds of ``size`` of N examples; which they are is a function of (seed, round).

    With replacement, a round is the beginning of a permutation of its own.

    Without, the rounds are consecutive slices of one sequence of permutations, its
    cycles. A slice may begin in one cycle and end in the next; the next cycle then must
    not begin with what the slice already has, the tail of the cycle before. So ids of
    the tail are moved out of the head of the next cycle to behind it: the i-th id of
    the tail to position ``head + i``, if it was before position ``head + tail`` at all.
    What was there takes the free place, by the same rule if it is of the tail itself. A
    cycle is still a permutation, so after any number of rounds the uses of two examples
    differ by one at most; its own tail is where it was, so no cycle depends on more
    than the one before; and what is at a position is found in two or three look-ups.

    Tails and heads must not meet, so this needs ``2 * size <= N``. A larger round is
    all but a slice of ``N - size``, in an order of its own: what is left out equally
    often is used equally often.

    Attributes:
        num_examples: N.
        size: From 1 to N.
        seed: Any integer.
        replace: With replacement (across rounds).
    """

    num_examples: int
    size: int
    seed: int
    replace: bool

    def at(
        self, epoch: int, positions: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Returns what is at positions, from 0 to ``size - 1``, of an epoch's round."""
        if self.replace or self.size == self.num_examples:
            seed = key(self.seed, "rs2 round")
            return Permutation(self.num_examples, seed, epoch).at(positions)
        cycle, start = divmod(epoch * self._slice, self.num_examples)
        if self._slice == self.size:
            return self._at(cycle, start + positions)
        order = Permutation(self.size, key(self.seed, "rs2 order"), epoch)
        positions = order.at(positions)
        stop = start + self._slice
        if stop <= self.num_examples:
            positions = np.where(positions < start, positions, positions + self._slice)
            return self._at(cycle, positions)
        # The slice is a tail and a head: with the tail moved to behind the head, what
        # remains are the positions that follow.
        return self._without_tail(cycle + 1, self._slice + positions)

    @property
    def _slice(self) -> int:
        """The examples that a round uses of the cycles, or leaves out."""
        return min(self.size, self.num_examples - self.size)

    def _cycle(self, cycle: int) -> Permutation:
        return Permutation(self.num_examples, self.seed, cycle)

    def _tail(self, cycle: int) -> int:
        """Returns how much of a cycle is in the slice that goes on into the next."""
        return (cycle + 1) * self.num_examples % self._slice

    def _at(
        self, cycle: int, positions: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Returns ids at positions of a cycle; positions may go on into the next."""
        size = self.num_examples
        inside = positions < size
        if not inside.all():
            ids = np.empty(len(positions), np.int64)
            ids[inside] = self._at(cycle, positions[inside])
            ids[~inside] = self._at(cycle + 1, positions[~inside] - size)
            return ids
        tail = self._tail(cycle - 1)
        ids = self._cycle(cycle).at(positions)
        if not tail:
            return ids
        head = self._slice - tail
        # Behind the head: places for the tail, where its ids go if they were near.
        places = np.flatnonzero((positions >= head) & (positions < self._slice))
        tails = self._cycle(cycle - 1).at(size - tail + positions[places] - head)
        came = self._cycle(cycle).positions(tails) < self._slice
        ids[places[came]] = tails[came]
        other = positions < self._slice
        other[places[came]] = False
        ids[other] = self._without_tail(cycle, positions[other])
        return ids

    def _without_tail(
        self, cycle: int, positions: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Returns ids at positions of a cycle, none of them of the tail before it.

        An id of the tail is followed to its place, and what is there is returned
        instead. So places that its ids come to must not be asked for.
        """
        before, now = self._cycle(cycle - 1), self._cycle(cycle)
        tail = self._tail(cycle - 1)
        head = self._slice - tail
        ids = now.at(positions)
        follow = np.arange(len(ids))
        while len(follow):
            rank = before.positions(ids[follow]) - (self.num_examples - tail)
            is_tail = rank >= 0
            follow = follow[is_tail]
            ids[follow] = now.at(head + rank[is_tail])
        return ids
