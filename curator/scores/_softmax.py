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

from curator.scores._pairwise import (
    PairModel,
    Remaining,
    logit_tiles,
    positive_logits,
)
from curator.types import PairRows

__all__ = ["SoftmaxScores"]


class SoftmaxScores:
    """The score of every candidate given those added, for the softmax loss.

    Pair logits are float32, log-sum-exps over them float64. The cost is that of
    :class:`curator.scores.SigmoidScores`. A logit bias changes no loss and is ignored.
    """

    def __init__(
        self,
        models: Sequence[PairModel],
        places: Int64[np.ndarray, " B"] | None = None,
    ) -> None:
        """Args: places: Of each row of the models; see :class:`Remaining`."""
        self._models = models
        self._positives = [positive_logits(model) for model in models]
        num_candidates = len(models[0].queries)
        # Per model: over rows of queries, and over columns of targets.
        self._log_sums = [np.full((2, num_candidates), -np.inf) for _ in models]
        self._scores = np.zeros(num_candidates)
        for model, positives in zip(models, self._positives, strict=True):
            self._scores -= model.coefficient * positives
        self._remaining = Remaining(models, places)

    def scores(self) -> Float64[np.ndarray, " B"]:
        """Returns the scores given the candidates added so far."""
        return self._scores.copy()

    def add(self, chunk: Int64[np.ndarray, " m"]) -> None:
        """Adds candidates, by position."""
        self.add_rows(self.take_rows(chunk))

    def take_rows(self, chunk: Int64[np.ndarray, " m"]) -> list[PairRows]:
        """Returns the embeddings of candidates, by model, and scores them no more."""
        return self._remaining.take(chunk)

    def add_rows(self, rows: Sequence[PairRows]) -> None:
        """Adds examples that are not scored here, or no more, by their embeddings."""
        others = np.concatenate(self._remaining.blocks)
        self._scores[others] = 0
        for model, positives, log_sums, chunk in zip(
            self._models, self._positives, self._log_sums, rows, strict=True
        ):
            for columns, logits, *_ in logit_tiles(
                model, chunk, self._remaining.blocks
            ):
                log_sums[:, columns] = np.logaddexp(
                    log_sums[:, columns], _log_sum_exp(logits)
                )
            margins = log_sums[:, others] - positives[others]
            losses = np.logaddexp(0, margins).mean(axis=0)
            self._scores[others] += model.coefficient * losses


def _log_sum_exp(logits: Float32[np.ndarray, "2 m n"]) -> Float64[np.ndarray, "2 n"]:
    """Returns the log-sum-exp over rows. Overwrites ``logits``."""
    highest = logits.max(axis=1)
    logits -= highest[:, None]
    np.exp(logits, out=logits)
    return highest + np.log(logits.sum(axis=1, dtype=np.float64))
