"""Groups of examples that are nearly the same, by their embeddings.

Shapes: ``S`` examples of the sample, ``D`` the width of an embedding.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, Int64

from curator.policies import find_duplicates
from curator.rng import Noise

__all__ = ["DuplicateGroups", "group_duplicates"]

_NOISE = Noise(seed=6, step=0)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class DuplicateGroups:
    """Near-duplicates among some examples.

    Attributes:
        num_examples: How many were looked at.
        threshold: Of the cosine; those above it are near-duplicates.
        num_redundant: How many have a near-duplicate that stands for them.
        groups: Example ids of each group, the largest first.
        similarities: The cosine of each of them to the one before it that is nearest;
            NaN for the one that stands for the group.
    """

    num_examples: int
    threshold: float
    num_redundant: int
    groups: list[Int64[np.ndarray, " _"]]
    similarities: list[Float32[np.ndarray, " _"]]


def group_duplicates(
    ids: Int64[np.ndarray, " S"], rows: Float32[np.ndarray, "S D"], threshold: float
) -> DuplicateGroups:
    """Returns groups of examples whose embeddings have a cosine above a threshold."""
    found = find_duplicates(rows, ids, threshold, _NOISE)
    order = np.lexsort((ids, ~found.kept, found.group))
    firsts = np.flatnonzero(np.diff(found.group[order], prepend=-1))
    groups = [part for part in np.split(order, firsts[1:]) if len(part) > 1]
    groups.sort(key=lambda part: (-len(part), int(ids[part[0]])))
    return DuplicateGroups(
        num_examples=len(ids),
        threshold=threshold,
        num_redundant=int((~found.kept).sum()),
        groups=[ids[part] for part in groups],
        similarities=[
            np.where(found.kept[part], np.nan, found.similarity[part]).astype(
                np.float32
            )
            for part in groups
        ],
    )
