"""The pass over all pairs of examples that greedy facility location makes.

Shapes: ``n`` is the number of examples, ``D`` the width of an embedding, ``m`` the
number of candidates looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt16

from curator.progress import Progress

__all__ = [
    "BLOCK",
    "ROUNDING",
    "Foreseen",
    "Pairs",
    "Survey",
    "blocks_of",
    "sums_above",
]

# What a cosine has to be above coverage to count, where that is a matter of yes or no.
# Less is what rounding makes of the cosine of an example to a copy of it.
ROUNDING = np.float32(5e-7)

# Examples in a block: cosines between two stay in the cache while they are summed.
BLOCK = 512


class Foreseen(NamedTuple):
    """What is likely to be taken next.

    Attributes:
        covered: The largest cosines to one taken: now, and after each of the choices.
        cosines: Of all examples to the first ones, the sample.
        keeps_pairs: Whether the pairs that matter at the end are to be kept.
    """

    covered: Float32[np.ndarray, "states n"]
    cosines: Float32[np.ndarray, "n sample"]
    keeps_pairs: bool


class Survey:
    """What one pass over all pairs finds.

    Attributes:
        gains: What each candidate would add, by how many of the choices foreseen were
            made before.
        pairs: Those that matter after all of these, if they are kept.
    """

    def __init__(self, rows: Float32[np.ndarray, "n D"], foreseen: Foreseen) -> None:
        num_steps = len(foreseen.covered) - 1
        # The gains before twice as many choices are too low for most candidates.
        steps = [2**k - 1 for k in range(num_steps) if 2**k <= num_steps]
        self.gains = {step: np.zeros(len(rows)) for step in steps}
        self._covered = foreseen.covered
        self._keeps_pairs = foreseen.keeps_pairs
        self._examples = np.arange(len(rows), dtype=np.int32)
        self._blocks = blocks_of(len(rows))
        self._found: list[list[_Found]] = [[] for _ in self._blocks]
        self._above = np.empty(BLOCK**2, np.float32)
        buffer = np.empty(BLOCK**2, np.float32)
        kept: list[_OfBlock] = []
        num_sampled = foreseen.cosines.shape[1]
        num_pairs = len(rows) * (len(rows) + 1) // 2
        with Progress("facility_location: cosines", num_pairs, "pairs") as progress:
            for place, own in enumerate(self._blocks):
                for there, other in enumerate(self._blocks[place:], place):
                    if own.stop <= num_sampled:
                        self._add(foreseen.cosines[other, own], there, place)
                    else:
                        cosines = _like(buffer, rows[own], rows[other])
                        np.matmul(rows[own], rows[other].T, out=cosines)
                        self._add(cosines, place, there)
                # Of these with themselves and with all that come after.
                size, num_left = own.stop - own.start, len(rows) - own.start
                progress.advance(size * num_left - size * (size - 1) // 2)
                if foreseen.keeps_pairs:
                    kept.append(_OfBlock.of(self._found[place]))
                    self._found[place] = []
        self.pairs = Pairs(kept) if foreseen.keeps_pairs else None

    def _add(
        self, cosines: Float32[np.ndarray, "m n"], of_rows: int, of_columns: int
    ) -> None:
        """Adds the cosines between two blocks of examples to both."""
        self._add_one(cosines, of_rows, of_columns, 1)
        if of_rows != of_columns:
            self._add_one(cosines, of_columns, of_rows, 0)

    def _add_one(
        self, cosines: Float32[np.ndarray, "m n"], own: int, other: int, axis: int
    ) -> None:
        """Adds them to a block of candidates; the others are along that axis."""
        others = self._blocks[other]
        for step, gains in self.gains.items():
            covered = self._covered[step][others]
            above = _like(self._above, cosines, cosines.T)
            gains[self._blocks[own]] += sums_above(cosines, covered, axis, above)
        if self._keeps_pairs:
            covered = self._covered[-1][others] + ROUNDING
            matters = cosines > (covered if axis == 1 else covered[:, None])
            found = _Found.where(matters, cosines, self._examples[others], axis)
            self._found[own].append(found)


class _Found(NamedTuple):
    """The pairs that matter of two blocks, of each candidate in order of the others.

    Attributes:
        candidates: Which of the block.
        others: Which examples these would cover better.
        cosines: Between the two.
    """

    candidates: UInt16[np.ndarray, " pairs"]
    others: Int32[np.ndarray, " pairs"]
    cosines: Float32[np.ndarray, " pairs"]

    @classmethod
    def where(
        cls,
        matters: Bool[np.ndarray, "m n"],
        cosines: Float32[np.ndarray, "m n"],
        examples: Int32[np.ndarray, " others"],
        axis: int,
    ) -> _Found:
        """Returns the pairs of some places.

        Args:
            matters: Which.
            cosines: Of a block of candidates and of others.
            examples: Which the others are, in order.
            axis: That of the others.
        """
        places = np.flatnonzero(matters)
        rows = places // matters.shape[1]
        columns = places - rows * matters.shape[1]
        candidates, others = (rows, columns) if axis == 1 else (columns, rows)
        return cls(
            candidates.astype(np.uint16),
            examples[others],
            cosines.reshape(-1)[places],
        )


class _OfBlock(NamedTuple):
    """The pairs that matter of a block of candidates, one candidate after the other.

    Attributes:
        starts: Where those of each candidate start, and where the last ones end.
        others: Which examples it would cover better.
        cosines: To these.
    """

    starts: Int64[np.ndarray, " stops"]
    others: Int32[np.ndarray, " pairs"]
    cosines: Float32[np.ndarray, " pairs"]

    @classmethod
    def of(cls, found: list[_Found]) -> _OfBlock:
        """Puts pairs in order, those found with a block of others after another."""
        parts = zip(*found, strict=True)
        candidates, others, cosines = (np.concatenate(part) for part in parts)
        # Of 16 bits this takes one pass; stable, so that the others stay in order.
        order = np.argsort(candidates, kind="stable")
        counts = np.bincount(candidates, minlength=BLOCK)
        starts = np.concatenate([[0], np.cumsum(counts)])
        return cls(starts, others[order], cosines[order])

    def found(self) -> _Found:
        """Returns the pairs as :meth:`of` takes them."""
        candidates = np.arange(BLOCK, dtype=np.uint16)
        of = np.repeat(candidates, np.diff(self.starts))
        return _Found(of, self.others, self.cosines)

    def where(self, kept: Bool[np.ndarray, " pairs"]) -> _OfBlock:
        """Returns some of the pairs."""
        places = np.flatnonzero(kept)
        starts = np.searchsorted(places, self.starts)
        return _OfBlock(starts, self.others[places], self.cosines[places])


class Pairs:
    """The pairs that matter."""

    def __init__(self, blocks: list[_OfBlock]) -> None:
        self._blocks = blocks
        self._starts: list[list[int]] = [block.starts.tolist() for block in blocks]

    def gains_of(
        self, candidates: Int64[np.ndarray, " m"], covered: Float32[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " m"]:
        """Returns what each candidate would add."""
        found = [self._of(place) for place in candidates.tolist()]
        above = np.concatenate([cosines for _, cosines in found])
        above -= covered[np.concatenate([others for others, _ in found])]
        above *= above > ROUNDING
        of = np.repeat(np.arange(len(found)), [len(others) for others, _ in found])
        gains = np.bincount(of, weights=above, minlength=len(found))
        # It has counted in whole numbers if there is not one pair.
        return gains.astype(np.float64, copy=False)

    def cover(self, candidate: int, covered: Float32[np.ndarray, " n"]) -> None:
        """Raises coverage to that with the candidate."""
        others, cosines = self._of(candidate)
        covered[others] = np.maximum(covered[others], cosines)

    def drop_covered(self, covered: Float32[np.ndarray, " n"]) -> None:
        """Drops the pairs that matter no more."""
        for place, block in enumerate(self._blocks):
            matters = block.cosines > covered[block.others] + ROUNDING
            self._put(place, block.where(matters))

    def replace(
        self,
        rows: Float32[np.ndarray, "n D"],
        others: Int64[np.ndarray, " others"],
        covered: Float32[np.ndarray, " n"],
    ) -> None:
        """Finds the pairs with some examples anew.

        Args:
            rows: The embeddings.
            others: Those that candidates may cover better, in order.
            covered: How well they are covered, all of them.
        """
        if len(others) == 0:
            return
        is_found = np.zeros(len(rows), bool)
        is_found[others] = True
        for place, own in enumerate(blocks_of(len(rows))):
            cosines = rows[own] @ rows[others].T
            matters = cosines > covered[others] + ROUNDING
            more = _Found.where(matters, cosines, others.astype(np.int32), 1)
            old = self._blocks[place]
            kept = old.where(~is_found[old.others]).found()
            self._put(place, _OfBlock.of([kept, more]))

    def _put(self, place: int, block: _OfBlock) -> None:
        self._blocks[place] = block
        self._starts[place] = block.starts.tolist()

    def _of(
        self, candidate: int
    ) -> tuple[Int32[np.ndarray, " _"], Float32[np.ndarray, " _"]]:
        """Returns which examples a candidate would cover better, and its cosines."""
        place, row = divmod(candidate, BLOCK)
        block, starts = self._blocks[place], self._starts[place]
        own = slice(starts[row], starts[row + 1])
        return block.others[own], block.cosines[own]


def blocks_of(size: int, block: int = BLOCK) -> list[slice]:
    """Returns places in blocks, in order."""
    return [slice(at, min(at + block, size)) for at in range(0, size, block)]


def _like(
    buffer: Float32[np.ndarray, " _"], rows: np.ndarray, columns: np.ndarray
) -> Float32[np.ndarray, "m n"]:
    """Returns a part of a buffer, with a row for each row, a column for each column."""
    return buffer[: len(rows) * len(columns)].reshape(len(rows), len(columns))


def sums_above(
    cosines: Float32[np.ndarray, "m n"],
    covered: Float32[np.ndarray, " others"],
    axis: int,
    above: Float32[np.ndarray, "m n"] | None = None,
) -> Float32[np.ndarray, " candidates"]:
    """Returns the sums along an axis of what is above the coverage there.

    Args:
        cosines: Of candidates and others.
        covered: Of the others.
        axis: That of the others.
        above: Where to work.
    """
    above = np.subtract(cosines, covered if axis == 1 else covered[:, None], out=above)
    # Not a scalar 0, which NumPy compares with one number at a time.
    np.maximum(above, np.zeros_like(above[0]), out=above)
    ones = np.ones(len(covered), np.float32)
    return above @ ones if axis == 1 else ones @ above
