"""Files and folders that get their names when all of them is on the disk."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from curator.errors import StorageError
from curator.files import check_none, creating, lock_part, sync

__all__ = ["whole_file", "whole_folder"]


@contextlib.contextmanager
def whole_file(path: Path) -> Generator[IO[bytes]]:
    """Yields a file, packed if its name says so, of which an error leaves nothing.

    Raises:
        ConfigError: There is such a file.
        StorageError: The disk is full or fails, or another process writes it.
    """
    with creating(path) as file, _packed(file, path.suffix) as out:
        yield out


@contextlib.contextmanager
def _packed(file: IO[bytes], suffix: str) -> Generator[IO[bytes]]:
    if suffix == ".gz":
        # No name and no time, so that equal rows give equal bytes.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield cast("IO[bytes]", packed)
    elif suffix == ".zst":
        # A file of its own, because pyarrow closes what it writes to.
        with (
            os.fdopen(os.dup(file.fileno()), "wb") as own,
            pa.CompressedOutputStream(own, "zstd") as packed,
        ):
            yield cast("IO[bytes]", packed)
    else:
        yield file


@contextlib.contextmanager
def whole_folder(path: Path) -> Generator[Path]:
    """Yields a new folder that gets the name ``path`` once all of it is on the disk.

    What a crash leaves of it has a name that starts with a dot and is removed by the
    next try.

    Raises:
        ConfigError: There is something of that name.
        StorageError: The disk is full or fails, or another process writes it.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with lock_part(part, path, is_folder=True):
            try:
                check_none(path)
                _empty(part)
                yield part
                for folder, _, names in os.walk(part):
                    for name in [*names, "."]:
                        sync(Path(folder) / name)
                part.rename(path)
                sync(path.parent)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    except OSError as error:
        # Lance says it in words only.
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space" in str(error):
            msg = f"no space left to write {str(path)!r}: free some and run it again"
        else:
            msg = f"cannot write {str(path)!r}: {error.strerror or error}"
        raise StorageError(msg) from error


def _empty(folder: Path) -> None:
    """Removes what a crash left in a folder."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
