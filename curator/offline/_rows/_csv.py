"""Rows as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curator.errors import ConfigError
from curator.offline._rows._format import RowFormat, Rows, is_text, is_whole, not_kept
from curator.offline._rows._whole import whole_file
from curator.pools import CSV_BLOCK_BYTES, CSV_TYPES, fits_csv_type

__all__ = ["CSV"]


def _problem(field: pa.Field) -> str | None:
    dtype = field.type
    if (
        pa.types.is_boolean(dtype)
        or pa.types.is_floating(dtype)
        or is_whole(dtype)
        or is_text(dtype)
    ):
        return None
    return f"is {dtype}, and CSV has booleans, int64, floats and text only"


class _Column:
    """What a column will be read as, of the cells so far."""

    def __init__(self, field: pa.Field) -> None:
        self._name = field.name
        self._is_text = is_text(field.type)
        self._possible = list(CSV_TYPES)
        self._has_value = False

    def add(self, ids: Sequence[int], cells: pa.Array) -> list[object]:
        """Returns cells as they are written.

        Raises:
            ConfigError: One would be read as another value.
        """
        if not self._is_text:
            self._has_value |= cells.null_count < len(cells)
            return [_number(value) for value in cells.to_pylist()]
        if cells.null_count:
            first = cells.is_null().to_pylist().index(True)
            raise not_kept(
                self._name,
                f"is null for example {ids[first]}, and would be read as empty text",
            )
        if self._possible:
            filled = cells.filter(pc.not_equal(cells, pa.scalar("", cells.type)))
            if len(filled):
                self._has_value = True
                filled = filled.cast(pa.string())
                self._possible = [t for t in self._possible if fits_csv_type(filled, t)]
        return cells.to_pylist()

    def check(self) -> None:
        """Checks that the column will be read as what it is.

        Raises:
            ConfigError: It will not.
        """
        if self._is_text and self._has_value and self._possible:
            problem = f"is text, and in these rows all of it reads {self._possible[0]}"
            raise not_kept(self._name, problem)
        if not self._is_text and not self._has_value:
            problem = "is null in all of these rows, and would be read as empty text"
            raise not_kept(self._name, problem)


def _number(value: object) -> object:
    # 16 digits before the point are an identifier to the reader, and stay text.
    if isinstance(value, float) and 1e15 <= abs(value) < 1e16:
        return f"{value:.16e}"
    return value


class _Lines(list[str]):
    """What a writer of :mod:`csv` writes, line by line."""

    def write(self, line: str) -> None:
        self.append(line)

    def take(self) -> bytes:
        """Returns all of it, and forgets it."""
        data = "".join(self).encode()
        self.clear()
        return data


def _write(path: Path, rows: Rows) -> None:
    columns = [_Column(field) for field in rows.schema]
    lines = _Lines()
    # All text is quoted: Python 3.11 overlooks a lone carriage return.
    writer = csv.writer(lines, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    with whole_file(path) as file:
        writer.writerow(rows.schema.names)
        file.write(lines.take())
        for ids, piece in rows.pieces():
            cells = [
                column.add(ids, values)
                for column, values in zip(columns, piece.columns, strict=True)
            ]
            writer.writerows(zip(*cells, strict=True))
            _check_lengths(ids, lines)
            file.write(lines.take())
        for column in columns:
            column.check()


def _check_lengths(ids: Sequence[int], lines: Sequence[str]) -> None:
    for id, line in zip(ids, lines, strict=True):
        if 4 * len(line) > CSV_BLOCK_BYTES and len(line.encode()) > CSV_BLOCK_BYTES:
            msg = (
                f"rows: example {id} is a line of {len(line.encode()):,} bytes, and "
                f"CSV has at most {CSV_BLOCK_BYTES:,} here: write .parquet or .arrow"
            )
            raise ConfigError(msg)


CSV = RowFormat("csv", (".csv", ".csv.gz", ".csv.zst"), _problem, _write)
