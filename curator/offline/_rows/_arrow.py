"""Rows as Parquet and as Arrow IPC."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curator.offline._rows._format import RowFormat, Rows
from curator.offline._rows._whole import whole_file

__all__ = ["ARROW", "PARQUET"]


def _parquet_problem(field: pa.Field) -> str | None:
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
    except pa.ArrowException as error:
        return f"is {field.type}, which Parquet does not have ({error})"
    return None


def _write_parquet(path: Path, rows: Rows) -> None:
    metadata = rows.schema.metadata
    with (
        whole_file(path) as file,
        pq.ParquetWriter(
            file, rows.schema, compression="zstd", write_page_checksum=True
        ) as writer,
    ):
        for _, block in rows.blocks:
            table = pa.Table.from_batches([block])
            writer.write_table(table.replace_schema_metadata(metadata))


def _write_arrow(path: Path, rows: Rows) -> None:
    with whole_file(path) as file, pa.ipc.new_file(file, rows.schema) as writer:
        for _, block in rows.blocks:
            writer.write_batch(block)


PARQUET = RowFormat("parquet", (".parquet", ".pq"), _parquet_problem, _write_parquet)
ARROW = RowFormat(
    "arrow", (".arrow", ".ipc", ".feather"), lambda field: None, _write_arrow
)
