"""Features as columns, and columns as Parquet files.

Shapes: ``n`` examples of a block.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, Int64

from curator.errors import StorageError
from curator.files import replacing
from curator.models import ScoreTable
from curator.offline._manifest import Manifest
from curator.types import Feature, Features, PairEmbeddings

__all__ = [
    "Block",
    "ShardWriter",
    "not_finite_of",
    "shard_path",
    "to_rows",
    "write_shard",
]

_NOT_FINITE = b"curator.not_finite"


def shard_path(folder: Path, shard: int) -> Path:
    """Returns where the file of a shard lies."""
    return folder / f"part-{shard:05d}.parquet"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Examples that have been scored.

    Attributes:
        ids: Of the examples.
        features: What was computed of them, under ``reference.OUTPUT``.
        copied: Columns of the pool that stand beside them.
    """

    ids: Int64[np.ndarray, " n"]
    features: Features
    copied: pa.RecordBatch | None = None


class ShardWriter:
    """Writes the file of one shard while the examples of the next are scored.

    Only one is under way, so that files appear in order and memory is that of two.
    Leaving the context waits for it, whatever the reason.

    Attributes:
        num_bytes: Of the files that have been waited for.
        not_finite: How many of their examples each output is not finite for.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.num_bytes = 0
        self.not_finite = collections.Counter[str]()
        self._folder = folder
        self._manifest = manifest
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="curator-shards")
        self._writing: Future[tuple[int, dict[str, int]]] | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)

    def begin(self, shard: int, blocks: Sequence[Block]) -> None:
        """Begins to write a shard when the one before it is on the disk.

        Raises:
            StorageError: That one could not be written.
        """
        self.wait()
        self._writing = self._thread.submit(self._write, shard, blocks)

    def check(self) -> None:
        """Tells early of a shard that could not be written; does not wait for it.

        Raises:
            StorageError: The disk is full or fails.
        """
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Waits for the shard at hand, if there is one.

        Raises:
            StorageError: The disk is full or fails.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            num_bytes, not_finite = writing.result()
            self.num_bytes += num_bytes
            self.not_finite.update(not_finite)

    def _write(self, shard: int, blocks: Sequence[Block]) -> tuple[int, dict[str, int]]:
        rows, not_finite = to_rows(_one(blocks), self._manifest.outputs)
        path = shard_path(self._folder, shard)
        return write_shard(path, rows, self._manifest, not_finite), not_finite


def to_rows(
    block: Block, outputs: Sequence[str]
) -> tuple[pa.RecordBatch, dict[str, int]]:
    """Returns a block as columns, and how many examples each output is not finite for.

    Args:
        block: The examples.
        outputs: Names of the outputs.
    """
    size, copied = len(block.ids), block.copied
    columns: dict[str, pa.Array] = {"example_id": pa.array(block.ids)}
    if copied is not None:
        columns |= {name: copied.column(name) for name in copied.schema.names}
    not_finite: dict[str, int] = {}
    for name in outputs:
        feature = block.features[f"reference.{name}"]
        columns |= _columns(name, feature, size)
        not_finite[name] = size - _num_finite(feature)
    return pa.record_batch(columns), not_finite


def not_finite_of(path: Path) -> dict[str, int] | None:
    """Returns what was counted when a shard was written; None where there is none.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            metadata: dict[bytes, bytes] = pq.read_schema(file).metadata or {}
            return json.loads(metadata[_NOT_FINITE])
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        msg = f"{str(path)!r} is damaged ({error}): delete it and run the command again"
        raise StorageError(msg) from error


def _one(blocks: Sequence[Block]) -> Block:
    """Returns blocks as one: a shard's are turned into columns at once."""
    parts = [block.copied for block in blocks if block.copied is not None]
    return Block(
        np.concatenate([block.ids for block in blocks]),
        {
            name: _joined([block.features[name] for block in blocks])
            for name in blocks[0].features
        },
        pa.concat_batches(parts) if parts else None,
    )


def write_shard(
    path: Path, rows: pa.RecordBatch, manifest: Manifest, not_finite: Mapping[str, int]
) -> int:
    """Writes the file of a shard, whole or not at all; returns its bytes.

    Raises:
        StorageError: The disk is full or fails.
    """
    metadata = {
        ScoreTable.MANIFEST_KEY: manifest.to_json(),
        _NOT_FINITE: json.dumps(not_finite, sort_keys=True),
    }
    table = pa.Table.from_batches([rows]).replace_schema_metadata(metadata)
    with replacing(path) as file:
        # Dictionaries do not suit numbers that hardly ever repeat, but for constants.
        repeating = [name for name in table.column_names if name.startswith("logit_")]
        pq.write_table(
            table,
            file,
            compression="zstd",
            use_dictionary=[*repeating, *manifest.columns],
            # Ids ascend by little: less to write than their bytes, and to compress.
            column_encoding={"example_id": "DELTA_BINARY_PACKED"},
            write_page_checksum=True,
        )
        return file.tell()


def _columns(name: str, feature: Feature, num_rows: int) -> dict[str, pa.Array]:
    if not isinstance(feature, PairEmbeddings):
        return {name: _column(feature)}
    columns = {
        "queries": _column(feature.queries),
        "targets": _column(feature.targets),
        "logit_scale": _column(np.full(num_rows, feature.logit_scale, np.float32)),
    }
    if feature.logit_bias is not None:
        bias = np.full(num_rows, feature.logit_bias, np.float32)
        columns["logit_bias"] = _column(bias)
    return columns


def _column(values: Float32[np.ndarray, "n *width"]) -> pa.Array:
    """Returns numbers, or lists of one length."""
    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
    if values.ndim == 1:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _joined(parts: Sequence[Feature]) -> Feature:
    pairs = [part for part in parts if isinstance(part, PairEmbeddings)]
    if not pairs:
        return np.concatenate(cast("Sequence[np.ndarray]", parts))
    return dataclasses.replace(
        pairs[0],
        queries=np.concatenate([pair.queries for pair in pairs]),
        targets=np.concatenate([pair.targets for pair in pairs]),
    )


def _num_finite(feature: Feature) -> int:
    if isinstance(feature, PairEmbeddings):
        finite = _finite_rows(feature.queries) & _finite_rows(feature.targets)
    else:
        finite = _finite_rows(feature)
    return int(np.count_nonzero(finite))


def _finite_rows(values: Float32[np.ndarray, "n *width"]) -> Bool[np.ndarray, " n"]:
    finite: Bool[np.ndarray, "n *width"] = np.isfinite(values)
    return finite if finite.ndim == 1 else np.all(finite, axis=1)
