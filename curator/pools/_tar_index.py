"""Where the members of tar files lie, noted once and kept."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from curator.errors import PoolError
from curator.pools._derived import derive
from curator.pools._files import PoolFile
from curator.progress import Progress

__all__ = ["KEY", "members_of", "places_of", "tar_index"]

KEY = "__key__"
"""The column that has a sample's name."""

_BLOCK_BYTES = 1 << 20
_UNIT_BYTES = 512  # a header, and what members are padded to
# The sample, up to the first dot of the file's name, and the member.
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")


def tar_index(file: PoolFile, folder: Path, progress: Progress) -> Path:
    """Returns an Arrow file that says where the members of each sample lie.

    It has one record batch: the key, and of each kind of member where it starts and its
    size.

    Args:
        file: The tar file.
        folder: Where indices are kept.
        progress: Of the indices of all files.

    Raises:
        PoolError: The file is damaged, has no samples, or their members differ.
    """

    def build(target: Path, progress: Progress) -> None:
        index = _to_batch(file, _read(file, progress))
        with (
            pa.OSFile(str(target), "wb") as sink,
            pa.ipc.new_file(sink, index.schema) as out,
        ):
            out.write_batch(index)

    return derive(folder, "tar-index.arrow", [file], build, progress=progress)


def members_of(index: pa.Schema) -> list[str]:
    """Returns the kinds of members that an index has, sorted."""
    return [name.removesuffix(" start") for name in index.names[1::2]]


def places_of(columns: Sequence[str]) -> list[str]:
    """Returns the columns of an index that say where columns of the pool lie."""
    members = [name for name in columns if name != KEY]
    places = [f"{name} {what}" for name in members for what in ("start", "size")]
    return [KEY, *places]


_Sample = dict[str, tuple[int, int]]


def _read(file: PoolFile, progress: Progress) -> dict[str, _Sample]:
    """Returns start and size of each member, by sample."""
    samples: dict[str, _Sample] = {}
    last: str | None = None
    try:
        # A local file's headers are sought; a remote one is cheaper to stream through.
        local = file.local
        source = local.open("rb") if local is not None else file.open_stream()
        mode = "r|" if local is None else "r:"
        open_tar = cast("Any", tarfile).open
        with (
            source,
            open_tar(fileobj=source, mode=mode, bufsize=_BLOCK_BYTES) as tar,
        ):
            while (member := tar.next()) is not None:
                tar.members = []  # it would keep them all in memory
                num_units = 1 + -(-member.size // _UNIT_BYTES)
                progress.advance(num_units * _UNIT_BYTES)
                _check(member, file)
                if member.isdir() or member.name.rpartition("/")[2].startswith("."):
                    continue
                name = _NAME.fullmatch(member.name)
                if name is None:
                    msg = (
                        f"{file}: member {member.name!r} belongs to no sample: "
                        "'NAME.ENDING' is expected, the ending says what it is"
                    )
                    raise PoolError(msg)
                key, column = name[1], name[2].lower()
                if key != last and key in samples:
                    msg = (
                        f"{file}: two samples {key!r}, or the members of one do not "
                        "follow each other: write the shard anew, sorted by name"
                    )
                    raise PoolError(msg)
                last = key
                sample = samples.setdefault(key, {})
                if column in sample:
                    msg = f"{file}: sample {key!r} has two members {column!r}"
                    raise PoolError(msg)
                sample[column] = (member.offset_data, member.size)
            end = tar.offset
        _check_end(file, end)
    except (tarfile.TarError, OSError, EOFError) as error:
        msg = f"{file}: not a tar file, or damaged: {error}. Unpack a packed one first"
        raise PoolError(msg) from error
    return samples


def _check(member: tarfile.TarInfo, file: PoolFile) -> None:
    """Checks that a member is a file that lies there as it is, or a folder."""
    if member.isdir():
        return
    if not member.isfile() or member.issparse():
        msg = (
            f"{file}: member {member.name!r} is no plain file (its type is "
            f"{member.type!r}): a pool has files only"
        )
        raise PoolError(msg)
    end = member.offset_data + member.size
    if end > file.state.size:
        msg = (
            f"{file}: cut short: member {member.name!r} ends at byte {end}, the file "
            f"at {file.state.size}"
        )
        raise PoolError(msg)


def _check_end(file: PoolFile, end: int) -> None:
    """Checks that what stopped the reading is the archive's end: tarfile says nothing.

    That is one block of zeros; most writers make it two, and some more.

    Raises:
        PoolError: It is damaged there, or was cut short between two members.
    """
    with file.open_random() as source:
        header = bytes(source.read_at(_UNIT_BYTES, min(end, file.state.size)))
    if len(header) < _UNIT_BYTES:
        msg = (
            f"{file}: cut short: it ends at byte {file.state.size} without the empty "
            "block that is the end of a tar file: copy or write it anew"
        )
        raise PoolError(msg)
    if header.strip(b"\0"):
        msg = f"{file}: not a tar file, or damaged: no header at byte {end}"
        raise PoolError(msg)


def _to_batch(file: PoolFile, samples: dict[str, _Sample]) -> pa.RecordBatch:
    if not samples:
        msg = f"{file}: a shard has at least one sample; this one has no files"
        raise PoolError(msg)
    columns = sorted(next(iter(samples.values())))
    first = next(iter(samples))
    for key, sample in samples.items():
        for column in sorted(sample.keys() ^ set(columns)):
            has, has_not = (key, first) if column in sample else (first, key)
            msg = (
                f"{file}: sample {has!r} has {column!r}, and {has_not!r} has not: all "
                "samples need the same members"
            )
            raise PoolError(msg)
    arrays = {KEY: pa.array(list(samples), pa.string())}
    for column in columns:
        for i, what in enumerate(("start", "size")):
            places = [sample[column][i] for sample in samples.values()]
            arrays[f"{column} {what}"] = pa.array(places, pa.int64())
    return pa.RecordBatch.from_pydict(arrays)
