"""Which files make up a pool, and whether they fit together."""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from curator.errors import PoolError
from curator.pools._location import is_uri, open_location
from curator.pools._take import plain_schema

__all__ = [
    "SUFFIXES",
    "FileState",
    "PoolFile",
    "common_schema",
    "file_at",
    "file_in",
    "find_files",
    "format_of",
    "unreadable",
]

SUFFIXES: dict[str, tuple[str, ...]] = {
    "arrow": (".arrow", ".ipc", ".feather"),
    "parquet": (".parquet", ".pq"),
    "jsonl": tuple(
        f"{suffix}{packed}"
        for suffix in (".jsonl", ".ndjson")
        for packed in ("", ".gz", ".zst")
    ),
    "csv": (".csv", ".csv.gz", ".csv.zst"),
    "webdataset": (".tar",),
    "mds": (".mds", ".mds.zstd"),
    "lance": (".lance",),
}
"""How the names of the files of each format end."""

# A file that is written to twice within a tick of the file system's clock keeps its
# times, so what was learnt of a file written just now is not kept (git does likewise).
_SETTLED_NS = 2_000_000_000
_fs: Any = fs  # the module has no types


@dataclasses.dataclass(frozen=True, slots=True)
class FileState:
    """What tells that a file changed.

    Attributes:
        size: Bytes.
        mtime_ns: When it was modified; None where its file system does not know.
        text: Size and times, and the inode of a local file.
        inode: Of a local file.
    """

    size: int
    mtime_ns: int | None
    text: str
    inode: int | None = None

    @property
    def is_settled(self) -> bool:
        """Whether a later change of the file is bound to show in ``text``."""
        if self.mtime_ns is None:
            return False
        return time.time_ns() - self.mtime_ns > _SETTLED_NS


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PoolFile:
    """A file of a pool, on any file system.

    Attributes:
        system: The file system, one of ``pyarrow.fs``.
        path: Where it lies there.
        uri: What messages call it: an absolute path, or a URI.
        state: What it was when it was found.
    """

    system: Any
    path: str
    uri: str
    state: FileState

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def local(self) -> Path | None:
        """Its path on this machine; None for a file that lies elsewhere."""
        is_local = isinstance(self.system, _fs.LocalFileSystem)
        return Path(self.path) if is_local else None

    def open_stream(self) -> pa.NativeFile:
        """Opens it to be read from start to end, as it is."""
        return self.system.open_input_stream(self.path, compression=None)

    def open_random(self) -> pa.NativeFile:
        """Opens it to be read anywhere."""
        return self.system.open_input_file(self.path)

    def current_state(self) -> FileState:
        """Returns what it is now.

        Raises:
            OSError: It is gone.
        """
        return _state(self.system, self.path)


def _state(system: Any, path: str) -> FileState:
    if isinstance(system, _fs.LocalFileSystem):
        stat = Path(path).stat()
        # The change time sees an edit after which the modification time was put back.
        text = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        return FileState(stat.st_size, stat.st_mtime_ns, text, stat.st_ino)
    info = system.get_file_info(path)
    if info.type != _fs.FileType.File:
        msg = f"{path}: no such file"
        raise FileNotFoundError(msg)
    return _state_of_info(info)


def _state_of_info(info: Any) -> FileState:
    return FileState(info.size, info.mtime_ns, f"{info.size} {info.mtime_ns}")


def file_at(path: Path) -> PoolFile:
    """Returns a local file."""
    path = path.absolute()
    system = _fs.LocalFileSystem()
    return PoolFile(system, str(path), str(path), _state(system, str(path)))


def file_in(folder: str | Path, name: str) -> PoolFile:
    """Returns a file by its path in a folder.

    Raises:
        PoolError: There is none.
        ConfigError: There is no such file system.
    """
    try:
        if not is_uri(folder):
            return file_at(Path(folder) / name)
        system, root = open_location(str(folder))
        scheme = str(folder).partition("://")[0]
        path = f"{root.rstrip('/')}/{name}"
        if isinstance(system, _fs.LocalFileSystem):
            return file_at(Path(path))
        return PoolFile(system, path, f"{scheme}://{path}", _state(system, path))
    except OSError as error:
        msg = f"{folder}: {name} cannot be read: {error}"
        raise PoolError(msg) from error


def find_files(path: str | Path, format: str) -> list[PoolFile]:
    """Returns the files of a pool, sorted by name.

    Args:
        path: A file, taken as it is; a folder, of which the files whose names end as
            those of ``format`` are taken; or a glob (``**`` for any depth). A URI for
            another file system. Names that start with ``.`` or ``_`` are left out of a
            folder, and no wildcard of a glob takes them, be it a file or a folder on
            the way: the pattern has to have that character, as ``*/_old/*``.
        format: A key of :data:`SUFFIXES`.

    Raises:
        PoolError: There is no such file, it cannot be read, it is a link that leads
            nowhere, or its name ends as those of another format.
        ConfigError: There is no such file system.
    """
    try:
        if is_uri(path):
            files = _find_uri(str(path), format)
        else:
            files = [file_at(found) for found in _find_local(Path(path), format)]
    except OSError as error:
        msg = f"{path}: cannot be read: {error}"
        raise PoolError(msg) from error
    for file in files:
        other = format_of(file.name)
        if other not in (None, format):
            msg = (
                f"{file}: a name of format {other!r}, and the pool is of format "
                f"{format!r}: set format = {other!r}, or rename the file"
            )
            raise PoolError(msg)
    return files


def _find_local(path: Path, format: str) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        names = [c.name for c in path.iterdir() if c.is_file() or _leads_nowhere(c)]
        found = [path / name for name in _of_format(str(path), names, format)]
    else:
        pattern = str(path).split("/")
        wild = (i for i, part in enumerate(pattern) if re.search(r"[*?\[]", part))
        start = next(wild, len(pattern))
        # A set, because several ** find a file more than once.
        matches = sorted({*glob.glob(str(path), recursive=True)})
        found = [
            Path(match)
            for match in matches
            if _matches(match.split("/")[start:], pattern[start:])
        ]
        found = [p for p in found if p.is_file() or _leads_nowhere(p)]
    if not found:
        raise _nothing_there(str(path))
    for link in filter(_leads_nowhere, found):
        # Without it the ids of all that follow would be others.
        msg = (
            f"{link}: a link to {str(link.readlink())!r}, where nothing is: bring back "
            "what it leads to, or remove the link"
        )
        raise PoolError(msg)
    return found


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _find_uri(uri: str, format: str) -> list[PoolFile]:
    # From the first part with a wildcard on; ? begins the options of a URI.
    head, query = (*uri.split("?", 1), "")[:2]
    wildcard = re.search(r"/[^/]*[*\[].*", head)
    folder = head[: wildcard.start()] if wildcard else head
    system, root = open_location(f"{folder}?{query}" if query else folder)
    if isinstance(system, _fs.LocalFileSystem):
        path = root + wildcard.group() if wildcard else root
        return [file_at(found) for found in _find_local(Path(path), format)]
    scheme = uri.partition("://")[0]

    def found(infos: Sequence[Any]) -> list[PoolFile]:
        return [
            PoolFile(system, i.path, f"{scheme}://{i.path}", _state_of_info(i))
            for i in sorted(infos, key=lambda info: info.path)
        ]

    if wildcard:
        pattern = wildcard.group().lstrip("/")
        infos = _list(system, root, recursive="/" in pattern or pattern == "**")
        start = len(root.rstrip("/")) + 1
        infos = [
            info
            for info in infos
            if _matches(info.path[start:].split("/"), pattern.split("/"))
        ]
        if not infos:
            raise _nothing_there(uri)
        return found(infos)
    info = system.get_file_info(root)
    if info.type == _fs.FileType.File:
        return found([info])
    if info.type == _fs.FileType.NotFound:
        raise _nothing_there(uri)
    by_name = {info.base_name: info for info in _list(system, root, recursive=False)}
    return found([by_name[name] for name in _of_format(uri, by_name, format)])


def _list(system: Any, folder: str, *, recursive: bool) -> list[Any]:
    selector = _fs.FileSelector(folder, recursive=recursive, allow_not_found=True)
    infos = system.get_file_info(selector)
    return [info for info in infos if info.type == _fs.FileType.File]


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tells whether a path matches a glob, both cut at the slashes.

    No wildcard takes the first character of a name that is not visible.
    """
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (
            bool(parts) and _is_visible(parts[0]) and _matches(parts[1:], pattern)
        )
    return (
        bool(parts)
        and (_is_visible(parts[0]) or not _is_visible(pattern[0]))
        and fnmatch.fnmatchcase(parts[0], pattern[0])
        and _matches(parts[1:], pattern[1:])
    )


def _of_format(folder: str, names: Iterable[str], format: str) -> list[str]:
    """Returns those of the names in a folder that are of a format, sorted."""
    names = sorted(names)
    suffixes = SUFFIXES[format]
    found = [name for name in names if _is_visible(name) and name.endswith(suffixes)]
    if found:
        return found
    other = f"; it has {', '.join(names[:3])}" if names else ""
    formats = sorted({of for name in names if (of := format_of(name))})
    hint = f" Files of format {' and '.join(formats)} are there." if formats else ""
    msg = (
        f"{folder}: no files that end in {', '.join(suffixes)} in this folder{other}."
        f"{hint} A glob takes other files: 'folder/part-*', 'folder/**/*.arrow'"
    )
    raise PoolError(msg)


def _nothing_there(path: str) -> PoolError:
    return PoolError(
        f"{path}: no such file or folder, and no file matches it as a glob"
    )


def _is_visible(name: str) -> bool:
    """Tells data from what tools leave beside it (``.crc``, ``_SUCCESS``)."""
    return not name.startswith((".", "_"))


def format_of(name: str) -> str | None:
    """Returns the format that a file's name says; None where it says none."""
    for format, suffixes in SUFFIXES.items():
        if name.endswith(suffixes):
            return format
    return None


def unreadable(file: PoolFile, expected: str, exc: Exception) -> PoolError:
    """Returns the error for a file that is not what it should be."""
    try:
        with file.open_stream() as source:
            start = f"It starts with {bytes(source.read(6))!r}"
    except OSError as error:
        return PoolError(f"{file}: cannot be read: {error}")
    return PoolError(f"{file}: not {expected}, or damaged: {exc}. {start}")


def common_schema(files: Sequence[PoolFile], schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Returns the plain schema of files that have the same columns.

    Metadata and dictionaries may differ, see :func:`plain_schema`.

    Raises:
        PoolError: The columns differ; the message names two files and the first column
            that differs.
    """
    plain: list[pa.Schema] = []
    for file, schema in zip(files, schemas, strict=True):
        try:
            plain.append(plain_schema(schema))
        except PoolError as exc:
            msg = f"{file}: {exc}"
            raise PoolError(msg) from exc
    for file, schema in zip(files, plain, strict=True):
        if not schema.equals(plain[0]):
            difference = _difference(files[0], plain[0], file, schema)
            msg = f"the files of a pool need the same columns: {difference}"
            raise PoolError(msg)
    return plain[0]


def _difference(
    a: PoolFile, schema_a: pa.Schema, b: PoolFile, schema_b: pa.Schema
) -> str:
    for name in [*schema_a.names, *schema_b.names]:
        if name not in schema_b.names:
            return f"{a} has {name!r}, {b} has not"
        if name not in schema_a.names:
            return f"{b} has {name!r}, {a} has not"
        field_a, field_b = schema_a.field(name), schema_b.field(name)
        if not field_a.equals(field_b):
            types = f"{_describe(field_a)} in {a} and {_describe(field_b)} in {b}"
            return f"{name!r} is {types}"
    return (
        f"{a} has them in the order {', '.join(schema_a.names)}, "
        f"{b} in the order {', '.join(schema_b.names)}"
    )


def _describe(field: pa.Field) -> str:
    return str(field.type) if field.nullable else f"{field.type} not null"
