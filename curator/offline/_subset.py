"""The file of a subset: which examples were selected, and of what.

Shapes: ``K`` selected examples.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64

from curator.errors import ConfigError, StorageError
from curator.files import creating

__all__ = ["Subset", "read_subset", "subset_pool", "write_subset"]

_SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("score", pa.float32()),
    ]
)
# Found again by id: a row group is what a reader decodes at once.
_ROW_GROUP = 1 << 18


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """Examples that were selected from a scored pool.

    Attributes:
        KEY: Under this key the file's metadata has :attr:`metadata`, as JSON.
        ids: Ascending.
        weights: Multiplier of each one's loss.
        scores: What each was ranked by; NaN, or None, where by nothing.
        metadata: What was asked for, of what; see ``docs/select.md``.
    """

    KEY: ClassVar[bytes] = b"curator.subset"

    ids: Int64[np.ndarray, " K"]
    weights: Float32[np.ndarray, " K"]
    scores: Float32[np.ndarray, " K"] | None
    metadata: Mapping[str, Any]


def write_subset(path: Path, subset: Subset) -> None:
    """Writes the file, whole or not at all; equal subsets give equal bytes.

    Raises:
        StorageError: The disk is full or fails.
    """
    scores = pa.nulls(len(subset.ids), pa.float32())
    if subset.scores is not None:
        scores = pa.array(subset.scores, from_pandas=True)  # NaN is null
    text = json.dumps(subset.metadata, sort_keys=True)
    table = pa.table(
        [pa.array(subset.ids), pa.array(subset.weights), scores],
        schema=_SCHEMA.with_metadata({Subset.KEY: text}),
    )
    with creating(path) as file:
        pq.write_table(
            table,
            file,
            compression="zstd",
            row_group_size=_ROW_GROUP,
            use_dictionary=["weight"],  # mostly 1
            write_page_checksum=True,
        )


def read_subset(path: Path) -> Subset:
    """Returns what :func:`write_subset` wrote.

    Raises:
        ConfigError: It is no subset.
        StorageError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read()
        found: dict[bytes, bytes] = table.schema.metadata or {}
        metadata = json.loads(found[Subset.KEY])
    except OSError as error:
        msg = f"subset {str(path)!r} cannot be read: {error.strerror or error}"
        raise StorageError(msg) from error
    except (pa.ArrowException, KeyError, ValueError) as error:
        msg = f"{str(path)!r} is no subset that 'curator select' has written: {error}"
        raise ConfigError(msg) from error
    if not table.schema.equals(_SCHEMA):
        msg = f"{str(path)!r} has other columns than a subset: {table.schema.names}"
        raise ConfigError(msg)
    scores = table.column("score")
    has_scores = scores.null_count < len(scores)
    return Subset(
        ids=table.column("example_id").to_numpy(),
        weights=table.column("weight").to_numpy(),
        scores=scores.to_numpy() if has_scores else None,
        metadata=metadata,
    )


def subset_pool(metadata: Mapping[bytes, bytes] | None) -> str | None:
    """Returns the fingerprint of a subset's pool, by its file's metadata, if known."""
    text = (metadata or {}).get(Subset.KEY)
    try:
        return None if text is None else json.loads(text)["pool_fingerprint"]
    except (ValueError, KeyError):  # of another program, that has the same key
        return None
