"""A folder that one process writes, and files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from typing import IO

from curator.errors import ConfigError, StorageError

__all__ = ["check_none", "claimed", "creating", "lock_part", "replacing", "sync"]


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
        why = error.strerror or str(error)
        if isinstance(error, FileExistsError):
            is_link = folder.is_symlink()
            why = "it is a link to nothing" if is_link else "it is a file"
        msg = f"cannot use {str(folder)!r} as a folder: {why}"
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
            f"another process is writing to {str(folder)!r}: wait for it, or "
            "choose another folder"
        )
        raise StorageError(msg) from error


@contextlib.contextmanager
def replacing(path: Path) -> Generator[IO[bytes]]:
    """Yields a file that takes the place of ``path`` once all of it is on the disk.

    What a crash leaves of it has a name that starts with a dot and is written over by
    the next try.

    Raises:
        StorageError: The disk is full or fails, or another process writes it.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with lock_part(part, path) as descriptor:
            try:
                os.ftruncate(descriptor, 0)
                with os.fdopen(descriptor, "wb", closefd=False) as file:
                    yield file
                    file.flush()
                    os.fsync(descriptor)
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        sync(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            msg = f"no space left to write {str(path)!r}: free some and run it again"
        else:
            msg = f"cannot write {str(path)!r}: {error.strerror or error}"
        raise StorageError(msg) from error


@contextlib.contextmanager
def creating(path: Path) -> Generator[IO[bytes]]:
    """Yields a file as :func:`replacing` does, where there is none of that name.

    Raises:
        ConfigError: There is one.
        StorageError: As :func:`replacing`.
    """
    with replacing(path) as file:
        check_none(path)  # with the lock: of two at once the second finds it here
        yield file


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: They cannot be.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_none(path: Path) -> None:
    """Checks that there is nothing of a name.

    Raises:
        ConfigError: There is.
    """
    if path.exists():
        msg = f"{str(path)!r} is there already: choose another name, or remove it"
        raise ConfigError(msg)


@contextlib.contextmanager
def lock_part(part: Path, path: Path, *, is_folder: bool = False) -> Generator[int]:
    """Opens what will be renamed to ``path``, and keeps other processes from it.

    Args:
        part: Its name until then; made where there is none.
        path: For the message.
        is_folder: What it is.

    Raises:
        OSError: It cannot be opened.
        StorageError: Another process writes it.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_WRONLY | os.O_CREAT
    while True:
        if is_folder:
            part.mkdir(exist_ok=True)
        try:
            descriptor = os.open(part, flags, 0o666)
        except FileNotFoundError:
            if not is_folder:
                raise
            continue  # renamed since it was made
        try:
            with contextlib.suppress(OSError):  # where the file system has no locks
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    msg = (
                        f"another process is writing {str(path)!r}: wait for it, or "
                        "choose another name"
                    )
                    raise StorageError(msg) from None
            if _is_still(part, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_still(part: Path, descriptor: int) -> bool:
    """Whether a file has not been renamed or removed since it was opened."""
    try:
        return os.path.samestat(part.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
