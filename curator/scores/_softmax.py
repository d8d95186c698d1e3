"""Joint scores of the softmax contrastive loss (CLIP, InfoNCE).

With logits z = scale * similarity, the loss of example i in a batch that it joins is
``softplus(row_i - z_ii) / 2 + softplus(column_i - z_ii) / 2``: ``row_i`` is the
log-sum-exp of the logits of its query with the targets of the batch so far,
``column_i`` that of its target with the queries. The example itself is part of the
denominator (the loss it would really have), and is scored as an anchor: what it adds
to the denominators of the others does not count.

Alone in a batch every example would have loss 0. The score given nothing is that of
the self term ``-z_ii`` instead, so that the first chunk is filtered like the others
(JEST, arXiv 2406.17711, on the softmax loss).

Shapes: ``B`` is the super-batch size, ``m`` rows and ``n`` columns make a tile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64

from curator.scores._pairwise import PairModel, Tiles, positive_logits
from curator.types import PairRows

__all__ = ["SoftmaxCosts"]


class SoftmaxCosts:
    """The loss of each candidate in the batch that it joins, for the softmax loss.

    Pair logits are float32, log-sum-exps over them float64. The arithmetic is that of
    :class:`curator.scores.SigmoidCosts`. A logit bias changes no loss and is ignored.

    Attributes:
        values: The losses. They only grow, but for the first examples added.
    """

    def __init__(self, model: PairModel) -> None:
        """Starts with the self term of each candidate."""
        self._positives = positive_logits(model)
        self.values: Float64[np.ndarray, " B"] = -self._positives
        # Over rows of queries, and over columns of targets.
        self._log_sums = np.full((2, len(self.values)), -np.inf)
        self._tiles = Tiles(model)

    def add(self, rows: PairRows, blocks: Sequence[Int64[np.ndarray, " _"]]) -> None:
        """Adds examples to the candidates of some blocks; see :meth:`Tiles.between`."""
        for columns, logits, *_ in self._tiles.between(rows, blocks):
            log_sums = np.logaddexp(self._log_sums[:, columns], _log_sum_exp(logits))
            self._log_sums[:, columns] = log_sums
            margins = log_sums - self._positives[columns]
            self.values[columns] = np.logaddexp(0, margins).mean(axis=0)

    def leave_alone(self, candidates: Int64[np.ndarray, " n"]) -> None:
        """Makes self terms bounds of losses, which are not negative."""
        self.values[candidates] = 0


def _log_sum_exp(logits: Float32[np.ndarray, "2 m n"]) -> Float64[np.ndarray, "2 n"]:
    """Returns the log-sum-exp over rows. Overwrites ``logits``."""
    highest = logits.max(axis=1)
    logits -= highest[:, None]
    np.exp(logits, out=logits)
    return highest + np.log(logits.sum(axis=1, dtype=np.float64))
