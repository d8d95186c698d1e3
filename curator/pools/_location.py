"""Where data lies: local paths, and URIs of any file system."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from pyarrow import fs

from curator.errors import ConfigError

__all__ = ["is_uri", "names_in", "open_location"]

_fs: Any = fs  # the module has no types


def is_uri(path: str | Path) -> bool:
    """Whether a path names its file system, as ``s3://bucket/folder`` does."""
    return "://" in str(path)


def open_location(uri: str) -> tuple[Any, str]:
    """Returns the file system of a local path or a URI, and the path on it.

    URIs are those of ``pyarrow.fs`` (``s3://``, ``gs://``, ``abfs://``, ``hdfs://``,
    ``file://``), and of fsspec where that is installed. Credentials come from where
    these find them: the environment, a profile, the machine's role.

    Raises:
        ConfigError: There is no such file system, or its package is missing.
    """
    if not is_uri(uri):
        return _fs.LocalFileSystem(), str(Path(uri).absolute())
    try:
        system, path = _fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        return _open_fsspec(uri, error)
    return system, path


def names_in(folder: str | Path) -> list[str]:
    """Returns the names in a folder, sorted; none where it is no folder.

    Raises:
        OSError: It cannot be read.
        ConfigError: There is no such file system.
    """
    system, root = open_location(str(folder))
    selector = _fs.FileSelector(root, allow_not_found=True)
    if system.get_file_info(root).type != _fs.FileType.Directory:
        return []
    return sorted(info.base_name for info in system.get_file_info(selector))


def _open_fsspec(uri: str, why: Exception) -> tuple[Any, str]:
    try:
        import fsspec  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        msg = f"cannot open {uri!r}: {why}. Install fsspec for more file systems"
        raise ConfigError(msg) from why
    try:
        system, path = cast(
            "tuple[Any, str]",
            fsspec.core.url_to_fs(uri),  # pyright: ignore[reportUnknownMemberType]
        )
    except (ImportError, ValueError) as error:
        msg = f"cannot open {uri!r}: {why}. fsspec: {error}"
        raise ConfigError(msg) from error
    return _fs.PyFileSystem(_fs.FSSpecHandler(system)), path
