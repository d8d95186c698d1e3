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
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from curator.types import PairEmbeddings, PairRows

__all__ = [
    "BLOCK_SIZE",
    "JointScores",
    "PairModel",
    "PairScores",
    "Remaining",
    "logit_tiles",
    "pair_models",
    "positive_logits",
    "usable_rows",
]

# A tile of both directions is at most 2 MiB in float32: it stays in the cache while it
# is reduced, and is large enough for the matrix product to run at full speed.
_MAX_ROWS = 256
BLOCK_SIZE = 1024


Tile: TypeAlias = Float32[np.ndarray, "2 m n"]


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


@runtime_checkable
class PairScores(JointScores, Protocol):
    """Joint scores that are computed from embeddings, here or for other shards too.

    Adding candidates is to take their embeddings and then to add these; examples that
    lie on another shard are added by their embeddings alone.
    """

    def take_rows(self, chunk: Int64[np.ndarray, " m"]) -> list[PairRows]:
        """Returns the embeddings of candidates, by model, and scores them no more."""
        ...

    def add_rows(self, rows: Sequence[PairRows]) -> None:
        """Adds examples that are not scored here, or no more, by their embeddings."""
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


class Remaining:
    """The candidates that were not added yet, in blocks that are multiplied together.

    Blocks are of the candidates' places before unusable ones were left out, and no
    candidate changes its block. A BLAS rounds a logit by where in a product it is: so
    rounding depends on nothing outside the block, and shards of whole blocks round
    alike.

    Attributes:
        blocks: Candidates by position, increasing.
    """

    def __init__(
        self, models: Sequence[PairModel], places: Int64[np.ndarray, " n"] | None
    ) -> None:
        """Args: places: Of each row of the models, increasing; None for all of them."""
        rows = np.arange(len(models[0].queries))
        of_row = (rows if places is None else places) // BLOCK_SIZE
        self._models = models
        self.blocks = np.split(rows, np.flatnonzero(np.diff(of_row)) + 1)

    def take(self, chunk: Int64[np.ndarray, " m"]) -> list[PairRows]:
        """Removes candidates and returns their embeddings, by model."""
        is_left = np.ones(len(self._models[0].queries), bool)
        is_left[chunk] = False
        self.blocks = [block[is_left[block]] for block in self.blocks]
        return [
            np.stack([model.queries[chunk], model.targets[chunk]])
            for model in self._models
        ]


def positive_logits(model: PairModel) -> Float64[np.ndarray, " B"]:
    """Returns the logit of every query with its own target."""
    similarity = np.einsum("ij,ij->i", model.queries, model.targets, dtype=np.float64)
    return model.logit_scale * similarity + model.logit_bias


def logit_tiles(
    model: PairModel, chunk: PairRows, blocks: Sequence[Int64[np.ndarray, " _"]]
) -> Iterator[tuple[Int64[np.ndarray, " n"], Tile, Tile, Tile]]:
    """Yields the logits of all pairs between a chunk and other candidates.

    Args:
        model: The model.
        chunk: Its embeddings of the chunk.
        blocks: The candidates of each column of tiles.

    Yields:
        A block; the logits; two spare arrays of their shape. The logit at ``[0, x, j]``
        is that of the query of example x of the chunk with the target of candidate j
        of the block, at ``[1, x, j]`` of the target of x with the query of j. All three
        may be written to, and are reused for the next tile: fresh ones would cost as
        much as the arithmetic, in page faults.
    """
    scale, bias = np.float32(model.logit_scale), np.float32(model.logit_bias)
    num_examples, width = chunk.shape[1:]
    num_columns = max(len(block) for block in blocks)
    memory = np.empty((3, 2 * min(num_examples, _MAX_ROWS) * num_columns), np.float32)
    gathered = np.empty((num_columns, width), np.float32)
    for part in _parts(num_examples, _MAX_ROWS):
        ours = chunk[:, part] * scale
        for block in filter(len, blocks):
            shape = (2, ours.shape[1], len(block))
            logits, first, second = memory[:, : math.prod(shape)].reshape(3, *shape)
            theirs = gathered[: len(block)]
            for direction, side in enumerate((model.targets, model.queries)):
                # "clip", because the default mode would copy through a buffer.
                np.take(side, block, axis=0, out=theirs, mode="clip")
                np.matmul(ours[direction], theirs.T, out=logits[direction])
            logits += bias
            yield block, logits, first, second


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
