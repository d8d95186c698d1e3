"""Digests of files, kept so that opening a pool again is instant."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator
from pathlib import Path

from curator.errors import PoolError

__all__ = ["DigestCache", "open_digest_cache"]


class DigestCache:
    """Digest by name, for as long as what tells of a change stays."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        with connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS digests"
                " (file TEXT PRIMARY KEY, state TEXT NOT NULL, digest BLOB NOT NULL)"
            )

    def get(self, name: str, state: str) -> bytes | None:
        """Returns a digest; None where it is not known."""
        row = self._connection.execute(
            "SELECT digest FROM digests WHERE file = ? AND state = ?", (name, state)
        ).fetchone()
        return None if row is None else row[0]

    def put(self, name: str, state: str, digest: bytes) -> None:
        """Keeps a digest."""
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO digests VALUES (?, ?, ?)",
                (name, state, digest),
            )


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
