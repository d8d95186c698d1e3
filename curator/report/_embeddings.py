"""What a report takes from embeddings: similarities of pairs, and a sample of rows.

Shapes: ``N`` examples, ``S`` of the sample, ``D`` the width of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from curator.offline import Scores
from curator.report._blocks import Block, blocks, rows_of
from curator.report._statistics import sample_of

__all__ = ["SAMPLE", "Embeddings", "left_out", "numbers_of", "read_embeddings"]

SAMPLE = 20_000  # examples among which near-duplicates are looked for
_SIDES = ["queries", "targets"]
_MAX_NAMED = 20


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
    columns = _columns(scores)
    if not columns:
        return None
    is_pairs = columns == _SIDES
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


def left_out(scores: Scores) -> str | None:
    """Returns which columns of the scores a report does not show; None if it does all.

    Text that another program wrote beside its scores, lists of several lengths ...
    """
    known = {"example_id", *scores.columns.names, *scores.numbers, *_columns(scores)}
    if set(_SIDES) <= known:
        known |= {"logit_scale", "logit_bias"}
    found = [field for field in scores.schema if field.name not in known]
    if not found:
        return None
    named = ", ".join(f"{field.name} ({field.type})" for field in found[:_MAX_NAMED])
    more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    return (
        f"Not shown: {named}{more}. A score is one number for each example; embeddings "
        "are fixed-size lists of numbers, and the first are taken: of pairs, queries "
        "and targets of one length."
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


def _columns(scores: Scores) -> list[str]:
    """Returns the columns that embeddings are read from: both sides, one, or none."""
    copied = scores.columns.names
    widths = {
        field.name: field.type.list_size
        for field in scores.schema
        if _is_row(field.type) and field.name not in copied
    }
    if len({widths.get(side) for side in _SIDES}) == 1 and _SIDES[0] in widths:
        return _SIDES
    return sorted(set(widths) - set(_SIDES))[:1]


def _is_row(kind: pa.DataType) -> bool:
    """Whether a type is that of embeddings: so many numbers for each example."""
    return (
        pa.types.is_fixed_size_list(kind)
        and kind.list_size > 0
        and (
            pa.types.is_integer(kind.value_type)
            or pa.types.is_floating(kind.value_type)
        )
    )


def _unit(rows: Float32[np.ndarray, "n D"]) -> Float32[np.ndarray, "n D"]:
    """Returns rows of length one, NaN where there is no such row."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = rows / norms
    unit[~np.isfinite(norms[:, 0])] = np.nan
    return unit
