"""Opening a pool by the name of its format, as a configuration does."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from curator.errors import ConfigError
from curator.pools._arrow import ArrowPool
from curator.pools._base import Pool
from curator.pools._csv import csv_pool
from curator.pools._huggingface import huggingface_pool
from curator.pools._jsonl import jsonl_pool
from curator.pools._lance import LancePool
from curator.pools._mds import MdsPool
from curator.pools._parquet import DEFAULT_CACHE_BYTES, ParquetPool
from curator.pools._virtual import VirtualPool
from curator.pools._webdataset import WebDatasetPool

__all__ = ["FORMATS", "open_pool"]

_OPENERS: dict[str, Callable[..., Pool]] = {
    "arrow": ArrowPool,
    "csv": csv_pool,
    "huggingface": huggingface_pool,
    "jsonl": jsonl_pool,
    "lance": LancePool,
    "mds": MdsPool,
    "parquet": ParquetPool,
    "webdataset": WebDatasetPool,
}
FORMATS = (*_OPENERS, "virtual")


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
        format: One of :data:`FORMATS`.
        path: A file, a folder, a glob, or a URI of any of them; not for a virtual pool.
        num_examples: Of a virtual pool, and of no other.
        cache_bytes: How much decoded Parquet is kept in memory; 1 GiB by default.
        fingerprint_cache: SQLite file that keeps digests of files, so that opening the
            pool again is instant. Indices and decoded copies are kept beside it, in
            the folder ``pools``; without it in the user's cache folder.

    Raises:
        ConfigError: There is no such format or file system, or what it needs is not
            given.
        MissingDependencyError: The format's package is not installed.
        PoolError: The data cannot be read.
    """
    if format == "virtual":
        if num_examples is None:
            msg = "num_examples: a virtual pool needs it; got None"
            raise ConfigError(msg)
        return VirtualPool(num_examples)
    if format not in _OPENERS:
        close = difflib.get_close_matches(format, FORMATS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        msg = f"unknown pool format {format!r}{hint}. Known: {', '.join(FORMATS)}"
        raise ConfigError(msg)
    if path is None:
        msg = f"path: a pool of format {format!r} needs one; got None"
        raise ConfigError(msg)
    options: dict[str, Any] = {"fingerprint_cache": fingerprint_cache}
    if format == "parquet":
        options["cache_bytes"] = (
            DEFAULT_CACHE_BYTES if cache_bytes is None else cache_bytes
        )
    return _OPENERS[format](path, **options)
