"""What is made of a pool's files once, and kept: indices and decoded copies."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from curator.errors import PoolChangedError, PoolError
from curator.pools._files import PoolFile, file_at
from curator.pools._progress import named, reading
from curator.progress import Progress

__all__ = ["Build", "cache_folder", "derive", "local_copies"]

_log = logging.getLogger("curator.pools")
# What another process may be opening just now is not deleted.
_STALE_SECONDS = 3600
_COPY_BYTES = 8 << 20


Build: TypeAlias = Callable[[Path, Progress], None]
"""Writes what is derived to a path, and notes the bytes that it has read."""


def cache_folder(fingerprint_cache: Path | None) -> Path:
    """Returns where indices and copies are kept.

    Beside the digests, in the server's state directory; of a pool that is opened
    without them in the user's cache folder.
    """
    if fingerprint_cache is not None:
        return fingerprint_cache.parent / "pools"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "batch-curator" / "pools"


def derive(
    folder: Path,
    kind: str,
    files: Sequence[PoolFile],
    build: Build,
    *,
    place: str | Path | None = None,
    num_readings: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Returns what is made of files, making it where it is missing.

    It is made anew when a file's size, times or inode change, and each time while the
    files are so new that another change might not show. Written whole or not at all;
    of several processes one makes it, and the others wait.

    Args:
        folder: Where it is kept; anything in it can be deleted while no pool is open.
        kind: What it is; two kinds of the same files are kept apart.
        files: What it is made of.
        build: Makes it.
        place: Where they were found, if others may be found there another time: what
            was made of those before is deleted.
        num_readings: How often ``build`` reads the files.
        progress: Of several things that are made, each of other files; by default of
            this one alone.

    Raises:
        PoolError: It cannot be written, or the files cannot be read.
        PoolChangedError: The files changed meanwhile.
    """
    if progress is None:
        with reading(kind, files, num_readings=num_readings) as own:
            return derive(
                folder,
                kind,
                files,
                build,
                place=place,
                num_readings=num_readings,
                progress=own,
            )
    source = _digest([f.uri for f in files] if place is None else [str(place)])
    state = _digest(f"{file.uri} {file.state.text}" for file in files)
    if not all(file.state.is_settled for file in files):
        state = uuid.uuid4().hex[:16]
    stem = f"{kind}-{source}-"
    path = folder / f"{stem}{state}"
    total = num_readings * sum(file.state.size for file in files)
    if path.exists():
        progress.leave_out(total)
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{kind}-{source}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                for unfinished in folder.glob(f".{stem}*"):  # of one that was killed
                    unfinished.unlink(missing_ok=True)
                _make(path, kind, files, build, progress)
                _delete_stale(folder, stem, path)
            else:  # another process has made it
                progress.leave_out(total)
    except OSError as error:
        msg = (
            f"{files[0]}: {kind} cannot be made in {folder}: {error}. It needs a "
            "folder that can be written and has room: server.state_dir"
        )
        raise PoolError(msg) from error
    return path


def _make(
    path: Path, kind: str, files: Sequence[PoolFile], build: Build, progress: Progress
) -> None:
    started = time.monotonic()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        build(temporary, progress)
        for file in files:
            if file.current_state() != file.state:
                msg = f"{file}: changed while the pool was opened; open it again"
                raise PoolChangedError(msg)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _log.info(
        "%s: made in %.1f s, %.1f MB in %s",
        named(kind, files),
        time.monotonic() - started,
        path.stat().st_size / 1e6,
        path,
    )


def _delete_stale(folder: Path, stem: str, kept: Path) -> None:
    for path in folder.glob(f"{stem}*"):
        if path != kept and time.time() - path.stat().st_mtime > _STALE_SECONDS:
            path.unlink(missing_ok=True)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def local_copies(files: Sequence[PoolFile], folder: Path) -> list[PoolFile]:
    """Returns files of this machine: the local ones themselves, copies of the others.

    Raises:
        PoolError: A file cannot be read, or its copy cannot be written.
        PoolChangedError: A file changed while it was copied.
    """
    remote = [file for file in files if file.local is None]
    if not remote:
        return list(files)
    with reading("copies", remote) as progress:
        return [
            file if file.local is not None else _copied(file, folder, progress)
            for file in files
        ]


def _copied(file: PoolFile, folder: Path, progress: Progress) -> PoolFile:
    def copy(path: Path, progress: Progress) -> None:
        with file.open_stream() as source, path.open("wb") as target:
            while block := source.read(_COPY_BYTES):
                target.write(block)
                progress.advance(len(block))

    found = file_at(derive(folder, "copy", [file], copy, progress=progress))
    return dataclasses.replace(found, uri=file.uri)  # which messages name
