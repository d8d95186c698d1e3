"""Digests of files, kept so that opening a pool again is instant."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Generator
from pathlib import Path

from curator.errors import PoolError

__all__ = ["DigestCache", "open_digest_cache"]

# A file that is written to twice within a tick of the file system's clock keeps its
# times, so a digest of what was written just now is not kept (git does likewise).
_SETTLED_NS = 2_000_000_000


class DigestCache:
    """Digest by file, for as long as the file's size, times and inode stay."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        with connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS digests"
                " (file TEXT PRIMARY KEY, state TEXT NOT NULL, digest BLOB NOT NULL)"
            )

    def get(self, file: Path, stat: os.stat_result) -> bytes | None:
        """Returns the digest of a file; None where it is not known."""
        row = self._connection.execute(
            "SELECT digest FROM digests WHERE file = ? AND state = ?",
            (str(file), _state(stat)),
        ).fetchone()
        return None if row is None else row[0]

    def put(self, file: Path, stat: os.stat_result, digest: bytes) -> None:
        """Keeps a file's digest, unless it changed since ``stat`` or just before."""
        is_settled = time.time_ns() - stat.st_mtime_ns > _SETTLED_NS
        if is_settled and _state(file.stat()) == _state(stat):
            with self._connection:
                self._connection.execute(
                    "INSERT OR REPLACE INTO digests VALUES (?, ?, ?)",
                    (str(file), _state(stat), digest),
                )


def _state(stat: os.stat_result) -> str:
    # The change time sees an edit after which the modification time was put back.
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


@contextlib.contextmanager
def open_digest_cache(path: Path | None) -> Generator[DigestCache]:
    """Opens a cache of digests in a SQLite file; None is one that forgets.

    Raises:
        PoolError: The file is something else, or cannot be written.
    """
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        # Several servers may share the file; each waits for the other's short writes.
        connection = sqlite3.connect(path or ":memory:", timeout=60)
        with contextlib.closing(connection):
            yield DigestCache(connection)
    except sqlite3.Error as exc:
        msg = (
            f"the fingerprint cache {path} cannot be used: {exc}. It can be deleted: "
            "the next start hashes the files again"
        )
        raise PoolError(msg) from exc
