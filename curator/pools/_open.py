"""Opening a pool by the name of its format, as a configuration does."""

from __future__ import annotations

import difflib
from pathlib import Path

from curator.errors import ConfigError
from curator.pools._arrow import ArrowPool
from curator.pools._base import Pool
from curator.pools._parquet import DEFAULT_CACHE_BYTES, ParquetPool
from curator.pools._virtual import VirtualPool

__all__ = ["FORMATS", "open_pool"]

FORMATS = ("arrow", "parquet", "virtual")


def open_pool(
    format: str,
    path: str | Path | None = None,
    *,
    num_examples: int | None = None,
    cache_bytes: int | None = None,
    fingerprint_cache: Path | None = None,
) -> Pool:
    """Returns a pool.

    Args:
        format: ``arrow``, ``parquet`` or ``virtual``.
        path: A file, a folder or a glob; not for a virtual pool.
        num_examples: Of a virtual pool, and of no other.
        cache_bytes: How much decoded Parquet is kept in memory; 1 GiB by default.
        fingerprint_cache: SQLite file that keeps digests of files, so that opening the
            pool again is instant.

    Raises:
        ConfigError: There is no such format, or what it needs is not given.
        PoolError: The data cannot be read.
    """
    if format == "virtual":
        if num_examples is None:
            msg = "num_examples: a virtual pool needs it; got None"
            raise ConfigError(msg)
        return VirtualPool(num_examples)
    if format not in FORMATS:
        close = difflib.get_close_matches(format, FORMATS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        msg = f"unknown pool format {format!r}{hint}. Known: {', '.join(FORMATS)}"
        raise ConfigError(msg)
    if path is None:
        msg = f"path: a pool of format {format!r} needs one; got None"
        raise ConfigError(msg)
    if format == "arrow":
        return ArrowPool(path, fingerprint_cache=fingerprint_cache)
    if cache_bytes is None:
        cache_bytes = DEFAULT_CACHE_BYTES
    return ParquetPool(
        path, cache_bytes=cache_bytes, fingerprint_cache=fingerprint_cache
    )
