"""Pools of MosaicML's streaming shards (MDS), read by the places in their headers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, Integer

from curator.errors import PoolError
from curator.pools._byte_cache import ByteCache
from curator.pools._derived import cache_folder, derive
from curator.pools._files import PoolFile, file_at, file_in
from curator.pools._fingerprint import Once, files_fingerprint
from curator.pools._mds_types import MdsColumn, mds_columns
from curator.pools._progress import reading
from curator.pools._ranges import RangeReader
from curator.pools._request import check_columns, check_ids, empty_columns, still_open
from curator.pools._take import locate, starts_of
from curator.progress import Progress

__all__ = ["MdsPool", "read_mds_columns"]

_HEADERS_BYTES = 64 << 20
_COPY_BYTES = 8 << 20
_PACKINGS = {"zstd": "zstd", "gz": "gzip", "bz2": "bz2"}
# What decoders raise; the second for a number that its type cannot hold.
_UNDECODABLE = (ValueError, OverflowError, pa.ArrowException)


class MdsPool:
    """The samples of a folder of MDS shards, in the order of its ``index.json``.

    Shards are read where they lie, sample by sample. A packed shard (``zstd``, ``gz``
    or ``bz2``) that is not there unpacked as well is unpacked once, beside the cache
    of digests.

    The library's own reader is not used: it needs torch, torchvision and the packages
    of four clouds, to read a format of a page.

    Args:
        path: The folder that has ``index.json``.
        fingerprint_cache: Where the files' digests are kept, to hash them once only.

    Raises:
        PoolError: There is no index, a shard is missing or is not as the index says, or
            a column has an encoding that cannot be read.
    """

    def __init__(
        self, path: str | Path, *, fingerprint_cache: Path | None = None
    ) -> None:
        index_file = file_in(path, "index.json")
        shards = _read_index(index_file)
        self._columns = _columns(index_file, shards)
        self._schema = pa.schema([(c.name, c.type) for c in self._columns])
        self._starts = starts_of([shard.num_samples for shard in shards])
        if not self.num_examples:
            msg = f"{path}: a pool has at least one example; the shards have none"
            raise PoolError(msg)
        found = [_find(path, shard) for shard in shards]
        folder = cache_folder(fingerprint_cache)
        with reading("unpacked shards", found) as progress:
            self._files = [
                _unpacked(file, shard, folder, progress)
                for file, shard in zip(found, shards, strict=True)
            ]
        self._reader: RangeReader | None = RangeReader(self._files)
        self._headers: ByteCache[int, Int64[np.ndarray, " S"]] = ByteCache(
            _HEADERS_BYTES
        )
        files = [index_file, *found]
        self._fingerprint = Once(lambda: files_fingerprint(files, fingerprint_cache))

    @property
    def num_examples(self) -> int:
        """How many samples the index counts."""
        return int(self._starts[-1])

    @property
    def schema(self) -> pa.Schema:
        """The columns, sorted by name as in the shards."""
        return self._schema

    @property
    def fingerprint(self) -> str:
        """Digest of the index and the shards, computed when first asked for."""
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
        shard_of, row_of = locate(self._starts, ids)
        starts, sizes = self._places(reader, shard_of, row_of)
        samples = reader.read(shard_of, starts, sizes)
        by_name = {column.name: column for column in self._columns}
        asked = [by_name[name] for name in names]
        try:
            cells = self._split(samples)
            arrays = [column.decode(cells[column.name]) for column in asked]
        except _UNDECODABLE as error:
            raise self._wrong(asked, samples, shard_of, row_of, error) from error
        fields = [self._schema.field(name) for name in names]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _wrong(
        self,
        columns: Sequence[MdsColumn],
        samples: list[bytes],
        shard_of: Int64[np.ndarray, " n"],
        row_of: Int64[np.ndarray, " n"],
        error: Exception,
    ) -> PoolError:
        """Returns the error that names the first sample that cannot be decoded."""
        places = zip(shard_of.tolist(), row_of.tolist(), strict=True)
        for sample, (shard, row) in zip(samples, places, strict=True):
            where = sample_at = f"{self._files[shard]}: sample {row}"
            try:
                cells = self._split([sample])
                for column in columns:
                    where = f"{sample_at}: column {column.name!r}"
                    column.decode(cells[column.name])
            except _UNDECODABLE as own:
                return PoolError(f"{where} cannot be decoded: {own}")
        return PoolError(
            f"{len(samples)} samples do not fit one batch: {error}. Ask for fewer rows"
        )

    def _places(
        self,
        reader: RangeReader,
        shard_of: Int64[np.ndarray, " n"],
        row_of: Int64[np.ndarray, " n"],
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Returns where samples start in their shards, and their sizes."""
        shards, which = np.unique(shard_of, return_inverse=True)
        if not len(shards):
            return row_of, row_of

        def load(missing: Sequence[int]) -> list[tuple[np.ndarray, int]]:
            return [self._read_header(reader, shard) for shard in missing]

        headers = self._headers.get(shards.tolist(), load)
        starts, stops = np.empty_like(row_of), np.empty_like(row_of)
        for i, header in enumerate(headers):
            here = which == i
            starts[here] = header[row_of[here]]
            stops[here] = header[row_of[here] + 1]
        return starts, stops - starts

    def _read_header(self, reader: RangeReader, shard: int) -> tuple[np.ndarray, int]:
        """Returns where the samples of a shard lie, and how many bytes that takes."""
        num = int(self._starts[shard + 1] - self._starts[shard])
        [data] = reader.read(
            np.array([shard]), np.array([0]), np.array([4 * (num + 2)])
        )
        numbers = np.frombuffer(data, "<u4").astype(np.int64)
        size = self._files[shard].state.size
        ends = numbers[1:]
        if numbers[0] != num or ends[-1] > size or (np.diff(ends) < 0).any():
            msg = (
                f"{self._files[shard]}: not the MDS shard of {num} samples that "
                f"index.json says, or damaged: its header says {numbers[0]} samples "
                f"that end at byte {ends[-1]} of {size}"
            )
            raise PoolError(msg)
        return ends, ends.nbytes

    def _split(self, samples: list[bytes]) -> dict[str, list[bytes]]:
        """Returns the cells of samples by column.

        A sample is the sizes of those columns whose size varies, then the cells.
        """
        varying = sum(column.size is None for column in self._columns)
        cells: dict[str, list[bytes]] = {column.name: [] for column in self._columns}
        for sample in samples:
            sizes = iter(np.frombuffer(sample, "<u4", varying).tolist())
            at = 4 * varying
            for column in self._columns:
                size = next(sizes) if column.size is None else column.size
                cells[column.name].append(sample[at : at + size])
                at += size
            if at != len(sample):
                msg = f"it has {len(sample)} bytes, and its columns {at}"
                raise ValueError(msg)
        return cells

    def spans(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> None:
        """Returns None: the rows do not lie in memory."""

    def close(self) -> None:
        """Lets go of the files."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


def read_mds_columns(path: str | Path) -> list[MdsColumn]:
    """Returns the columns of a folder of shards, as its index says them.

    Raises:
        PoolError: There is no index, or it is not one of a pool.
    """
    file = file_in(path, "index.json")
    return _columns(file, _read_index(file))


def _columns(file: PoolFile, shards: Sequence[_Shard]) -> list[MdsColumn]:
    layouts = [(shard.columns, shard.encodings, shard.sizes) for shard in shards]
    return mds_columns(str(file), layouts)


@dataclasses.dataclass(frozen=True, slots=True)
class _Shard:
    """What the index says of a shard."""

    name: str
    packed_name: str | None
    compression: str | None
    num_samples: int
    columns: list[str]
    encodings: list[str]
    sizes: list[int | None]


def _read_index(file: PoolFile) -> list[_Shard]:
    try:
        with file.open_stream() as source:
            index = json.loads(bytes(source.read()))
        return [_shard(entry) for entry in index["shards"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{file}: not the index of MDS shards, or damaged: {error!r}"
        raise PoolError(msg) from error


def _shard(entry: dict[str, Any]) -> _Shard:
    if entry["format"] != "mds" or entry["version"] != 2:
        what = f"format {entry['format']!r}, version {entry['version']!r}"
        msg = f"a shard of {what}; only 'mds', version 2, can be read"
        raise ValueError(msg)
    packed = cast("dict[str, Any] | None", entry["zip_data"])
    compression = cast("str | None", entry["compression"])
    return _Shard(
        name=entry["raw_data"]["basename"],
        packed_name=None if packed is None else packed["basename"],
        compression=None if compression is None else compression.partition(":")[0],
        num_samples=entry["samples"],
        columns=entry["column_names"],
        encodings=entry["column_encodings"],
        sizes=entry["column_sizes"],
    )


def _find(path: str | Path, shard: _Shard) -> PoolFile:
    try:
        return file_in(path, shard.name)
    except PoolError:
        if shard.packed_name is None:
            raise
    return file_in(path, shard.packed_name)


def _unpacked(
    file: PoolFile, shard: _Shard, folder: Path, progress: Progress
) -> PoolFile:
    """Returns a file to read samples from, which is made where there is none."""
    if file.name == shard.name.rpartition("/")[2]:
        progress.leave_out(file.state.size)
        return file
    packing = _PACKINGS.get(str(shard.compression))
    if packing is None:
        msg = (
            f"{file}: packed with {shard.compression!r}, which cannot be unpacked here "
            f"({', '.join(_PACKINGS)} can): unpack the shards"
        )
        raise PoolError(msg)

    def unpack(target: Path, progress: Progress) -> None:
        with (
            file.open_stream() as raw,
            pa.CompressedInputStream(raw, packing) as source,
            target.open("wb") as out,
        ):
            while block := source.read(_COPY_BYTES):
                out.write(block)
            progress.advance(file.state.size)

    return file_at(derive(folder, "mds", [file], unpack, progress=progress))
