"""What a report takes from embeddings: similarities of pairs, and a sample of rows.

Shapes: ``N`` examples, ``S`` of the sample, ``D`` the width of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32, Int64

from curator.offline import Scores
from curator.report._blocks import Block, blocks, rows_of
from curator.report._statistics import sample_of

__all__ = ["SAMPLE", "Embeddings", "numbers_of", "read_embeddings"]

SAMPLE = 20_000  # examples among which near-duplicates are looked for
_SIDES = ["queries", "targets"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Of a folder of scores.

    Attributes:
        name: Of the output that they are.
        similarity: The cosine of each example's two sides, in the order of the files;
            None of what has one side.
        ids: Of the sample.
        rows: Of the sample; of pairs, both sides next to each other, so that the cosine
            of two rows is the mean of that of their sides.
    """

    name: str
    similarity: Float32[np.ndarray, " N"] | None
    ids: Int64[np.ndarray, " S"]
    rows: Float32[np.ndarray, "S D"]


def read_embeddings(scores: Scores) -> Embeddings | None:
    """Reads them once; None where there are none.

    Raises:
        StorageError: A file cannot be read.
    """
    is_pairs = "embeddings" in scores.outputs
    lists = sorted(scores.outputs - set(scores.numbers) - {"embeddings"})
    if not is_pairs and not lists:
        return None
    columns = _SIDES if is_pairs else lists[:1]
    chosen = sample_of(scores.num_examples, SAMPLE)
    similarity = np.empty(scores.num_examples if is_pairs else 0, np.float32)
    ids: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    start = 0
    for some, found in rows_of(scores, columns):
        block = slice(start, start + len(some))
        units = [_unit(part) for part in found]
        if is_pairs:
            similarity[block] = np.einsum("nd,nd->n", *units)
        kept = np.ones(len(some), np.bool_) if chosen is None else chosen[block]
        ids.append(some[kept])
        rows.append(np.concatenate(units, axis=1)[kept])
        start += len(some)
    return Embeddings(
        name="embeddings" if is_pairs else columns[0],
        similarity=similarity if is_pairs else None,
        ids=np.concatenate(ids),
        rows=np.concatenate(rows),
    )


def numbers_of(
    scores: Scores, embeddings: Embeddings | None
) -> tuple[list[str], Callable[[], Iterator[Block]]]:
    """Returns the names of all that is one number, and what yields them in blocks.

    Of pairs, their ``similarity`` is one.
    """
    names = list(scores.numbers)
    similarity = None if embeddings is None else embeddings.similarity
    if similarity is None or "similarity" in names:
        return names, lambda: blocks(scores, names)

    def read() -> Iterator[Block]:
        for block in blocks(scores, names):
            rows = slice(block.start, block.start + len(block.ids))
            numbers = {**block.numbers, "similarity": similarity[rows]}
            yield Block(block.start, block.ids, numbers)

    return [*names, "similarity"], read


def _unit(rows: Float32[np.ndarray, "n D"]) -> Float32[np.ndarray, "n D"]:
    """Returns rows of length one, NaN where there is no such row."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = rows / norms
    unit[~np.isfinite(norms[:, 0])] = np.nan
    return unit
