"""A pool of Arrow IPC files, mapped into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Integer

from curator.errors import PoolError
from curator.pools._changes import MappedFiles
from curator.pools._derived import cache_folder, local_copies
from curator.pools._files import (
    PoolFile,
    common_schema,
    file_at,
    find_files,
    unreadable,
)
from curator.pools._fingerprint import Once, files_fingerprint
from curator.pools._request import still_open
from curator.pools._spans import RowSpans
from curator.pools._take import Chunks

__all__ = ["ArrowPool", "map_file"]

_FILE_MAGIC = b"ARROW1"


class ArrowPool:
    """The rows of uncompressed Arrow IPC files, in the order of the files' names.

    Nothing is read but what is asked for: the operating system maps the files and keeps
    in memory what is used. Both the file and the stream format are accepted.

    The files must not be cut short or written to in place while the pool is open: what
    is mapped changes under the reader, or ends the process (SIGBUS). That is noticed
    within a second, if there is one. Files may be replaced or removed.

    Files that lie elsewhere are copied first, beside the cache of digests.

    Args:
        path: A file, a folder (its ``.arrow``, ``.ipc`` and ``.feather`` files) or a
            glob; or the very files, local ones.
        fingerprint_cache: Where the files' digests are kept, to hash them once only.
        fingerprint: Computes the fingerprint; by default it is that of the files.
        view: Applied to each record batch, copying nothing; all keep one schema.

    Raises:
        PoolError: There is no such file, one cannot be read or is compressed, or their
            schemas differ.
    """

    def __init__(
        self,
        path: str | Path | Sequence[PoolFile],
        *,
        fingerprint_cache: Path | None = None,
        fingerprint: Callable[[], str] | None = None,
        view: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
    ) -> None:
        if isinstance(path, str | Path):
            found = find_files(path, "arrow")
            files = local_copies(found, cache_folder(fingerprint_cache))
        else:
            files = list(path)
        mapped = [map_file(file) for file in files]
        if view is not None:
            mapped = [_seen(view, *part) for part in mapped]
        schema = common_schema(files, [schema for schema, _ in mapped])
        rows = Chunks([batch for _, batches in mapped for batch in batches], schema)
        if not rows.num_rows:
            where = path if isinstance(path, str | Path) else files[0]
            msg = f"{where}: a pool has at least one example; the files have no rows"
            raise PoolError(msg)
        self._rows: Chunks | None = rows
        self._mapped = MappedFiles(files)
        self._num_examples = rows.num_rows
        self._schema = rows.schema
        self._fingerprint = Once(
            fingerprint or (lambda: files_fingerprint(files, fingerprint_cache))
        )

    @classmethod
    def of_copy(
        cls, copy: Path, files: Sequence[PoolFile], fingerprint_cache: Path | None
    ) -> ArrowPool:
        """Returns the pool of an Arrow file that was made of other files."""
        return cls(
            [file_at(copy)],
            fingerprint=lambda: files_fingerprint(files, fingerprint_cache),
        )

    @property
    def num_examples(self) -> int:
        """How many rows the files have together."""
        return self._num_examples

    @property
    def schema(self) -> pa.Schema:
        """The columns; of a dictionary column the type of its values."""
        return self._schema

    @property
    def fingerprint(self) -> str:
        """Digest of the files' bytes, computed when first asked for."""
        return self._fingerprint.get()

    def take(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> pa.RecordBatch:
        """Returns rows by id, see :meth:`Pool.take`."""
        self._mapped.check()
        return still_open(self._rows).take(ids, columns)

    def spans(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> RowSpans | None:
        """Returns rows where they lie, see :meth:`Pool.spans`."""
        self._mapped.check()
        return still_open(self._rows).spans(ids, columns)

    def close(self) -> None:
        """Lets go of the files; what was taken out of them is a copy."""
        self._rows = None


def _seen(
    view: Callable[[pa.RecordBatch], pa.RecordBatch],
    schema: pa.Schema,
    batches: list[pa.RecordBatch],
) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Returns the view of a file's record batches, and its schema."""
    empty = pa.RecordBatch.from_pylist([], schema=schema)
    return view(empty).schema, [view(batch) for batch in batches]


def map_file(file: PoolFile) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Returns the schema of a file and its record batches, which stay on disk."""
    try:
        with pa.memory_map(file.path) as source:
            mapped = source.read_buffer()
        if mapped[: len(_FILE_MAGIC)].to_pybytes() == _FILE_MAGIC:
            reader = pa.ipc.open_file(mapped)
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        else:
            reader = pa.ipc.open_stream(mapped)
            batches = list(reader)
    except (pa.ArrowException, OSError) as exc:
        raise unreadable(file, "an Arrow IPC file or stream", exc) from exc
    _check_not_compressed(file, mapped, batches)
    return reader.schema, batches


def _check_not_compressed(
    file: PoolFile, mapped: pa.Buffer, batches: list[pa.RecordBatch]
) -> None:
    """Checks that the data lies in the file; decompressed, it would lie in memory."""
    for batch in batches:
        for column in batch.columns:
            if isinstance(column.type, pa.BaseExtensionType):
                column = column.storage
            for data in column.buffers():
                if data is None or not data.size:
                    continue
                if not mapped.address <= data.address < mapped.address + mapped.size:
                    msg = (
                        f"{file}: compressed, so it would have to be held in memory. "
                        "Write it without compression (pyarrow.ipc.new_file does; "
                        "Feather: compression='uncompressed'), or use Parquet"
                    )
                    raise PoolError(msg)
                return
