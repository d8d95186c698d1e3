"""Joint scores of a super-batch whose embeddings lie in shards.

A candidate's score changes by its pairs with the drawn chunk, and by nothing else, so
each shard keeps the scores of its own rows. A chunk costs a few calls: its embeddings
are taken from the shards that hold them, and given to all shards, which answer with
their bounds; then scores are asked for, of the candidates that may be drawn. K
embeddings travel in all, and B bounds per chunk; no embedding of a candidate that was
not drawn.

Shapes: ``B`` is the super-batch size, ``n`` the number of usable candidates, ``m`` the
number of examples in a chunk, ``_`` that of rows of a shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from curator.scores._joint import PairScores
from curator.scores._losses import PairLoss
from curator.scores._pairwise import BLOCK_SIZE, pair_models
from curator.types import PairEmbeddings, PairRows, ShardedPairs

__all__ = ["LocalShards", "PairShard", "ShardedScores", "shard_rows"]


def shard_rows(
    ids: Int64[np.ndarray, " B"], num_shards: int
) -> list[Int64[np.ndarray, " _"]]:
    """Returns which candidates each shard is to hold, in order of id.

    Shards are of whole blocks of the candidates in that order, as many as go round.
    So logits are rounded as they are on one device, see :class:`PairScores`, and the
    same batch is drawn, to the last bit, where processors and BLAS are the same. Few
    candidates make fewer shards.
    """
    num_blocks = -(-len(ids) // BLOCK_SIZE)
    blocks = np.array_split(np.arange(num_blocks), min(num_shards, num_blocks))
    edges = [BLOCK_SIZE * int(part[0]) for part in blocks[1:]]
    return np.split(np.argsort(ids), edges)


class PairShard:
    """Some candidates, where their embeddings are: what a scorer computes.

    A shard is made anew for every selection. Positions are rows of the embeddings;
    bounds have one value per row, NaN where a row is unusable.
    """

    def __init__(
        self,
        embeddings: Mapping[str, PairEmbeddings],
        loss: PairLoss,
        coefficients: Mapping[str, float],
    ) -> None:
        """Scores the rows given nothing.

        Args:
            embeddings: Those of each model, by the name of the feature.
            loss: The contrastive loss of the models.
            coefficients: What each model's costs are multiplied by.
        """
        parts = [(factor, embeddings[name]) for name, factor in coefficients.items()]
        num_rows = len(parts[0][1].queries)
        self._usable, models = pair_models(parts, np.arange(num_rows))
        self._joint = PairScores(loss, models, self._usable)
        self._positions = np.full(num_rows, -1)  # of each row, in self._usable
        self._positions[self._usable] = np.arange(len(self._usable))

    def bounds(self) -> Float64[np.ndarray, " _"]:
        """Returns what no score given the examples added so far is above."""
        bounds = np.full(len(self._positions), np.nan)
        bounds[self._usable] = self._joint.bounds()
        return bounds

    def settle(self, rows: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Returns the scores of usable rows given the examples added so far."""
        return self._joint.settle(self._positions[rows])

    def take(self, chunk: Int64[np.ndarray, " m"]) -> list[PairRows]:
        """Returns the embeddings of usable rows, by model; their scores are final."""
        return self._joint.take_rows(self._positions[chunk])

    def add(self, rows: Sequence[PairRows]) -> Float64[np.ndarray, " _"]:
        """Returns the bounds given these examples too, of this shard or of others."""
        self._joint.add_rows(rows)
        return self.bounds()


class LocalShards:
    """Shards in this process, asked one after the other.

    The simplest :class:`curator.types.ShardedPairs`; what another one answers is to
    be equal to what this one does.
    """

    def __init__(
        self,
        rows: Sequence[Int64[np.ndarray, " _"]],
        embeddings: Sequence[Mapping[str, PairEmbeddings]],
    ) -> None:
        """Holds the shards.

        Args:
            rows: Which candidates each shard holds, in order of id.
            embeddings: Of these, by the name of the feature.
        """
        self.rows = rows
        self._embeddings = embeddings
        self._shards: list[PairShard] = []

    @property
    def logits(self) -> dict[str, tuple[float, float | None]]:
        """The logit scale and bias of each model, by the name of the feature."""
        return {
            name: (embeddings.logit_scale, embeddings.logit_bias)
            for name, embeddings in self._embeddings[0].items()
        }

    def start(
        self,
        loss: PairLoss,
        coefficients: Mapping[str, float],
    ) -> list[Float64[np.ndarray, " _"]]:
        """Returns the scores of all candidates given nothing; NaN for unusable ones."""
        self._shards = [
            PairShard(embeddings, loss, coefficients) for embeddings in self._embeddings
        ]
        return [shard.bounds() for shard in self._shards]

    def take(self, chunks: Sequence[Int64[np.ndarray, " _"]]) -> list[list[PairRows]]:
        """Returns the embeddings of candidates, by model; their scores are final."""
        return [
            shard.take(chunk) for shard, chunk in zip(self._shards, chunks, strict=True)
        ]

    def add(self, rows: Sequence[PairRows]) -> list[Float64[np.ndarray, " _"]]:
        """Returns the bounds of all candidates given these examples too."""
        return [shard.add(rows) for shard in self._shards]

    def settle(
        self, chunks: Sequence[Int64[np.ndarray, " _"]]
    ) -> list[Float64[np.ndarray, " _"]]:
        """Returns the scores of candidates given the examples added so far."""
        return [
            shard.settle(chunk)
            for shard, chunk in zip(self._shards, chunks, strict=True)
        ]


class ShardedScores:
    """Joint scores of the usable candidates, in order of id, from all shards.

    Attributes:
        rows: Which candidates are usable; positions here are positions in it.
    """

    def __init__(
        self,
        pairs: ShardedPairs,
        loss: PairLoss,
        coefficients: Mapping[str, float],
        ids: Int64[np.ndarray, " B"],
    ) -> None:
        """Starts the shards."""
        self._pairs = pairs
        self._rows = np.concatenate(pairs.rows)
        # The shard of each candidate, and its row there.
        sizes = [len(rows) for rows in pairs.rows]
        self._shards, self._positions = np.empty((2, len(ids)), np.int64)
        self._shards[self._rows] = np.repeat(np.arange(len(sizes)), sizes)
        self._positions[self._rows] = np.concatenate([np.arange(n) for n in sizes])
        bounds = self._joined(pairs.start(loss, coefficients))
        order = np.argsort(ids)
        self.rows = order[~np.isnan(bounds[order])]
        self._bounds = bounds[self.rows]
        # Whose bounds are their scores: all, until something is added.
        self._is_settled = np.ones(len(self.rows), bool)
        self._never_waits = min(coefficients.values()) >= 0
        self._was_added = np.zeros(len(self.rows), bool)

    def bounds(self) -> Float64[np.ndarray, " n"]:
        """Returns what no score given the candidates added so far is above."""
        return self._bounds.copy()

    def settle(self, candidates: Int64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
        """Returns the scores of some candidates, which are their bounds from now on."""
        unsettled = candidates[~self._is_settled[candidates]]
        if len(unsettled):
            by_shard, order = self._by_shard(unsettled)
            scores = self._pairs.settle(by_shard)
            self._bounds[unsettled[order]] = np.concatenate(scores)
            self._is_settled[unsettled] = True
        return self._bounds[candidates]

    def add(self, chunk: Int64[np.ndarray, " m"]) -> None:
        """Adds candidates, by position."""
        by_shard, order = self._by_shard(chunk)
        # Sums are taken in the order of the draw, as if there were one shard.
        in_drawn_order = np.argsort(order)
        rows = [
            np.concatenate(parts, axis=1)[:, in_drawn_order]
            for parts in zip(*self._pairs.take(by_shard), strict=True)
        ]
        self._bounds = self._joined(self._pairs.add(rows))[self.rows]
        self._was_added[chunk] = True
        self._is_settled = self._was_added | self._never_waits

    def _by_shard(
        self, candidates: Int64[np.ndarray, " m"]
    ) -> tuple[list[Int64[np.ndarray, " _"]], Int64[np.ndarray, " m"]]:
        """Returns rows of each shard, and the order of candidates that they are in."""
        places = self.rows[candidates]
        shards, positions = self._shards[places], self._positions[places]
        order = np.argsort(shards, kind="stable")
        num_shards = len(self._pairs.rows)
        edges = np.searchsorted(shards[order], np.arange(1, num_shards))
        return np.split(positions[order], edges), order

    def _joined(
        self, bounds: Sequence[Float64[np.ndarray, " _"]]
    ) -> Float64[np.ndarray, " B"]:
        """Returns the bounds of all shards in order of the candidates."""
        joined = np.empty(len(self._rows))
        joined[self._rows] = np.concatenate(bounds)
        return joined
