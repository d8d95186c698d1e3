"""A folder that one process writes, and files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from typing import IO

from curator.errors import StorageError

__all__ = ["claimed", "replacing"]


@contextlib.contextmanager
def claimed(folder: Path) -> Generator[None]:
    """Makes a folder where there is none, and keeps other processes out of it.

    Raises:
        StorageError: It cannot be made, or another process writes to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        msg = f"cannot use {str(folder)!r} as a folder: {error.strerror or error}"
        raise StorageError(msg) from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        # Of the folder itself: it leaves nothing behind, and ends with the process.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        msg = (
            f"another process is writing scores to {str(folder)!r}: wait for it, or "
            "choose another folder"
        )
        raise StorageError(msg) from error


@contextlib.contextmanager
def replacing(path: Path) -> Generator[IO[bytes]]:
    """Yields a file that takes the place of ``path`` once all of it is on the disk.

    What a crash leaves of it has a name that starts with a dot and is written over by
    the next try.

    Raises:
        StorageError: The disk is full or fails.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            msg = f"no space left to write {str(path)!r}: free some and run it again"
        else:
            msg = f"cannot write {str(path)!r}: {error.strerror or error}"
        raise StorageError(msg) from error
