"""What joint scores are, and the tiles of pair logits that they are computed from.

The joint score of a batch is a sum over its pairs, and a B x B matrix of them would
hold it. Nothing here makes one: when a chunk of m examples is added, the scores of the
others change only by their pairs with that chunk, so tiles of m rows and a block of
columns are made, reduced to one value per column and dropped.

Shapes: ``B`` is the super-batch size, ``D`` the embedding width, ``m`` the number of
examples in a chunk, ``n`` the number of candidates in a block of columns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from curator.types import PairEmbeddings

__all__ = ["JointScores", "PairModel", "logit_tiles", "positive_logits", "usable_rows"]

# A tile of both directions is 2 MiB in float32: it stays in the cache while it is
# reduced, and is large enough for the matrix product to run at full speed.
_MAX_ROWS = 256
_MAX_COLUMNS = 1024


Spare: TypeAlias = Float32[np.ndarray, "2 m n"]


@runtime_checkable
class JointScores(Protocol):
    """The score of every candidate given those that were added before.

    This is all that the joint policy sees of the heavy array work; another device or
    a sharded super-batch is another implementation of it.

    Constraints:
        * nothing is added at first, and each candidate is added at most once;
        * :meth:`scores` are float64 and finite, and the caller may write to them.
    """

    def scores(self) -> Float64[np.ndarray, " B"]:
        """Returns the scores given the candidates added so far.

        The score of a candidate that was added stays what it was before that.
        """
        ...

    def add(self, chunk: Int64[np.ndarray, " m"]) -> None:
        """Adds candidates, by position."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PairModel:
    """One model's part of a pair score.

    Attributes:
        coefficient: What its costs are multiplied by.
        queries: Image (or query) embeddings, rows of length one.
        targets: Text (or target) embeddings, rows of length one.
        logit_scale: The positive multiplier of similarities.
        logit_bias: What is added to the scaled similarity; 0 without one.
    """

    coefficient: float
    queries: Float32[np.ndarray, "B D"]
    targets: Float32[np.ndarray, "B D"]
    logit_scale: float
    logit_bias: float

    @classmethod
    def of(
        cls,
        embeddings: PairEmbeddings,
        coefficient: float,
        rows: Int64[np.ndarray, " n"],
    ) -> PairModel:
        """Returns the model of some rows, normalised again in float32.

        Rounding embeddings to half precision changes their length, and with a large
        logit scale that changes logits visibly.
        """
        return cls(
            coefficient=coefficient,
            queries=_unit_rows(embeddings.queries, rows),
            targets=_unit_rows(embeddings.targets, rows),
            logit_scale=embeddings.logit_scale,
            logit_bias=embeddings.logit_bias or 0.0,
        )


def usable_rows(embeddings: PairEmbeddings) -> Bool[np.ndarray, " B"]:
    """Returns which rows can be normalised: finite, and not zero, on both sides."""
    lengths = _lengths(embeddings.queries), _lengths(embeddings.targets)
    usable = [np.isfinite(length) & (length > 0) for length in lengths]
    return usable[0] & usable[1]


def positive_logits(model: PairModel) -> Float64[np.ndarray, " B"]:
    """Returns the logit of every query with its own target."""
    similarity = np.einsum("ij,ij->i", model.queries, model.targets, dtype=np.float64)
    return model.logit_scale * similarity + model.logit_bias


def logit_tiles(
    model: PairModel,
    chunk: Int64[np.ndarray, " m"],
    others: Int64[np.ndarray, " n"],
) -> Iterator[tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, "2 m n"], Spare]]:
    """Yields the logits of all pairs between a chunk and other candidates.

    Yields:
        A block of ``others``; the logits; a spare array of their shape. The logit at
        ``[0, x, j]`` is that of the query of example x of the chunk with the target of
        candidate j of the block, at ``[1, x, j]`` of the target of x with the query
        of j. Both arrays may be written to, and are reused for the next tile: fresh
        ones would cost as much as the arithmetic, in page faults.
    """
    scale, bias = np.float32(model.logit_scale), np.float32(model.logit_bias)
    num_rows, num_columns = min(len(chunk), _MAX_ROWS), min(len(others), _MAX_COLUMNS)
    memory = np.empty((2, 2 * num_rows * num_columns), np.float32)
    gathered = np.empty((num_columns, model.queries.shape[1]), np.float32)
    for rows in _blocks(chunk, _MAX_ROWS):
        queries, targets = model.queries[rows] * scale, model.targets[rows] * scale
        for columns in _blocks(others, _MAX_COLUMNS):
            shape = (2, len(rows), len(columns))
            logits, spare = memory[:, : math.prod(shape)].reshape(2, *shape)
            block = gathered[: len(columns)]
            for direction, (ours, theirs) in enumerate(
                ((queries, model.targets), (targets, model.queries))
            ):
                # "clip", because the default mode would copy through a buffer.
                np.take(theirs, columns, axis=0, out=block, mode="clip")
                np.matmul(ours, block.T, out=logits[direction])
            logits += bias
            yield columns, logits, spare


def _blocks(
    positions: Int64[np.ndarray, " n"], limit: int
) -> list[Int64[np.ndarray, " _"]]:
    """Returns ``positions`` in near-equal parts of at most ``limit``."""
    num_blocks = -(-len(positions) // limit)
    return np.array_split(positions, num_blocks) if num_blocks else []


def _lengths(vectors: Float[np.ndarray, "B D"]) -> Float32[np.ndarray, " B"]:
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    # A length that float32 cannot hold becomes infinite or zero: an unusable row.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.sqrt(squares).astype(np.float32)


def _unit_rows(
    vectors: Float[np.ndarray, "B D"], rows: Int64[np.ndarray, " n"]
) -> Float32[np.ndarray, "n D"]:
    chosen = vectors[rows].astype(np.float32, copy=False)
    chosen /= _lengths(chosen)[:, None]
    return chosen
