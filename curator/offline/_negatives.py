"""How alike the examples of a batch are: how hard it is for a contrastive loss.

Shapes: ``N`` is the number of examples, ``D`` the width of an embedding, ``K`` the
batch size.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, Int64

__all__ = ["Negatives", "negatives_of"]

# Queries that are looked at, of the whole plan and at once: enough for three digits.
_MAX_QUERIES = 4096
_BLOCK = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Negatives:
    """Cosines of queries and the targets of the other examples of their batch.

    Attributes:
        mean: Over all of them.
        hardest: The largest of each query's, on average.
    """

    mean: float
    hardest: float


def negatives_of(
    batches: Int64[np.ndarray, "num_batches K"],
    queries: Float32[np.ndarray, "N D"],
    targets: Float32[np.ndarray, "N D"],
    labels: Int64[np.ndarray, " N"] | None = None,
) -> Negatives | None:
    """Returns what batches are like, going by a few thousand queries of all of them.

    Costs O(n K D) for n queries, and where they are of that many batches the lengths of
    all targets.

    Args:
        batches: Examples of each batch.
        queries: Finite and not of length 0; of any length.
        targets: Likewise.
        labels: Examples of one label are no negatives of each other.

    Returns:
        None where no query has a negative.
    """
    size = batches.shape[1]
    places = np.arange(0, batches.size, -(-batches.size // _MAX_QUERIES))
    total = total_hardest = 0.0
    count = num_queries = 0
    for number in np.unique(places // size).tolist():
        members = batches[number]
        others = _unit(targets[members])
        own = members if labels is None else labels[members]
        rows = places[places // size == number] % size
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            cosines = _unit(queries[members[block]]) @ others.T
            is_negative = own[block, None] != own
            has_any = is_negative.any(axis=1)
            hardest = np.where(is_negative, cosines, -np.inf)[has_any].max(axis=1)
            total += float(cosines[is_negative].sum(dtype=np.float64))
            count += int(is_negative.sum())
            total_hardest += float(hardest.sum(dtype=np.float64))
            num_queries += len(hardest)
    if not count:
        return None
    return Negatives(total / count, total_hardest / num_queries)


def _unit(rows: Float32[np.ndarray, "n D"]) -> Float32[np.ndarray, "n D"]:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return (rows / lengths[:, None]).astype(np.float32)
