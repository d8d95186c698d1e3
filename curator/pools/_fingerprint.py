"""Digests of data: what tells that a pool is the one a session was opened with.

Files are hashed as they are, every byte, so that a fingerprint does not depend on the
version of the library that reads them. A table in memory is hashed by its values.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator.errors import PoolError
from curator.pools._digest_cache import open_digest_cache
from curator.pools._files import PoolFile
from curator.pools._progress import reading
from curator.pools._spans import row_bytes
from curator.progress import Progress

__all__ = [
    "Once",
    "files_fingerprint",
    "rows_fingerprint",
    "table_fingerprint",
    "virtual_fingerprint",
]

_DIGEST_BYTES = 16
_BLOCK_ROWS = 1024
_BLOCK_BYTES = 8 << 20
_BUFFER_BYTES = 256 << 10


class Once:
    """A value that is computed when it is first asked for, by one thread."""

    def __init__(self, compute: Callable[[], str]) -> None:
        self._compute = compute
        self._lock = threading.Lock()
        self._value: str | None = None

    def get(self) -> str:
        """Returns the value."""
        with self._lock:
            if self._value is None:
                self._value = self._compute()
            return self._value


def virtual_fingerprint(num_examples: int) -> str:
    """Returns the fingerprint of ids without data."""
    return _new(f"virtual:{num_examples}").hexdigest()


def files_fingerprint(files: Sequence[PoolFile], cache: Path | None) -> str:
    """Returns the fingerprint of files in that order: their sizes and all their bytes.

    The schema is part of the bytes. Names, folders and times have no influence. A file
    that lies elsewhere is read once, from start to end.

    Args:
        files: In their order.
        cache: SQLite file that keeps each file's digest for as long as the file's size,
            times and inode stay what they were; made where it is missing.

    Raises:
        PoolError: A file or the cache cannot be read.
    """
    digests: dict[str, bytes] = {}
    try:
        with (
            open_digest_cache(cache) as known,
            ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads,
        ):
            states = {file.uri: file.current_state() for file in files}
            for name, state in states.items():
                digest = known.get(name, state.text)
                if digest is not None:
                    digests[name] = digest
            missing = [file for file in files if file.uri not in digests]
            with reading("fingerprint", missing or files) as progress:
                found = threads.map(_digest, missing, repeat(progress))
                # Kept one by one, so that an interrupted hour of hashing is not lost.
                for file, digest in zip(missing, found, strict=False):
                    digests[file.uri] = digest
                    state = states[file.uri]
                    if state.is_settled and file.current_state() == state:
                        known.put(file.uri, state.text, digest)
    except OSError as exc:
        msg = f"a file of the pool cannot be read for its fingerprint: {exc}"
        raise PoolError(msg) from exc
    total = _new("files")
    for file in files:
        size = states[file.uri].size
        total.update(size.to_bytes(8, "little") + digests[file.uri])
    return total.hexdigest()


def _digest(file: PoolFile, progress: Progress) -> bytes:
    digest = _new("")
    if file.local is not None:
        # One buffer for all of it, as hashlib.file_digest has.
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        with file.local.open("rb", buffering=0) as source:
            while count := source.readinto(buffer):
                digest.update(buffer[:count])
                progress.advance(count)
        return digest.digest()
    with file.open_stream() as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            progress.advance(len(block))
    return digest.digest()


def table_fingerprint(table: pa.Table) -> str:
    """Returns the fingerprint of the values and types of a table.

    How the table is chunked or sliced has no influence, nor what lies under a null.

    Args:
        table: Without dictionaries, see :func:`plain_schema`.
    """
    return rows_fingerprint(table.schema, table.num_rows, table.to_batches())


def rows_fingerprint(
    schema: pa.Schema, num_rows: int, batches: Iterable[pa.RecordBatch]
) -> str:
    """Returns the fingerprint of a table whose rows come batch by batch."""
    total = _new(f"table:{num_rows}")
    for field in schema:
        total.update(repr((field.name, str(field.type), field.nullable)).encode())
    # Blocks of a fixed number of rows, or the chunks would show in the digest.
    rest: Any = None
    for batch in batches:
        new = pa.Table.from_batches([batch])
        rest = new if rest is None else pa.concat_tables([rest, new])
        whole = rest.num_rows - rest.num_rows % _BLOCK_ROWS
        for start in range(0, whole, _BLOCK_ROWS):
            _update_block(total, rest.slice(start, _BLOCK_ROWS))
        rest = rest.slice(whole)
    if rest is not None and rest.num_rows:
        _update_block(total, rest)
    return total.hexdigest()


def _update_block(total: hashlib.blake2b, block: pa.Table) -> None:
    for column in block.combine_chunks().columns:
        for chunk in column.chunks:
            _update(total, chunk)


def _update(total: hashlib.blake2b, array: pa.Array) -> None:
    """Hashes the values of an array, each part preceded by what gives its length."""
    types = pa.types
    total.update(b"%d rows, %d null;" % (len(array), array.null_count))
    if array.null_count:
        is_valid = array.is_valid().to_numpy(zero_copy_only=False)
        total.update(np.packbits(is_valid).data)
        array = array.drop_null()
    dtype = array.type
    if isinstance(dtype, pa.BaseExtensionType):
        _update(total, array.storage)
    elif types.is_fixed_size_list(dtype):
        _update(total, array.flatten())
    elif types.is_struct(dtype):
        for child in array.flatten():
            _update(total, child)
    elif types.is_list(dtype) or types.is_large_list(dtype):
        _update(total, pc.list_value_length(array).cast(pa.int64()))
        _update(total, array.flatten())
    elif types.is_string(dtype) or types.is_binary(dtype):
        _update_binary(total, array, np.int32)
    elif types.is_large_string(dtype) or types.is_large_binary(dtype):
        _update_binary(total, array, np.int64)
    elif types.is_boolean(dtype):
        total.update(np.packbits(array.to_numpy(zero_copy_only=False)).data)
    elif width := row_bytes(dtype):
        data = array.buffers()[1]
        if data is not None:
            total.update(data.slice(array.offset * width, len(array) * width))
    else:  # maps, views, unions: rare in a pool; slow, and right for all of them
        total.update(repr(array.to_pylist()).encode())


def _update_binary(
    total: hashlib.blake2b, array: pa.Array, offset_type: type[np.integer]
) -> None:
    _, offset_bytes, data = array.buffers()
    if not len(array) or offset_bytes is None:
        return
    offsets = np.frombuffer(offset_bytes, offset_type)
    offsets = offsets[array.offset : array.offset + len(array) + 1].astype(np.int64)
    total.update(np.diff(offsets).data)
    if data is not None:
        total.update(data.slice(int(offsets[0]), int(offsets[-1] - offsets[0])))


def _new(kind: str) -> hashlib.blake2b:
    # The kind keeps an empty table, a virtual pool and a list of files apart.
    return hashlib.blake2b(kind.encode(), digest_size=_DIGEST_BYTES)
