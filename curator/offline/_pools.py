"""A pool of a configuration, open for as long as it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from curator.config import Config, did_you_mean
from curator.errors import ConfigError
from curator.pools import Pool, open_pool

__all__ = ["open_configured_pool"]


@contextlib.contextmanager
def open_configured_pool(config: Config, name: str) -> Generator[Pool]:
    """Opens a pool of a configuration, and closes it.

    Raises:
        ConfigError: There is no such pool.
        PoolError: It cannot be read.
    """
    if name not in config.pools:
        msg = f"no pool {name!r}{did_you_mean(name, config.pools)}"
        raise ConfigError(msg)
    spec = config.pools[name]
    pool = open_pool(
        spec.format,
        path=spec.path,
        num_examples=spec.num_examples,
        cache_bytes=spec.cache_bytes,
        fingerprint_cache=Path(config.server.state_dir) / "fingerprints.sqlite",
    )
    with contextlib.closing(pool):
        yield pool
