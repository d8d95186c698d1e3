"""Rows as a Lance dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from curator.errors import CuratorError, MissingDependencyError
from curator.offline._rows._format import RowFormat, Rows
from curator.offline._rows._whole import whole_folder

__all__ = ["LANCE"]


def _problem(field: pa.Field) -> str | None:
    nothing = pa.RecordBatchReader.from_batches(pa.schema([field]), [])
    try:
        _import_lance().write_dataset(nothing, "memory://")
    except OSError as error:  # which is what LanceError is
        return f"is {field.type}, which Lance does not take ({_first_line(error)})"
    return None


def _write(path: Path, rows: Rows) -> None:
    lance = _import_lance()
    failed: list[CuratorError] = []

    def blocks() -> Iterator[pa.RecordBatch]:
        try:
            for _, block in rows.blocks:
                yield block.replace_schema_metadata(rows.schema.metadata)
        except CuratorError as error:
            failed.append(error)  # Lance makes words of it
            raise

    with whole_folder(path) as folder:
        reader = pa.RecordBatchReader.from_batches(rows.schema, blocks())
        try:
            lance.write_dataset(reader, str(folder))
        except OSError as error:
            if failed:
                raise failed[0] from error
            raise


def _first_line(error: Exception) -> str:
    return str(error).partition(", /")[0].strip()


def _import_lance() -> Any:
    try:
        import lance  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        if error.name != "lance":
            raise
        msg = (
            "rows as a Lance dataset need Lance, which is not installed: "
            "pip install 'batch-curator[lance]'"
        )
        raise MissingDependencyError(msg) from error
    return lance


LANCE = RowFormat("lance", (".lance",), _problem, _write)
