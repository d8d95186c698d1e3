"""Pools of WebDataset shards: tar files, read by the place of each member."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, Integer

from curator.errors import PoolError
from curator.pools._arrow import map_file
from curator.pools._derived import cache_folder
from curator.pools._files import common_schema, file_at, find_files
from curator.pools._fingerprint import Once, files_fingerprint
from curator.pools._progress import reading
from curator.pools._ranges import RangeReader
from curator.pools._request import check_columns, check_ids, empty_columns, still_open
from curator.pools._take import Chunks, locate, starts_of
from curator.pools._tar_index import KEY, members_of, places_of, tar_index

__all__ = ["WebDatasetPool"]

_TEXT = {"txt", "text", "transcript", "json", "jsonl"}
_WHOLE = {"cls", "cls2", "class", "count", "index", "inx", "id"}
_NUM_THREADS = 8


class WebDatasetPool:
    """The samples of tar files, in the order of the files' names.

    Members that follow each other under one name up to its first dot are a sample; the
    rest of the name is the column. ``txt``, ``json`` and their like are strings,
    ``cls``, ``index`` and their like whole numbers, as for WebDataset's own decoders;
    all else is what the member holds, as bytes. ``__key__`` has the name.

    Where each member lies is noted once, beside the cache of digests; the members
    themselves are read where they are, each time.

    Args:
        path: A file, a folder (its ``.tar`` files) or a glob.
        fingerprint_cache: Where the files' digests are kept, to hash them once only.

    Raises:
        PoolError: There is no such file, one cannot be read or is damaged, a sample has
            a member twice or lacks one that others have, or a member is no file.
    """

    def __init__(
        self, path: str | Path, *, fingerprint_cache: Path | None = None
    ) -> None:
        files = find_files(path, "webdataset")
        folder = cache_folder(fingerprint_cache)
        with (
            reading("index", files) as progress,
            ThreadPoolExecutor(_NUM_THREADS) as threads,
        ):
            indices = list(
                threads.map(tar_index, files, repeat(folder), repeat(progress))
            )
        mapped = [map_file(file_at(index)) for index in indices]
        columns = [_columns(schema) for schema, _ in mapped]
        self._schema = common_schema(files, columns)
        batches = [batch for _, batches in mapped for batch in batches]
        self._starts = starts_of([len(batch) for batch in batches])
        self._index = Chunks(batches, mapped[0][0])
        if not self.num_examples:
            msg = f"{path}: a pool has at least one example; the files have no samples"
            raise PoolError(msg)
        self._files = files
        self._reader: RangeReader | None = RangeReader(files)
        self._fingerprint = Once(lambda: files_fingerprint(files, fingerprint_cache))

    @property
    def num_examples(self) -> int:
        """How many samples the files have together."""
        return int(self._starts[-1])

    @property
    def schema(self) -> pa.Schema:
        """The key, and a column for each kind of member, by name."""
        return self._schema

    @property
    def fingerprint(self) -> str:
        """Digest of the files' bytes, computed when first asked for."""
        return self._fingerprint.get()

    def take(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> pa.RecordBatch:
        """Returns rows by id, see :meth:`Pool.take`.

        Raises:
            PoolChangedError: A file is not what it was.
        """
        reader = still_open(self._reader)
        ids = check_ids(ids, self.num_examples)
        names = check_columns(columns, self._schema)
        if not names:
            return empty_columns(len(ids))
        places = self._index.take(ids, places_of(names))
        file_of, _ = locate(self._starts, ids)
        arrays = [
            places.column(KEY)
            if name == KEY
            else self._members(reader, name, places, file_of)
            for name in names
        ]
        fields = [self._schema.field(name) for name in names]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _members(
        self,
        reader: RangeReader,
        name: str,
        places: pa.RecordBatch,
        file_of: Int64[np.ndarray, " n"],
    ) -> pa.Array:
        starts = places.column(f"{name} start").to_numpy()
        sizes = places.column(f"{name} size").to_numpy()
        members = reader.read(file_of, starts, sizes)
        dtype = self._schema.field(name).type
        try:
            values = list(map(int, members)) if dtype == pa.int64() else members
            if dtype == pa.string():
                values = [member.decode() for member in members]
            return pa.array(values, dtype)
        except (ValueError, OverflowError, pa.ArrowException) as error:
            keys = places.column(KEY).to_pylist()
            raise self._wrong(name, members, keys, file_of, error) from error

    def _wrong(
        self,
        name: str,
        members: list[bytes],
        keys: list[str],
        file_of: Int64[np.ndarray, " n"],
        error: Exception,
    ) -> PoolError:
        """Returns the error that names the first member that is no text or number."""
        dtype = self._schema.field(name).type
        for member, key, number in zip(members, keys, file_of.tolist(), strict=True):
            try:
                value = int(member) if dtype == pa.int64() else member.decode()
                pa.scalar(value, dtype)
            except (ValueError, OverflowError):
                return PoolError(
                    f"{self._files[number]}: sample {key!r}: member {name!r} has "
                    f"{member[:20]!r}, which is no {dtype}; name the members otherwise "
                    "for bytes"
                )
        return PoolError(
            f"column {name!r}: {len(members)} members do not fit one batch: {error}. "
            "Ask for fewer rows"
        )

    def spans(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> None:
        """Returns None: the rows do not lie in memory."""

    def close(self) -> None:
        """Lets go of the files."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


def _columns(index: pa.Schema) -> pa.Schema:
    """Returns the columns of the pool, of those of an index."""
    members = [(member, _type(member)) for member in members_of(index)]
    return pa.schema([(KEY, pa.string()), *members])


def _type(member: str) -> pa.DataType:
    kind = member.rpartition(".")[2]
    if kind in _TEXT:
        return pa.string()
    return pa.int64() if kind in _WHOLE else pa.binary()
