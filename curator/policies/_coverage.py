"""Greedy facility location, exact, with each pair of examples multiplied about once.

A pair matters while its cosine is above that of the second one to whatever covers it
already, and coverage only grows. So a pair that has stopped to matter never matters
again, and after some choices those that are left (6 % after five is usual) are few
enough to be kept: from then on there are no more matrix products.

Until then, most candidates could be the next choice as far as their gains before the
last one tell. So the choices are foreseen, by the gains over a sample. One pass over
all pairs then finds the exact gains before several of them, and the pairs that matter
after the last. With these the choices are made, exactly: where coverage came to be less
than was foreseen, those gains are too low by no more than that, and the pairs of these
examples are found anew.

Shapes: ``n`` is the number of examples, ``D`` the width of an embedding, ``K`` how many
are taken, ``m`` of those looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from curator.policies._coverage_pairs import (
    BLOCK,
    ROUNDING,
    Foreseen,
    Pairs,
    Survey,
    blocks_of,
    sums_above,
)
from curator.policies._embeddings import coarse, coarse_one
from curator.policies._greedy import highest
from curator.progress import Progress

__all__ = ["Coverage"]

# Pairs that are kept (8 bytes each), and the largest part of all pairs that is worth
# it.
_MAX_PAIRS = 1 << 27
_MAX_SHARE = 1 / 16

# How many choices are foreseen at most; by the gains over how many examples (at most so
# many cosines), then over how many of the best part of the candidates, then over all of
# a smaller part, at least so many.
_MAX_FORESEEN = 32
_SAMPLE = 1024
_MAX_SAMPLED = 1 << 27
_LARGER_SAMPLE = 8192
_LIKELY, _MORE_LIKELY = 1 / 32, 1 / 256
_MIN_LIKELY = 64

# How many times as many of all these there are after a choice that was not foreseen.
_MORE_EFFORT = 4

# How many candidates are looked at together, at first and at most; and among how many
# the choice is while it is by pairs.
_LOOKED_AT, _MAX_LOOKED_AT = 64, 1024
_ACTIVE = 1024

# The largest part of the examples whose pairs are found anew; above that it is better
# to look at all again.
_MAX_MISSING = 1 / 8

_GainsOf: TypeAlias = Callable[[Int64[np.ndarray, " m"]], Float64[np.ndarray, " m"]]


class Coverage:
    """How well each example is covered by those taken; takes what adds most to it."""

    def __init__(
        self, rows: Float32[np.ndarray, "n D"], ranks: Int64[np.ndarray, " n"]
    ) -> None:
        """Starts with nothing taken.

        Args:
            rows: Embeddings of length one. The similarity is (1 + cosine) / 2.
            ranks: Of equal gains that with the lowest of these is taken.
        """
        # By rank: of equal gains the first is taken, and the first rows are a sample.
        self._order = np.argsort(ranks)
        self._rows = rows[self._order]
        self._taken: list[int] = []
        # The largest cosine to one taken. Here, and in gains, nothing is halved.
        self._covered = np.full(len(rows), -1, np.float32)
        self._gains: list[float] = []
        # How much more is done than at first to foresee choices.
        self._effort = 1
        self._num_looked_at = 0
        # How many were taken when pairs were found, or dropped, last.
        self._num_before = 0
        self._progress: Progress

    @property
    def current(self) -> Float32[np.ndarray, " n"]:
        """The similarity of each example to the most similar one taken; 0 at first."""
        current = np.empty_like(self._covered)
        current[self._order] = (1 + self._covered) / 2
        return current

    def take(
        self, num_taken: int
    ) -> tuple[Int64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
        """Returns the examples that are taken, in order, and what each added.

        Args:
            num_taken: In [1, n].
        """
        # Nothing is covered, so that the sum over all examples is one product.
        bounds = len(self._rows) + self._rows @ self._rows.sum(axis=0, dtype=np.float64)
        self._progress = Progress(
            "facility_location", num_taken, "choices", is_even=False
        )
        with self._progress:
            self._take(int(coarse(bounds).argmax()), bounds)
            while len(self._taken) < num_taken:
                bounds, pairs = self._take_foreseen(num_taken)
                if pairs is not None:
                    self._take_by_pairs(bounds, pairs, num_taken)
        return self._order[self._taken], np.array(self._gains) / 2

    def _take_foreseen(
        self, num_taken: int
    ) -> tuple[Float64[np.ndarray, " n"], Pairs | None]:
        """Takes about as many as are foreseen, whether they are these or not.

        Returns:
            No less than what each candidate would add; and the pairs that matter, if
            they are few by now, and near enough to those that were expected.
        """
        foreseen = self._foresee(num_taken)
        survey = Survey(self._rows, foreseen)
        covered = foreseen.covered
        del foreseen  # Half a gigabyte of cosines.
        num_foreseen = len(covered) - 1
        size = len(self._rows)
        bounds = np.full(size, np.inf)
        bounds[self._taken] = -np.inf
        self._num_looked_at = 0
        for num in range(2 * num_foreseen + 1):
            if num >= num_foreseen:
                is_less = covered[-1] > self._covered + ROUNDING
                if survey.pairs is not None and is_less.mean() <= _MAX_MISSING:
                    missing = np.flatnonzero(is_less)
                    survey.pairs.replace(self._rows, missing, self._covered)
                    return bounds, survey.pairs
                if survey.pairs is None or len(self._taken) == num_taken:
                    break
            if self._num_looked_at > size:
                break
            is_exact = bounds == -np.inf
            for step, gains in survey.gains.items():
                # Less coverage than foreseen makes gains that much higher, at most.
                apart = covered[step] - self._covered
                less = float(apart.sum(where=apart > ROUNDING, dtype=np.float64))
                np.minimum(bounds, gains + less, out=bounds)
                is_exact |= bool((np.abs(apart) <= ROUNDING).all())
            self._take(_best(bounds, is_exact, self._gains_of), bounds)
        self._effort = _MORE_EFFORT
        return bounds, None

    def _foresee(self, num_taken: int) -> Foreseen:
        """Returns what is likely to be taken next, until few pairs matter."""
        size = len(self._rows)
        most_sampled = max(_MAX_SAMPLED // size, BLOCK)
        num_sampled = min(_SAMPLE * self._effort, most_sampled, size)
        cosines = self._rows @ self._rows[:num_sampled].T
        is_gone = np.zeros(size, bool)
        is_gone[self._taken] = True
        num_wanted = num_taken - len(self._taken)
        examples: list[int] = []
        covered = [self._covered]
        while True:
            sampled = covered[-1][:num_sampled]
            share = float((cosines[:num_sampled] > sampled + ROUNDING).mean())
            is_sparse = share <= _MAX_SHARE and share * size**2 <= _MAX_PAIRS
            if is_sparse or len(examples) == min(num_wanted, _MAX_FORESEEN):
                keeps_pairs = is_sparse and len(examples) < num_wanted
                return Foreseen(np.stack(covered), cosines, keeps_pairs)
            estimates = np.concatenate(
                [sums_above(cosines[own], sampled, 1) for own in blocks_of(size)]
            )
            estimates[is_gone] = -np.inf
            likely = _highest(estimates, _LIKELY * self._effort * size)
            likely = likely[~is_gone[likely]]
            if size > 2 * _LARGER_SAMPLE:
                found = self._rows[likely] @ self._rows[:_LARGER_SAMPLE].T
                estimates = sums_above(found, covered[-1][:_LARGER_SAMPLE], 1)
                num_likely = _MORE_LIKELY * self._effort * size
                likely = likely[_highest(estimates, num_likely)]
            found = self._rows[likely] @ self._rows.T
            gains = sums_above(found, covered[-1], 1).astype(np.float64)
            best = int(coarse(gains).argmax())
            examples.append(int(likely[best]))
            is_gone[examples[-1]] = True
            covered.append(np.maximum(covered[-1], found[best]))

    def _take_by_pairs(
        self, bounds: Float64[np.ndarray, " n"], pairs: Pairs, num_taken: int
    ) -> None:
        """Takes the rest by the pairs that still matter.

        Args:
            bounds: No less than what each candidate would add; minus infinity for those
                taken.
            pairs: Those that matter.
            num_taken: How many are taken, those before included.
        """
        everyone = np.arange(len(bounds))
        self._num_before = len(self._taken)
        while len(self._taken) < num_taken:
            one = len(self._taken) + 1
            self._take_among(everyone, -np.inf, bounds, pairs, one)
            active, outside = highest(bounds, _ACTIVE)
            self._take_among(active, outside, bounds, pairs, num_taken)

    def _take_among(
        self,
        among: Int64[np.ndarray, " m"],
        outside: float,
        bounds: Float64[np.ndarray, " n"],
        pairs: Pairs,
        num_taken: int,
    ) -> None:
        """Takes of some candidates while none of the others can be better or equal."""
        own = bounds[among]

        def gains_of(places: Int64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
            return pairs.gains_of(among[places], self._covered)

        while len(self._taken) < num_taken:
            best = _best(own, own == -np.inf, gains_of)
            gain = float(own[best])
            if gain == -np.inf or coarse_one(gain) <= outside:
                break
            self._note(int(among[best]), gain)
            own[best] = -np.inf
            pairs.cover(self._taken[-1], self._covered)
            if len(self._taken) >= 2 * self._num_before:
                self._num_before = len(self._taken)
                pairs.drop_covered(self._covered)
        bounds[among] = own

    def _take(self, candidate: int, gains: Float64[np.ndarray, " n"]) -> None:
        """Takes a candidate, by a product."""
        self._note(candidate, float(gains[candidate]))
        gains[candidate] = -np.inf
        cosines = self._rows @ self._rows[candidate]
        np.maximum(self._covered, cosines, out=self._covered)

    def _note(self, candidate: int, gain: float) -> None:
        self._taken.append(candidate)
        self._gains.append(gain)
        self._progress.advance(1)

    def _gains_of(
        self, candidates: Int64[np.ndarray, " m"]
    ) -> Float64[np.ndarray, " m"]:
        """Returns what each candidate would add, by products."""
        self._num_looked_at += len(candidates)
        gains = np.zeros(len(candidates))
        own = self._rows[candidates]
        width = max(BLOCK**2 // len(candidates), BLOCK)
        for others in blocks_of(len(self._rows), width):
            cosines = own @ self._rows[others].T
            gains += sums_above(cosines, self._covered[others], 1)
        return gains


def _highest(
    keys: Float32[np.ndarray, " n"], num_wanted: float
) -> Int64[np.ndarray, " m"]:
    """Returns where about so many of the highest are, in order."""
    num = min(max(int(num_wanted), _MIN_LIKELY), len(keys))
    return np.sort(np.argpartition(-keys, num - 1)[:num])


def _best(
    bounds: Float64[np.ndarray, " n"],
    is_exact: Bool[np.ndarray, " n"],
    gains_of: _GainsOf,
) -> int:
    """Returns the first candidate of those that add most.

    Args:
        bounds: No less than what each would add; what it would where that is exact.
        is_exact: Where.
        gains_of: What candidates would add.
    """
    num_looked_at = _LOOKED_AT
    while True:
        keys = coarse(bounds)
        best = keys[is_exact].max(initial=-np.inf)
        # One that is out of date and equal could come first.
        stale = np.flatnonzero(~is_exact & (keys >= best))
        if not len(stale):
            return int(keys.argmax())
        if len(stale) > num_looked_at:
            order = np.argpartition(-bounds[stale], num_looked_at)
            stale = stale[order[:num_looked_at]]
        bounds[stale] = gains_of(stale)
        is_exact[stale] = True
        num_looked_at = min(2 * num_looked_at, _MAX_LOOKED_AT)
