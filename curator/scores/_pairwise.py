"""The tiles of pair logits that joint scores are computed from.

The joint score of a batch is a sum over its pairs, and a B x B matrix of them would
hold it. Nothing here makes one: when a chunk of m examples is added, the scores of the
others change only by their pairs with that chunk, so tiles of m rows and a block of
columns are made, reduced to one value per column and dropped.

Shapes: ``B`` is the super-batch size, ``D`` the embedding width, ``m`` the number of
examples in a chunk, ``n`` the number of candidates in a block of columns.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from curator.types import PairEmbeddings, PairRows

__all__ = [
    "BLOCK_SIZE",
    "PairModel",
    "Tiles",
    "pair_models",
    "positive_logits",
    "usable_rows",
]

BLOCK_SIZE = 4096
"""How many candidates are multiplied together, see :class:`PairScores`."""

# A tile of both directions is at most 2 MiB in float32: it stays in the cache while it
# is reduced, and is large enough for the matrix product to run at full speed. One of
# few columns has more rows.
_MAX_COLUMNS = 1024
_MAX_ROWS = 512
_MAX_SIZE = 256 * _MAX_COLUMNS

Tile: TypeAlias = Float32[np.ndarray, "2 m n"]


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
        lengths: Float32[np.ndarray, "2 B"] | None = None,
    ) -> PairModel:
        """Returns the model of some rows, normalised again in float32.

        Rounding embeddings to half precision changes their length, and with a large
        logit scale that changes logits visibly.

        Args:
            embeddings: Those of all candidates.
            coefficient: What the model's costs are multiplied by.
            rows: Which candidates, in the order to keep.
            lengths: Of queries and targets, where they are known already.
        """
        if lengths is None:
            lengths = _lengths(embeddings)
        return cls(
            coefficient=coefficient,
            queries=_unit_rows(embeddings.queries, lengths[0], rows),
            targets=_unit_rows(embeddings.targets, lengths[1], rows),
            logit_scale=embeddings.logit_scale,
            logit_bias=embeddings.logit_bias or 0.0,
        )

    def scaled(self, rows: PairRows) -> PairRows:
        """Returns examples of which products with candidates are logits, but for bias.

        Args:
            rows: Embeddings of this model, also of candidates of another shard.
        """
        return rows * np.float32(self.logit_scale)


def usable_rows(embeddings: PairEmbeddings) -> Bool[np.ndarray, " B"]:
    """Returns which rows can be normalised: finite, and not zero, on both sides."""
    return _usable(_lengths(embeddings))


def pair_models(
    parts: Sequence[tuple[float, PairEmbeddings]], order: Int64[np.ndarray, " B"]
) -> tuple[Int64[np.ndarray, " n"], list[PairModel]]:
    """Returns which places of ``order`` all models can use, and the models of these.

    Args:
        parts: The coefficient and the embeddings of each model.
        order: All rows, in the order to keep.
    """
    lengths = [_lengths(embeddings) for _, embeddings in parts]
    usable = np.ones(len(order), bool)
    for each in lengths:
        usable &= _usable(each)
    places = np.flatnonzero(usable[order])
    models = [
        PairModel.of(embeddings, coefficient, order[places], each)
        for (coefficient, embeddings), each in zip(parts, lengths, strict=True)
    ]
    return places, models


def positive_logits(model: PairModel) -> Float64[np.ndarray, " B"]:
    """Returns the logit of every query with its own target."""
    similarity = np.einsum("ij,ij->i", model.queries, model.targets, dtype=np.float64)
    return model.logit_scale * similarity + model.logit_bias


class Tiles:
    """Makes the logits of pairs of one model, in memory that is used again.

    Fresh memory would cost as much as the arithmetic, in page faults.
    """

    def __init__(self, model: PairModel) -> None:
        """Takes the memory of one tile."""
        self._model = model
        num_candidates, width = model.queries.shape
        self._memory = np.empty((3, 2 * _MAX_SIZE), np.float32)
        num_columns = min(num_candidates, _MAX_COLUMNS)
        self._gathered = np.empty((2, num_columns, width), np.float32)

    def between(
        self, rows: PairRows, blocks: Iterable[Int64[np.ndarray, " _"]]
    ) -> Iterator[tuple[Int64[np.ndarray, " n"], Tile, Tile, Tile]]:
        """Yields the logits of all pairs between examples and candidates.

        Args:
            rows: The examples, as :meth:`PairModel.scaled` returns them.
            blocks: Candidates. How a logit is rounded depends on its block alone.

        Yields:
            Candidates of a block; the logits; two spare arrays of their shape. The
            logit at ``[0, x, j]`` is that of the query of example x with the target of
            candidate j, at ``[1, x, j]`` of the target of x with the query of j. All
            three may be written to, until the next tile.
        """
        model, bias = self._model, np.float32(self._model.logit_bias)
        for columns in (
            block[cut] for block in blocks for cut in _parts(len(block), _MAX_COLUMNS)
        ):
            theirs = self._gathered[:, : len(columns)]
            for direction, side in enumerate((model.targets, model.queries)):
                # "clip", because the default mode would copy through a buffer.
                np.take(side, columns, axis=0, out=theirs[direction], mode="clip")
            num_rows = min(_MAX_ROWS, _MAX_SIZE // len(columns))
            for part in _parts(rows.shape[1], num_rows):
                ours = rows[:, part]
                shape = (2, ours.shape[1], len(columns))
                tiles = self._memory[:, : math.prod(shape)].reshape(3, *shape)
                logits, first, second = tiles
                for direction in range(2):
                    others = theirs[direction].T
                    np.matmul(ours[direction], others, out=logits[direction])
                logits += bias
                yield columns, logits, first, second


def _parts(length: int, limit: int) -> list[slice]:
    """Returns near-equal parts of ``range(length)``, each of at most ``limit``."""
    num_parts = -(-length // limit)
    edges = [length * part // max(num_parts, 1) for part in range(num_parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(edges)]


def _lengths(embeddings: PairEmbeddings) -> Float32[np.ndarray, "2 B"]:
    """Returns the lengths of the queries and of the targets."""
    sides = embeddings.queries, embeddings.targets
    squares = [np.einsum("ij,ij->i", side, side, dtype=np.float64) for side in sides]
    # A length that float32 cannot hold becomes infinite or zero: an unusable row.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.sqrt(squares).astype(np.float32)


def _usable(lengths: Float32[np.ndarray, "2 B"]) -> Bool[np.ndarray, " B"]:
    usable = np.isfinite(lengths) & (lengths > 0)
    return usable[0] & usable[1]


def _unit_rows(
    vectors: Float[np.ndarray, "B D"],
    lengths: Float32[np.ndarray, " B"],
    rows: Int64[np.ndarray, " n"],
) -> Float32[np.ndarray, "n D"]:
    # take is faster than indexing.
    chosen = np.take(vectors, rows, axis=0).astype(np.float32, copy=False)
    chosen /= lengths[rows, None]
    return chosen
