"""Rows as the shards of MosaicML's streaming (MDS)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curator.offline._rows._format import RowFormat, Rows
from curator.offline._rows._whole import whole_folder
from curator.pools import MdsColumn, read_mds_columns

__all__ = ["mds_like"]

_SHARD_BYTES = 1 << 26  # as its own writer has it


def mds_like(path: str) -> RowFormat:
    """Returns the format of shards with the columns of those at ``path``.

    Raises:
        PoolError: It has no index.
    """
    columns = read_mds_columns(path)

    def write(path: Path, rows: Rows) -> None:
        with whole_folder(path) as folder:
            shards = _Shards(folder, columns)
            for _, piece in rows.pieces():
                shards.add(piece)
            shards.finish()

    return RowFormat("mds", (), lambda field: None, write)


class _Shards:
    """A folder of shards that rows are added to, one shard of them in memory."""

    def __init__(self, folder: Path, columns: Sequence[MdsColumn]) -> None:
        self._folder = folder
        self._columns = columns
        self._config: dict[str, Any] = {
            "column_encodings": [column.encoding for column in columns],
            "column_names": [column.name for column in columns],
            "column_sizes": [column.size for column in columns],
            "compression": None,
            "format": "mds",
            "hashes": [],
            "size_limit": _SHARD_BYTES,
            "version": 2,
        }
        self._text = json.dumps(self._config, sort_keys=True).encode()
        self._samples: list[bytes] = []
        self._num_bytes = self._start
        self._index: list[dict[str, Any]] = []

    @property
    def _start(self) -> int:
        """Where the first sample begins.

        Before it: how many there are, where each begins and the last ends, and the
        configuration.
        """
        return 4 + 4 * (len(self._samples) + 1) + len(self._text)

    def add(self, rows: pa.RecordBatch) -> None:
        """Adds rows; writes a shard when it is full."""
        cells = [column.encode(rows.column(column.name)) for column in self._columns]
        for row in zip(*cells, strict=True):
            varying = [
                len(cell)
                for cell, column in zip(row, self._columns, strict=True)
                if column.size is None
            ]
            sample = np.array(varying, "<u4").tobytes() + b"".join(row)
            if self._samples and self._num_bytes + 4 + len(sample) > _SHARD_BYTES:
                self._write_shard()
            self._samples.append(sample)
            self._num_bytes += 4 + len(sample)

    def finish(self) -> None:
        """Writes what is left, and the index."""
        self._write_shard()
        index = {"shards": self._index, "version": 2}
        (self._folder / "index.json").write_text(json.dumps(index, sort_keys=True))

    def _write_shard(self) -> None:
        count = np.array(len(self._samples), "<u4")
        places = np.cumsum([self._start, *map(len, self._samples)]).astype("<u4")
        name = f"shard.{len(self._index):05d}.mds"
        with (self._folder / name).open("wb") as file:
            file.write(count.tobytes() + places.tobytes() + self._text)
            file.writelines(self._samples)
        entry: dict[str, Any] = {
            **self._config,
            "raw_data": {"basename": name, "bytes": self._num_bytes, "hashes": {}},
            "samples": len(self._samples),
            "zip_data": None,
        }
        self._index.append(entry)
        self._samples.clear()
        self._num_bytes = self._start
