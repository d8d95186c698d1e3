"""The file of a plan: the examples of each step, in order.

Shapes: ``n`` examples of a block.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64

from curator.errors import ConfigError
from curator.files import creating

__all__ = ["PLAN_KEY", "check_new", "write_plan"]

PLAN_KEY = b"curator.plan"
"""Under this key a plan's metadata says, as JSON, what it is of."""

_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("position", pa.int32()),
        ("example_id", pa.int64()),
        ("weight", pa.float32()),
    ]
)


def check_new(out: Path | None) -> None:
    """Raises ConfigError if there is such a file already."""
    if out is not None and out.exists():
        msg = f"out: {str(out)!r} exists: delete it, or choose another name"
        raise ConfigError(msg)


def write_plan(
    out: Path,
    metadata: Mapping[str, object],
    blocks: Iterable[tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]],
    *,
    batch_size: int,
    first_step: int,
) -> int:
    """Writes a plan, whole or not at all; the same one is the same bytes.

    Args:
        out: The file.
        metadata: What it is of.
        blocks: Ids and weights, one step after the other.
        batch_size: How many of them make a step.
        first_step: The number of the first step.

    Returns:
        How large the file is.

    Raises:
        StorageError: The disk is full or fails.
    """
    text = json.dumps(metadata, sort_keys=True)
    schema = _SCHEMA.with_metadata({PLAN_KEY: text})
    start = 0
    with creating(out) as file:
        with pq.ParquetWriter(
            file, schema, compression="zstd", write_page_checksum=True
        ) as writer:
            for ids, weights in blocks:
                places = np.arange(start, start + len(ids))
                steps, positions = np.divmod(places, batch_size)
                columns = [
                    pa.array(steps + first_step),
                    pa.array(positions.astype(np.int32)),
                    pa.array(ids),
                    pa.array(weights),
                ]
                writer.write_table(pa.table(columns, schema=schema))
                start += len(ids)
        return file.tell()
