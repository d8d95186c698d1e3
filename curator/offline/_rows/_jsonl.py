"""Rows as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from curator.offline._rows._format import RowFormat, Rows, is_text, is_whole
from curator.offline._rows._whole import whole_file

__all__ = ["JSONL"]


def _problem(field: pa.Field) -> str | None:
    wrong = _unknown(field.type)
    if wrong is None:
        return None
    return f"is {field.type}, and JSON lines have no {wrong}"


def _unknown(dtype: pa.DataType) -> pa.DataType | None:
    """Returns the first type in a type that JSON does not give back, or None."""
    types = pa.types
    if (
        types.is_list(dtype)
        or types.is_large_list(dtype)
        or types.is_fixed_size_list(dtype)
    ):
        return _unknown(dtype.value_type)
    if types.is_struct(dtype):
        fields = [dtype.field(i) for i in range(dtype.num_fields)]
        if len({field.name for field in fields}) < len(fields):
            return dtype
        found = [_unknown(field.type) for field in fields]
        return next((wrong for wrong in found if wrong is not None), None)
    if (
        types.is_null(dtype)
        or types.is_boolean(dtype)
        or types.is_floating(dtype)
        or is_whole(dtype)
        or is_text(dtype)
    ):
        return None
    return dtype


def _write(path: Path, rows: Rows) -> None:
    # All keys in every line, nulls too, so that the columns keep their order.
    with whole_file(path) as file:
        for _, piece in rows.pieces():
            lines = [
                f"{json.dumps(row, ensure_ascii=False)}\n" for row in piece.to_pylist()
            ]
            file.write("".join(lines).encode())


JSONL = RowFormat(
    "jsonl",
    tuple(
        f"{suffix}{packed}"
        for suffix in (".jsonl", ".ndjson")
        for packed in ("", ".gz", ".zst")
    ),
    _problem,
    _write,
)
