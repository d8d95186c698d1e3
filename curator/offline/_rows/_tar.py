"""Rows as a WebDataset shard: a tar file with a member for each value."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from curator.errors import ConfigError
from curator.offline._rows._format import RowFormat, Rows, is_text, is_whole, not_kept
from curator.offline._rows._whole import whole_file

__all__ = ["WEBDATASET"]

_KEY = "__key__"
# What a sample may be called: nothing behind a first dot, which begins the member.
_SAMPLE = re.compile(r"([^\0\n]*/)?[^./\0]+")
# What members are by the end of their name, as curator/pools/_webdataset.py has it.
_TEXT = {"txt", "text", "transcript", "json", "jsonl"}
_WHOLE = {"cls", "cls2", "class", "count", "index", "inx", "id"}


def _problem(field: pa.Field) -> str | None:
    name, dtype = field.name, field.type
    if name == _KEY:
        return None if is_text(dtype) else f"is {dtype}, and a sample's name is text"
    if not name or name != name.lower() or re.search(r"[/\0]", name):
        return "does not name a member of a tar file: lower case without '/' does"
    end = name.rpartition(".")[2]
    if end in _TEXT:
        is_right, what = is_text(dtype), "text"
    elif end in _WHOLE:
        is_right, what = is_whole(dtype), "an int64"
    else:
        is_right, what = _is_bytes(dtype), "bytes"
    if is_right:
        return None
    return f"is {dtype}, and a member of a tar file with that name is {what}"


def _is_bytes(dtype: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_binary(dtype)
        or types.is_large_binary(dtype)
        or types.is_binary_view(dtype)
        or types.is_fixed_size_binary(dtype)
    )


def _write(path: Path, rows: Rows) -> None:
    members = sorted(name for name in rows.schema.names if name != _KEY)
    if not members:
        msg = f"rows: a sample of a tar file needs a column beside {_KEY!r}"
        raise ConfigError(msg)
    seen = set[str]()
    with (
        whole_file(path) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        tar: Any = archive  # its members have no type
        for ids, piece in rows.pieces():
            for id, row in zip(ids, piece.to_pylist(), strict=True):
                key = _sample(id, row.get(_KEY, f"{id:012d}"), seen)
                for name in members:
                    data = _member(id, name, row[name])
                    # Neither time nor owner, so that equal rows give equal bytes.
                    info = tarfile.TarInfo(f"{key}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                tar.members = []  # it would keep them all in memory


def _sample(id: int, key: str | None, seen: set[str]) -> str:
    """Returns the name of a sample.

    Raises:
        ConfigError: It cannot be one.
    """
    if key is None or not _SAMPLE.fullmatch(key):
        problem = f"is {key!r} for example {id}, which does not name a sample"
        raise not_kept(_KEY, problem)
    if key in seen:
        problem = f"is {key!r} for example {id} and for one before, of another shard"
        raise not_kept(_KEY, problem)
    seen.add(key)
    return key


def _member(id: int, name: str, value: str | int | bytes | None) -> bytes:
    if value is None:
        problem = f"is null for example {id}, and samples have all members"
        raise not_kept(name, problem)
    return value if isinstance(value, bytes) else str(value).encode()


WEBDATASET = RowFormat("webdataset", (".tar",), _problem, _write)
