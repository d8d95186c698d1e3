"""A pool of Arrow IPC files, mapped into memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Integer

from curator.errors import PoolError
from curator.pools._files import common_schema, find_files, unreadable
from curator.pools._fingerprint import Once, files_fingerprint
from curator.pools._request import still_open
from curator.pools._spans import RowSpans
from curator.pools._take import Chunks

__all__ = ["ArrowPool"]

_SUFFIXES = (".arrow", ".ipc", ".feather")
_FILE_MAGIC = b"ARROW1"


class ArrowPool:
    """The rows of uncompressed Arrow IPC files, in the order of the files' names.

    Nothing is read but what is asked for: the operating system maps the files and keeps
    in memory what is used. Both the file and the stream format are accepted.

    The files must not be cut short or written to in place while the pool is open: what
    is mapped would change under the reader, or end the process (SIGBUS).

    Args:
        path: A file, a folder (its ``.arrow``, ``.ipc`` and ``.feather`` files) or a
            glob.
        fingerprint_cache: Where the files' digests are kept, to hash them once only.

    Raises:
        PoolError: There is no such file, one cannot be read or is compressed, or their
            schemas differ.
    """

    def __init__(
        self, path: str | Path, *, fingerprint_cache: Path | None = None
    ) -> None:
        files = find_files(path, _SUFFIXES)
        mapped = [_map_file(file) for file in files]
        schema = common_schema(files, [schema for schema, _ in mapped])
        rows = Chunks([batch for _, batches in mapped for batch in batches], schema)
        if not rows.num_rows:
            msg = f"{path}: a pool has at least one example; the files have no rows"
            raise PoolError(msg)
        self._rows: Chunks | None = rows
        self._num_examples = rows.num_rows
        self._schema = rows.schema
        self._fingerprint = Once(lambda: files_fingerprint(files, fingerprint_cache))

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
        return still_open(self._rows).take(ids, columns)

    def spans(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> RowSpans | None:
        """Returns rows where they lie, see :meth:`Pool.spans`."""
        return still_open(self._rows).spans(ids, columns)

    def close(self) -> None:
        """Lets go of the files; what was taken out of them is a copy."""
        self._rows = None


def _map_file(file: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Returns the schema of a file and its record batches, which stay on disk."""
    try:
        with pa.memory_map(str(file)) as source:
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
    file: Path, mapped: pa.Buffer, batches: list[pa.RecordBatch]
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
