"""Chunked joint sampling: the batch is scored, not the example (JEST).

Shapes: ``B`` is the super-batch size, ``K`` the batch size, ``n`` the number of
candidates with usable embeddings.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, get_args

import numpy as np
from jaxtyping import Float64, Int64

from curator.policies._features import check_num_selected, read_joint_scores
from curator.policies._quarantine import complete
from curator.policies._ranking import highest
from curator.rng import Noise
from curator.scores import SCORES, JointScores, PairLoss, PairScoreName
from curator.types import JointFeatures, Selection

__all__ = ["Joint", "chunk_sizes", "draw_jointly"]

# How many candidates are settled at once, times those wanted. Fewer would leave more
# alone, but small matrix products are slow ones.
_NUM_AT_ONCE = 3
_LOWEST = np.finfo(np.float64).min  # of a candidate that can be drawn
# Of how many candidates the interactions are measured: to settle them all would cost
# as much as the draw.
_SAMPLE_SIZE = 256


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """Prefers batches whose examples score high together, as contrastive losses do.

    The batch grows in chunks. Each is drawn without replacement from a softmax over
    the scores of the remaining candidates *given those already chosen*; terms between
    examples of one chunk count only afterwards. One chunk is independent sampling by
    each pair's own score, K chunks is one-at-a-time conditional sampling; 16 are as
    good as many more.

    Use it for contrastive image-text (or query-document) training with large batches;
    with small ones it does about as well as :class:`curator.policies.TopK`, which is
    cheaper. Costs O(B K D) and no B x B memory. Random unless ``temperature`` is 0.

    Source: Evans et al. 2024, "Data curation via joint example selection further
    accelerates multimodal learning", arXiv 2406.17711.

    Attributes:
        score: What is ranked by. The default, the number of chunks and the temperature
            are the paper's.
        loss: The contrastive loss that the models are trained with.
        num_chunks: In how many near-equal chunks the batch is drawn; at most K.
        temperature: What scores are divided by before the softmax; 0 takes the highest.

    Stats: ``num_quarantined``, ``num_topped_up``; ``score_mean``, of the chosen, as
    they were drawn; ``diagonal_std``, the spread of the candidates' own scores;
    ``interaction_mean`` and ``interaction_std``, of what the chosen examples add to
    the scores of the candidates of the last chunk. Where ``interaction_std`` is small
    beside ``diagonal_std``, joint selection is independent selection.
    """

    name: ClassVar[str] = "joint"

    score: PairScoreName = "learnability"
    loss: PairLoss = "sigmoid"
    num_chunks: int = 16
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.score not in get_args(PairScoreName):
            allowed = ", ".join(get_args(PairScoreName))
            msg = f"score must be one of {allowed}; got {self.score!r}"
            raise ValueError(msg)
        if self.loss not in get_args(PairLoss):
            allowed = ", ".join(get_args(PairLoss))
            msg = f"loss must be one of {allowed}; got {self.loss!r}"
            raise ValueError(msg)
        if self.num_chunks < 1:
            msg = f"num_chunks must be at least 1; got {self.num_chunks}"
            raise ValueError(msg)
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            msg = (
                "temperature must be finite and at least 0 (0 takes the highest "
                f"scores); got {self.temperature}"
            )
            raise ValueError(msg)

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings of each model that the score is made of."""
        return frozenset(
            f"{model}.embeddings" for model, _ in SCORES[self.score].models
        )

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: JointFeatures,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns a batch drawn jointly, in draw order.

        Embeddings may be :class:`curator.types.ShardedPairs`: the same batch then, but
        for rounding, is drawn without having them here.

        Raises:
            FeatureError: A needed feature is missing or of the wrong shape, or a model
                has no logit bias and the loss is sigmoid.
            ValueError: ``num_selected`` is out of range or below ``num_chunks``.
        """
        check_num_selected(ids, num_selected)
        if self.num_chunks > num_selected:
            msg = (
                f"num_chunks must be at most num_selected; got num_chunks="
                f"{self.num_chunks} for num_selected={num_selected}"
            )
            raise ValueError(msg)
        rows, joint = read_joint_scores(features, self.score, self.loss, ids)
        usable = np.zeros(len(ids), bool)
        usable[rows] = True
        alone = joint.bounds()
        sizes = chunk_sizes(min(num_selected, len(rows)), self.num_chunks)
        drawn = draw_jointly(joint, ids[rows], sizes, self.temperature, noise)
        return complete(
            rows[drawn],
            joint.settle(drawn),
            usable=usable,
            ids=ids,
            num_selected=num_selected,
            noise=noise,
            stats=_diagnostics(alone, joint, drawn[: sum(sizes[:-1])]),
        )


def chunk_sizes(num_drawn: int, num_chunks: int) -> list[int]:
    """Returns near-equal positive sizes that sum to ``num_drawn``, larger ones first.

    With fewer than ``num_chunks`` to draw there are fewer chunks.
    """
    base, rest = divmod(num_drawn, num_chunks)
    sizes = [base + (chunk < rest) for chunk in range(num_chunks)]
    return [size for size in sizes if size]


def draw_jointly(
    joint: JointScores,
    ids: Int64[np.ndarray, " n"],
    sizes: Sequence[int],
    temperature: float,
    noise: Noise,
) -> Int64[np.ndarray, " K"]:
    """Draws chunk after chunk, each given those before it.

    The top m of logits plus Gumbel noise are m successive draws without replacement
    from their softmax. Unlike drawing from probabilities it does not fail where they
    underflow, which sums over thousands of pairs soon do. The noise is scaled instead
    of the scores, so that temperature 0 needs no case of its own.

    Args:
        joint: Nothing added; afterwards, all but the last chunk.
        ids: Example ids of the candidates.
        sizes: How many to draw in each chunk.
        temperature: What scores are divided by before the softmax.
        noise: The randomness of this step.

    Returns:
        Positions of the drawn candidates, in draw order.
    """
    drawn = np.empty(0, np.int64)
    for chunk, size in enumerate(sizes):
        if chunk:
            joint.add(drawn[-sizes[chunk - 1] :])
        added = temperature * noise.gumbel(ids, chunk=chunk)
        added[drawn] = -np.inf
        drawn = np.concatenate([drawn, _draw(joint, ids, size, added)])
    return drawn


def _draw(
    joint: JointScores,
    ids: Int64[np.ndarray, " n"],
    size: int,
    noise: Float64[np.ndarray, " n"],
) -> Int64[np.ndarray, " m"]:
    """Returns the candidates whose scores with noise are the highest, highest first.

    Candidates are settled from the highest bound down, until the bounds of the others
    are below what is wanted already.
    """
    bounds = joint.bounds() + noise
    settled, keys, threshold = np.empty(0, np.int64), np.empty(0), _LOWEST
    while len(batch := np.flatnonzero(bounds >= threshold)):
        if len(batch) > _NUM_AT_ONCE * size:
            limit = _nth_highest(bounds[batch], _NUM_AT_ONCE * size)
            batch = batch[bounds[batch] >= limit]
        settled = np.concatenate([settled, batch])
        keys = np.concatenate([keys, joint.settle(batch) + noise[batch]])
        bounds[batch] = -np.inf
        threshold = _nth_highest(keys, size) if len(keys) >= size else _LOWEST
    return settled[highest(keys, ids[settled], size)]


def _nth_highest(values: Float64[np.ndarray, " _"], n: int) -> float:
    return float(np.partition(values, len(values) - n)[len(values) - n])


def _diagnostics(
    alone: Float64[np.ndarray, " n"],
    joint: JointScores,
    added: Int64[np.ndarray, " _"],
) -> dict[str, float]:
    """Returns the statistics that tell whether the joint terms mattered."""
    if not len(alone):
        return {}
    others = np.delete(np.arange(len(alone)), added)
    sample = others[:: -(-len(others) // _SAMPLE_SIZE)]
    interactions = joint.settle(sample) - alone[sample]
    return {
        "diagonal_std": float(alone.std()),
        "interaction_mean": float(interactions.mean()),
        "interaction_std": float(interactions.std()),
    }
