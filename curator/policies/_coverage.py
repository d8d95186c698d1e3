"""Greedy facility location, exact, without a matrix of all similarities.

A pair of examples matters while its similarity is above what the second one is covered
with already, and coverage only grows. So a pair that has stopped to matter never
matters again, and after some choices those that are left (3 % after a dozen is usual)
are few enough to be kept: from then on there are no more matrix products.

Shapes: ``n`` is the number of examples, ``D`` the width of an embedding, ``K`` how many
are taken, ``m`` of those looked at.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from curator.policies._embeddings import coarse, coarse_one

__all__ = ["Coverage"]

# All similarities are kept where they are no more than this many (2 GiB).
_MAX_KEPT = 1 << 29

# Pairs that are kept (8 bytes each), and the largest part of all pairs that is worth
# it; how many candidates say what part that is.
_MAX_PAIRS = 1 << 28
_MAX_SHARE = 1 / 16
_SAMPLE = 64

# Similarities that are made at once, to stay in the cache while they are summed; and
# how many candidates are looked at together, at most.
_TILE = 1 << 18
_SIDE = 512
_MAX_LOOKED_AT = 1024

# What a similarity has to be above coverage to count. Less is what rounding makes of
# the similarity of an example to a copy of it.
_ROUNDING = np.float32(2.5e-7)


class Coverage:
    """How well each example is covered by those taken; takes what adds most to it.

    Attributes:
        current: The similarity of each example to the most similar one taken; 0 at
            first.
    """

    def __init__(
        self, rows: Float32[np.ndarray, "n D"], ranks: Int64[np.ndarray, " n"]
    ) -> None:
        """Starts with nothing taken.

        Args:
            rows: Embeddings of length one. The similarity is (1 + cosine) / 2.
            ranks: Of equal gains that with the lowest of these is taken.
        """
        self._rows = rows
        self._ranks = ranks
        self._taken: list[int] = []
        self._gains: list[float] = []
        self.current: Float32[np.ndarray, " n"] = np.zeros(len(rows), np.float32)
        self._all: Float32[np.ndarray, "n n"] | None = None

    def take(
        self, num_taken: int
    ) -> tuple[Int64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
        """Returns the examples that are taken, in order, and what each added.

        Args:
            num_taken: In [1, n].
        """
        # Nothing is covered, so that the sum over all examples is one product.
        total = self._rows.sum(axis=0, dtype=np.float64)
        bounds = (len(self._rows) + self._rows @ total) / 2
        self._take_best(coarse(bounds), bounds)
        if num_taken > 1:
            bounds = self._gains_of_all()
            bounds[self._taken] = -np.inf
            self._take_by_products(bounds, num_taken)
        if len(self._taken) < num_taken:
            self._take_by_pairs(bounds, num_taken)
        return np.array(self._taken), np.array(self._gains)

    def _take_by_products(
        self, bounds: Float64[np.ndarray, " n"], num_taken: int
    ) -> None:
        """Takes while too many pairs matter.

        Args:
            bounds: At first what each candidate would add; lower afterwards, and still
                no less than that. Minus infinity for what is taken.
            num_taken: How many are taken at most, those before included.
        """
        sample = self._similarities(np.argsort(self._ranks)[:_SAMPLE])
        is_exact = np.ones(len(bounds), bool)
        while len(self._taken) < num_taken:
            share = float((sample > self.current).mean())
            if share <= _MAX_SHARE and share * len(bounds) ** 2 <= _MAX_PAIRS:
                return
            num_looked_at = _SAMPLE
            while True:
                keys = coarse(bounds)
                best = keys[is_exact].max(initial=-np.inf)
                # One that is out of date and equal could come first.
                stale = np.flatnonzero(~is_exact & (keys >= best))
                if not len(stale):
                    break
                if len(stale) > num_looked_at:
                    order = np.argpartition(-bounds[stale], num_looked_at)
                    stale = stale[order[:num_looked_at]]
                bounds[stale] = self._gains_of(stale)
                is_exact[stale] = True
                num_looked_at = min(2 * num_looked_at, _MAX_LOOKED_AT)
            self._take_best(keys, bounds)
            is_exact = bounds == -np.inf

    def _take_by_pairs(self, bounds: Float64[np.ndarray, " n"], num_taken: int) -> None:
        """Takes the rest by the pairs that still matter, as above."""
        blocks = self._pairs()
        self._all = None
        size = len(blocks[0].starts) - 1
        keys = zip(coarse(bounds).tolist(), self._ranks.tolist(), strict=True)
        heap = [
            (-key, rank, candidate, 0)
            for candidate, (key, rank) in enumerate(keys)
            if key > -np.inf
        ]
        heapq.heapify(heap)
        while len(self._taken) < num_taken:
            _, rank, candidate, as_of = heap[0]
            others, similarities = blocks[candidate // size].of_candidate(
                candidate % size
            )
            current = self.current[others]
            if as_of < len(self._taken):
                above = similarities - current
                gain = float(above[above > _ROUNDING].sum(dtype=np.float64))
                bounds[candidate] = gain
                entry = (-coarse_one(gain), rank, candidate, len(self._taken))
                heapq.heapreplace(heap, entry)
                continue
            heapq.heappop(heap)
            self._taken.append(candidate)
            self._gains.append(float(bounds[candidate]))
            self.current[others] = np.maximum(current, similarities)

    def _take_best(
        self, keys: Float64[np.ndarray, " n"], bounds: Float64[np.ndarray, " n"]
    ) -> None:
        """Takes the first by rank of those with the highest key."""
        equal = np.flatnonzero(keys == keys.max())
        best = int(equal[np.argmin(self._ranks[equal])])
        self._taken.append(best)
        self._gains.append(float(bounds[best]))
        bounds[best] = -np.inf
        similarities = self._similarities(np.array([best]))[0]
        np.maximum(self.current, similarities, out=self.current)

    def _similarities(
        self, candidates: Int64[np.ndarray, " m"], others: slice = slice(None)
    ) -> Float32[np.ndarray, "m _"]:
        if self._all is not None:
            return self._all[candidates, others]
        return _to_similarities(self._rows[candidates] @ self._rows[others].T)

    def _gains_of(
        self, candidates: Int64[np.ndarray, " m"]
    ) -> Float64[np.ndarray, " m"]:
        """Returns what each candidate would add."""
        gains = np.zeros(len(candidates))
        for others in _blocks(len(self._rows), max(_TILE // len(candidates), _SIDE)):
            tile = self._similarities(candidates, others)
            gains += _sums_above(tile, self.current[others])
        return gains

    def _gains_of_all(self) -> Float64[np.ndarray, " n"]:
        """Returns what every candidate would add; each pair is multiplied once.

        Where all similarities can be kept, they are from here on.
        """
        size = len(self._rows)
        gains = np.zeros(size)
        kept = np.empty((size, size) if size**2 <= _MAX_KEPT else (0, 0), np.float32)
        blocks = _blocks(size, _SIDE)
        for place, own in enumerate(blocks):
            for other in blocks[place:]:
                tile = _to_similarities(self._rows[own] @ self._rows[other].T)
                if len(kept):
                    kept[own, other] = tile
                    kept[other, own] = tile.T
                gains[own] += _sums_above(tile, self.current[other])
                if other is not own:
                    gains[other] += _sums_above_columns(tile, self.current[own])
        self._all = kept if len(kept) else None
        return gains

    def _pairs(self) -> list[_Pairs]:
        """Returns the pairs that matter, in blocks of equally many candidates."""
        return [
            _Pairs.of(self._similarities(np.arange(len(self._rows))[own]), self.current)
            for own in _blocks(len(self._rows), _SIDE)
        ]


class _Pairs(NamedTuple):
    """What some candidates would cover better: which examples, and how similar."""

    starts: Int64[np.ndarray, " stops"]
    others: Int32[np.ndarray, " pairs"]
    similarities: Float32[np.ndarray, " pairs"]

    @classmethod
    def of(
        cls,
        similarities: Float32[np.ndarray, "m n"],
        current: Float32[np.ndarray, " n"],
    ) -> _Pairs:
        places = np.flatnonzero(similarities > current)
        width = similarities.shape[1]
        edges = np.arange(len(similarities) + 1) * width
        return cls(
            starts=np.searchsorted(places, edges),
            others=(places % width).astype(np.int32),
            similarities=similarities.ravel()[places],
        )

    def of_candidate(
        self, candidate: int
    ) -> tuple[Int32[np.ndarray, " _"], Float32[np.ndarray, " _"]]:
        start, stop = self.starts[candidate], self.starts[candidate + 1]
        return self.others[start:stop], self.similarities[start:stop]


def _blocks(size: int, block: int) -> list[slice]:
    return [slice(at, min(at + block, size)) for at in range(0, size, block)]


def _to_similarities(
    cosines: Float32[np.ndarray, "m n"],
) -> Float32[np.ndarray, "m n"]:
    cosines += 1
    cosines *= 0.5
    return cosines


def _sums_above(
    similarities: Float32[np.ndarray, "m n"], current: Float32[np.ndarray, " n"]
) -> Float32[np.ndarray, " m"]:
    """Returns the sum over each row of what is above the coverage of the columns."""
    above = similarities - (current + _ROUNDING)
    # Not a scalar 0, which NumPy compares with one number at a time.
    np.maximum(above, np.zeros(len(current), np.float32), out=above)
    return above @ np.ones(len(current), np.float32)


def _sums_above_columns(
    similarities: Float32[np.ndarray, "m n"], current: Float32[np.ndarray, " m"]
) -> Float32[np.ndarray, " n"]:
    """Returns the sum over each column of what is above the coverage of the rows."""
    above = similarities - (current + _ROUNDING)[:, None]
    np.maximum(above, np.zeros_like(similarities[0]), out=above)
    return np.ones(len(current), np.float32) @ above
