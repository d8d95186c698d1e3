"""Pools of CSV: decoded once into an Arrow file that is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from curator.errors import PoolError
from curator.pools._arrow import ArrowPool
from curator.pools._csv_types import (
    CSV_BLOCK_BYTES,
    CSV_FALSE,
    CSV_TRUE,
    CSV_TYPES,
    fits_csv_type,
)
from curator.pools._derived import cache_folder, derive, local_copies
from curator.pools._files import PoolFile, common_schema, find_files
from curator.pools._packed import Unpacked, unpacked
from curator.progress import Progress

__all__ = ["csv_pool"]

_csv: Any = csv  # the module has no types
# What readers are given after a file's last byte: empty lines, which they skip. If a
# quote is open there, its cell ends with them, and no other cell ends so.
_END = b"\n\r\r\n\r\n\n\r\r\r\n\n\r\n\r\r"


def csv_pool(path: str | Path, *, fingerprint_cache: Path | None = None) -> ArrowPool:
    """Returns the pool of the rows of CSV files, packed or not.

    They are decoded once, into an Arrow file beside the cache of digests. The first
    line has the names. A column is of whole numbers, floats or booleans where every
    cell of every file is one, or empty, which is null; of strings otherwise, as they
    are, an empty one included. Cells may be quoted with ``"`` and have line breaks.

    Args:
        path: A file, a folder (its ``.csv`` files, also ``.gz`` and ``.zst``) or a
            glob.
        fingerprint_cache: Where the files' digests are kept, to hash them once only.

    Raises:
        PoolError: There is no such file, one cannot be read, their names differ, a row
            has more or fewer cells, or a quote does not end; the message names the row.
    """
    folder = cache_folder(fingerprint_cache)
    files = local_copies(find_files(path, "csv"), folder)

    def decode(target: Path, progress: Progress) -> None:
        schema = _infer(files, progress)
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
            for file in files:
                for batch in _batches(file, schema, progress):
                    out.write_batch(batch)

    decoded = derive(folder, "csv.arrow", files, decode, place=path, num_readings=2)
    return ArrowPool.of_copy(decoded, files, fingerprint_cache)


def _infer(files: Sequence[PoolFile], progress: Progress) -> pa.Schema:
    """Returns the columns of all files, with the narrowest type for all their cells."""
    text = [_header(file) for file in files]
    names = common_schema(files, text)
    possible = {name: list(CSV_TYPES) for name in names.names}
    has_value = dict.fromkeys(names.names, False)
    num_rows = 0
    for file in files:
        row = 1  # the names
        for batch in _batches(file, names, progress):
            num_rows += len(batch)
            row += len(batch)
            _check_quotes(file, batch, row)
            for name in names.names:
                cells = batch.column(name)
                cells = cells.filter(pc.not_equal(cells, ""))
                if not len(cells):
                    continue
                has_value[name] = True
                possible[name] = [t for t in possible[name] if fits_csv_type(cells, t)]
    if not num_rows:
        msg = f"{files[0]}: a pool has at least one example; the files have no rows"
        raise PoolError(msg)
    return pa.schema(
        [
            (name, types[0] if types and has_value[name] else pa.string())
            for name, types in possible.items()
        ]
    )


def _check_quotes(file: PoolFile, batch: pa.RecordBatch, row: int) -> None:
    """Checks that the last cell of rows did not end where the file did.

    Args:
        file: Where they are from.
        batch: The rows, as text.
        row: The number of the last one.

    Raises:
        PoolError: It did, so that all the rows after its quote are part of it.
    """
    cell = str(batch.column(batch.num_columns - 1)[-1].as_py()) if len(batch) else ""
    text = cell.removesuffix(_END.decode())
    if text != cell:
        msg = (
            f"{file}: not CSV, or damaged: Row #{row}: the quote before {text[:20]!r} "
            f"in column {batch.schema.names[-1]!r} does not end: close it, or double "
            "it where it is part of the text"
        )
        raise PoolError(msg)


class _Marked:
    """A file with ``_END`` after its end."""

    def __init__(self, source: Unpacked) -> None:
        self._source = source
        self._has_ended = False
        self.closed = False

    def read(self, num_bytes: int) -> bytes:
        """Returns the next bytes; none at the end."""
        block = self._source.read(num_bytes)
        if not block and not self._has_ended:
            self._has_ended = True
            return _END
        return block


def _header(file: PoolFile) -> pa.Schema:
    """Returns the columns of a file, all of them text."""
    with _read(file), unpacked(file, None) as source:
        reader = _csv.open_csv(
            source, read_options=_read_options(), parse_options=_PARSE
        )
        return pa.schema([(name, pa.string()) for name in reader.schema.names])


def _batches(
    file: PoolFile, schema: pa.Schema, progress: Progress
) -> Generator[pa.RecordBatch]:
    options = _csv.ConvertOptions(
        column_types=schema,
        null_values=[""],
        true_values=CSV_TRUE,
        false_values=CSV_FALSE,
        strings_can_be_null=False,
    )
    with _read(file), unpacked(file, progress) as source:
        yield from _csv.open_csv(_Marked(source), _read_options(), _PARSE, options)


_PARSE: Any = _csv.ParseOptions(newlines_in_values=True)


def _read_options() -> Any:
    # Without threads, because only then do messages name the row.
    return _csv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False)


@contextlib.contextmanager
def _read(file: PoolFile) -> Generator[None]:
    try:
        yield
    except pa.ArrowException as error:
        msg = f"{file}: not CSV, or damaged: {error}"
        if "straddling" in str(error):
            msg = (
                f"{file}: has a row of more than {CSV_BLOCK_BYTES:,} bytes, which CSV "
                "pools do not read (or a quote that does not end): use another format"
            )
        raise PoolError(msg) from error
